"""Grids of runs: what they are, that any executor and any interruption gives the same table."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from crowdnash import cli
from crowdnash.cli.parsing import parse
from crowdnash.cli.sweep import SweepFlags, with_address
from crowdnash.reports.grid_figures import default_axis, metric_against
from crowdnash.runs import Grid, GridObserver, Processes, RayTasks, RunDirectory, run_grid
from crowdnash.runs.evaluation import Evaluation
from crowdnash.runs.metrics_log import read_metrics

SMALL = """
game = "rps"
[game_parameters]
num_agents = 6
horizon = 2
[learner]
evaluation = "td"
groups = "symmetric"
num_epochs = 2
td_epochs = 2
[evaluation]
evaluate_every = 0
num_evaluation_trajectories = 2
own_influence_agents = 0
[grid]
"""
FOUR = SMALL + "seed = [0, 1]\nheterogeneity = [0.0, 0.1]\n"


def table(out: Path) -> str:
    return (out / "table.csv").read_text()


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> Path:
    """A finished grid of four cells, run one after the other."""
    out = tmp_path_factory.mktemp("grid") / "four"
    results = run_grid(Grid.from_toml(FOUR), out)
    assert not results.failures
    return out


def test_cells_are_all_combinations_with_their_settings():
    text = SMALL + 'seed = [0, 7]\n[grid.learner]\ngroups = ["independent", 2]\ntemperature = [0.5]'
    grid = Grid.from_toml(text)
    assert [(c.values["seed"], c.values["groups"]) for c in grid.cells] == [
        (0, "independent"),
        (0, 2),
        (7, "independent"),
        (7, 2),
    ]
    for cell in grid.cells:
        assert cell.config.seed == cell.values["seed"]
        assert cell.config.learner.groups == cell.values["groups"]
        assert cell.config.learner.temperature == 0.5
        assert cell.config.game_parameters["num_agents"] == 6
    assert grid.cells[3].name == "seed=7,groups=2,temperature=0.5"


def test_a_short_name_stands_for_the_one_setting_that_is_called_so():
    short = Grid.from_toml(SMALL + "num_agents = [3, 4]\ntemperature = [0.1]")
    full = Grid.from_toml(
        SMALL + "game_parameters.num_agents = [3, 4]\nlearner.temperature = [0.1]"
    )
    assert short.axes == full.axes
    assert [c.config for c in short.cells] == [c.config for c in full.cells]


def test_games_and_learners_are_axes_too():
    grid = Grid.from_toml(
        '[grid]\ngame = ["sis", "rps"]\nlearner = ["policy-mirror-descent", "ppo"]'
    )
    kinds = [(c.config.game, type(c.config.learner).__name__) for c in grid.cells]
    assert kinds[0] == ("sis", "PolicyMirrorDescent")
    assert kinds[3] == ("rock-paper-scissors", "PPO")


def test_names_of_cells_are_names_of_files_and_differ():
    text = 'game = "sis"\n[grid]\nheterogeneity = [0.1, {recovery = 0.1}, {recovery = 0.2}]'
    names = [cell.name for cell in Grid.from_toml(text).cells]
    assert len(set(names)) == 3
    assert names[0] == "heterogeneity=0.1"
    assert all("/" not in name and " " not in name for name in names)
    assert all(len(name) < 60 for name in names)


def test_the_table_says_what_the_runs_say(four):
    rows = list(csv.DictReader(table(four).splitlines()))
    assert [(row["seed"], row["heterogeneity"]) for row in rows] == [
        ("0", "0.0"),
        ("0", "0.1"),
        ("1", "0.0"),
        ("1", "0.1"),
    ]
    for row in rows:
        directory = RunDirectory(four / "cells" / row["cell"])
        evaluation = Evaluation.load(directory)
        certificate = evaluation.policies[evaluation.recommended].exploitability
        assert row["status"] == "finished"
        assert float(row["exploitability_max_upper"]) == certificate.maximum.upper
        assert float(row["exploitability_mean_lower"]) == certificate.mean.lower
        # 6 agents, 2 steps, 2 trajectories, 2 epochs
        assert int(row["agent_steps"]) == 48
        last = read_metrics(directory.metrics_jsonl)[-1]
        assert float(row["last_mean_return"]) == last["mean_return"]
    assert len({row["exploitability_max_upper"] for row in rows}) == 4


def test_any_executor_gives_the_same_table(four, tmp_path):
    with ThreadPoolExecutor(2) as threads:
        run_grid(Grid.from_toml(FOUR), tmp_path / "threads", executor=threads)
    assert table(tmp_path / "threads") == table(four)


class Stopped(Executor):
    """Runs two calls; at the third somebody presses Ctrl-C."""

    at_once = 1

    def __init__(self):
        self.calls = 0

    def submit(self, fn, /, *args, **kwargs):
        self.calls += 1
        if self.calls > 2:
            raise KeyboardInterrupt
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_what_is_finished_is_not_run_again(four, tmp_path):
    out, grid, done = tmp_path / "stopped", Grid.from_toml(FOUR), []
    with pytest.raises(KeyboardInterrupt):
        run_grid(grid, out, executor=Stopped())
    rows = list(csv.DictReader(table(out).splitlines()))
    assert [row["status"] for row in rows] == ["finished", "finished", "unfinished", "unfinished"]
    observer = GridObserver(
        on_start=lambda finished, total: done.append((finished, total)),
        on_cell=lambda name, number, total, error: done.append(name),
    )
    run_grid(grid, out, observer=observer)
    assert done == [(2, 4), "seed=1,heterogeneity=0.0", "seed=1,heterogeneity=0.1"]
    assert table(out) == table(four)


class Breaking(Executor):
    """A process dies under the second call, and again if it is the one that kills."""

    at_once = 1

    def __init__(self, deadly):
        self.calls, self.deadly = 0, deadly

    def submit(self, fn, /, config, path):
        self.calls += 1
        future = Future()
        if (self.deadly and path.endswith(self.deadly)) or (not self.deadly and self.calls == 2):
            future.set_exception(BrokenProcessPool("a process was terminated abruptly"))
        else:
            future.set_result(fn(config, path))
        return future


@pytest.mark.slow
def test_a_process_that_dies_costs_no_cell_unless_it_dies_again(four, tmp_path):
    grid = Grid.from_toml(FOUR)
    assert not run_grid(grid, tmp_path / "once", executor=Breaking("")).failures
    assert table(tmp_path / "once") == table(four)
    results = run_grid(grid, tmp_path / "twice", executor=Breaking("seed=0,heterogeneity=0.1"))
    assert list(results.failures) == ["seed=0,heterogeneity=0.1"]
    assert "died, twice" in results.failures["seed=0,heterogeneity=0.1"]
    assert [row["status"] for row in results.rows].count("finished") == 3


def test_a_cell_that_fails_is_one_line_and_the_rest_is_done(four, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("grid.toml").write_text(FOUR.replace("[0.0, 0.1]", "[0.1, -1.0]"))
    assert cli.main(["sweep", "grid.toml", "--out", "out"]) == 1
    printed = capsys.readouterr()
    failed = [line for line in printed.err.splitlines() if "seed=0,heterogeneity=-1.0" in line]
    assert any("failed: heterogeneity must be" in line for line in failed)
    assert "2 of 4 cells failed" in printed.err
    rows = list(csv.DictReader(table(Path("out")).splitlines()))
    expected = list(csv.DictReader(table(four).splitlines()))
    assert [row["status"] for row in rows] == ["finished", "failed", "finished", "failed"]
    figures = ("exploitability_max_upper", "last_mean_return")
    assert [rows[0][x] for x in figures] == [expected[1][x] for x in figures]
    assert "Traceback" in Path("out/failures/seed=0,heterogeneity=-1.0.txt").read_text()
    assert Path("out/exploitability_mean-against-heterogeneity.png").stat().st_size > 1000


def test_other_settings_for_a_cell_that_is_there_are_refused(four):
    with pytest.raises(ValueError, match=r"temperature 0\.3 contradicts .*use a new --out"):
        run_grid(Grid.from_toml(FOUR.replace("[learner]", "[learner]\ntemperature = 0.3")), four)
    with pytest.raises(ValueError, match="num_epochs can only grow"):
        run_grid(Grid.from_toml(FOUR.replace("num_epochs = 2", "num_epochs = 1")), four)


def rows_of(values):
    return [
        {"cell": "", "status": "finished", "n": n, "kind": kind, "seed": seed}
        | {"gain_lower": low, "gain_upper": high, "steps": 10 * n}
        for n, kind, seed, low, high in values
    ]


def test_a_chart_has_a_line_for_each_other_value_and_averages_seeds():
    rows = rows_of(
        [
            (1, "a", 0, 1.0, 3.0),
            (1, "a", 1, 3.0, 5.0),
            (100, "a", 0, 0.0, 1.0),
            (100, "a", 1, 0.0, 1.0),
            (1, "b", 0, 7.0, 9.0),
        ]
    )
    axes = ("n", "kind", "seed")
    (chart,) = metric_against(rows, axes, "gain", "n").charts
    assert [line.name for line in chart.series] == ["kind a", "kind b"]
    first = chart.series[0]
    np.testing.assert_array_equal(first.x, [1, 100])
    np.testing.assert_allclose(first.y, [3.0, 0.5])
    np.testing.assert_allclose(first.interval, [[2, 4], [0, 1]])
    # Middles 2 and 4: standard deviation sqrt(2), over sqrt(2) seeds.
    np.testing.assert_allclose(first.error, [1.0, 0.0])
    assert chart.x.scale == "log"
    (chart,) = metric_against(rows, axes, "steps", "kind").charts
    assert chart.x.labels == ("a", "b")
    assert [line.name for line in chart.series] == ["n 1", "n 100"]
    np.testing.assert_array_equal(chart.series[0].y, [10, 10])
    assert default_axis(rows, ("seed", "kind")) == "kind"
    assert default_axis(rows[:2], axes) == "seed"


@pytest.mark.parametrize(
    ("metric", "against", "message"),
    [
        ("gian", "n", r"no metric 'gian'; did you mean gain\?"),
        ("gain", "kid", r"no setting 'kid' in \[grid\]; did you mean kind\?"),
        ("zzz", "n", "there are gain, gain_lower, gain_upper, steps"),
    ],
)
def test_a_chart_of_what_there_is_not_is_refused(metric, against, message):
    rows = rows_of([(1, "a", 0, 1.0, 3.0)])
    with pytest.raises(ValueError, match=message):
        metric_against(rows, ("n", "kind", "seed"), metric, against)


def start(grid: Path, out: Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "crowdnash", "sweep", str(grid), "--out", str(out), *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finished_cells(out: Path) -> int:
    return len(list(out.glob("cells/*/evaluation.json")))


def wait_for(cells: int, out: Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + 240
    while finished_cells(out) < cells and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)


def state_and_parent(process: int) -> tuple[str, int]:
    """Of a process, as Linux tells; "Z" is one that has ended."""
    try:
        state, parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "Z", 0
    return state, int(parent)


def processes_below(parent: int) -> list[int]:
    """The processes that a process started."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [one for one in numbers if state_and_parent(one)[1] == parent]


def is_running(process: int) -> bool:
    return state_and_parent(process)[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's list of processes")
def test_a_hundred_cells_killed_in_the_middle_give_the_same_table(tmp_path):
    grid, out = tmp_path / "grid.toml", tmp_path / "killed"
    grid.write_text(SMALL + f"seed = {list(range(50))}\nheterogeneity = [0.0, 0.1]\n")
    process = start(grid, out, "--workers", "2")
    wait_for(30, out, process)
    workers = processes_below(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    until = time.monotonic() + 5
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(workers) >= 2
    assert not [one for one in workers if is_running(one)]
    assert 30 <= finished_cells(out) < 90
    # Again, and Ctrl-C this time.
    before = finished_cells(out)
    process = start(grid, out, "--workers", "2")
    wait_for(before + 20, out, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert before + 20 <= finished_cells(out) < 100
    process = start(grid, out, "--workers", "2")
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    run_grid(Grid.from_toml(grid.read_text()), tmp_path / "straight")
    assert table(out) == table(tmp_path / "straight")
    assert table(out).count("finished") == 100


@pytest.mark.slow
def test_processes_survive_a_death():
    with Processes(1) as processes:
        with pytest.raises(BrokenProcessPool):
            processes.submit(os._exit, 1).result()
        assert processes.submit(max, 2, 3).result() == 3


@pytest.mark.parametrize(
    ("words", "address"),
    [
        ("--ray", "local"),
        ("--ray --out o", "local"),
        ("--ray 10.0.0.1:6379", "10.0.0.1:6379"),
        ("--ray auto --metric gain", "auto"),
    ],
)
def test_ray_needs_no_address(words, address):
    for line in (["g.toml", *words.split()], [*words.split(), "g.toml"]):
        flags = parse(SweepFlags, "sweep", with_address(line))
        assert (flags.ray, flags.grid) == (address, Path("g.toml"))


@pytest.mark.slow
def test_ray_gives_the_same_table(tmp_path):
    pytest.importorskip("ray")
    grid = Grid.from_toml(SMALL + f"seed = {list(range(10))}\nheterogeneity = [0.0, 0.1]\n")
    with RayTasks() as ray:
        results = run_grid(grid, tmp_path / "ray", executor=ray)
    assert len(results.rows) == 20
    assert not results.failures
    run_grid(grid, tmp_path / "here")
    assert table(tmp_path / "ray") == table(tmp_path / "here")


def test_json_has_the_table(four, capsys, tmp_path):
    (tmp_path / "grid.toml").write_text(FOUR)
    assert cli.main(["sweep", str(tmp_path / "grid.toml"), "--out", str(four), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["seed"] for row in rows] == [0, 0, 1, 1]
    assert rows[0]["exploitability_max_upper"] > 0
