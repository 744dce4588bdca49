"""Runs on several devices and in several processes, as the command line starts them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from crowdnash import cli
from crowdnash.runs import checkpoint
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.metrics_log import read_metrics

# Integer contributions and a table for each agent: the same bits on any number of devices.
GAME = [
    *("solve", "sis", "--num-agents", "24", "--horizon", "3", "--groups", "independent"),
    *("--evaluation", "td", "--td-epochs", "4", "--evaluate-every", "0", "--no-report"),
    *("--num-evaluation-trajectories", "4", "--own-influence-agents", "0"),
]
PPO = ["solve", "rps", "--learner", "ppo", "--num-agents", "4", "--hidden-sizes", "2"]
RESUME = ["solve", "--no-report", "--resume"]
REASONS = ("another process has gone", "process 0 has gone", "another task died")
LONG = 1200


def policies(out: Path) -> dict[str, np.ndarray]:
    """The tables of a finished run."""
    tables = {}
    for name in ("policy.npz", "last_policy.npz"):
        with np.load(out / name) as arrays:
            tables |= {f"{name}/{key}": arrays[key] for key in arrays.files}
    return tables


def assert_equal_runs(one: Path, other: Path) -> None:
    """Bit for bit, metrics included, but for the time they took."""
    expected, actual = policies(one), policies(other)
    assert expected.keys() == actual.keys()
    assert float(np.ptp(expected["last_policy.npz/probs"])) > 0.01  # something was learned
    for name, table in expected.items():
        np.testing.assert_array_equal(actual[name], table, err_msg=name)
    rows = [
        read_metrics(RunDirectory.open(out).metrics_jsonl, up_to_epoch=LONG) for out in (one, other)
    ]
    for before, after in zip(*rows, strict=True):
        assert before["agent_steps"] == after["agent_steps"]
        # A sum of 24 x 3 x 4 rewards up to 2 in another order.
        assert abs(before["mean_return"] - after["mean_return"]) <= 72 * 2.0**-23 * 6


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "crowdnash", *map(str, arguments)]


def on_devices(count: int, lines: list[list[object]]) -> None:
    """Run command lines one after the other in a process that has so many CPU devices."""
    program = "import sys, json\nfrom crowdnash import cli\n"
    program += "for line in json.loads(sys.argv[1]): assert cli.main(line) == 0, line"
    flags = f"--xla_force_host_platform_device_count={count}"
    words = json.dumps([[str(word) for word in line] for line in lines])
    done = subprocess.run(
        [sys.executable, "-c", program, words],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_four_devices_and_another_number_after_them(tmp_path):
    """A checkpoint is in the order of agents: 1 -> 4 (trajectories) -> 2 (agents) devices."""
    one, several = tmp_path / "one", tmp_path / "several"
    on_devices(
        4,
        [
            [*GAME, "--num-epochs", 3, "--out", one],
            [*GAME, "--num-epochs", 1, "--out", several],
            [*RESUME, several, "--num-epochs", 2, "--devices", 4],
            [*RESUME, several, "--num-epochs", 3, "--devices", 2, "--share", "agents"],
        ],
    )
    assert_equal_runs(one, several)


def test_more_devices_than_there_are(tmp_path, capsys):
    out = tmp_path / "run"
    assert jax.device_count() == 1  # JAX has begun, so that no more can be made
    assert cli.main([*GAME, "--out", str(out), "--devices", "3"]) == 2
    assert capsys.readouterr().err == (
        "crowdnash: error: devices must be at most 1, for so many there are (cpu), not 3\n"
    )
    assert cli.main([*PPO, "--out", str(out), "--devices", "1", "--share", "agents"]) == 2
    assert "mesh: PPO shares trajectories alone" in capsys.readouterr().err
    assert not out.exists()


class Cluster:
    """Two processes of one run; `log(i)` is what process i has written."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, []

    def start(self, *arguments: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        flags = ["--distributed", "--coordinator-address", address, "--num-processes", 2]
        self.processes = []
        for index in range(2):
            out, err = (self.folder / f"{index}.{end}" for end in ("out", "err"))
            with out.open("w") as output, err.open("w") as errors:
                line = command(*arguments, *flags, "--process-id", index)
                self.processes.append(subprocess.Popen(line, stdout=output, stderr=errors))

    def log(self, index: int) -> str:
        return "".join((self.folder / f"{index}.{end}").read_text() for end in ("out", "err"))

    def ends(self, seconds: float = 240) -> list[int]:
        """The exit codes of both."""
        return [process.wait(seconds) for process in self.processes]

    def wait_for_epochs(self, out: Path, count: int) -> None:
        """Until a run has so many epochs."""
        path, until = out / "metrics.jsonl", time.monotonic() + 240
        while not path.exists() or path.read_bytes().count(b"\n") < count:
            assert time.monotonic() < until, self.log(0)
            assert all(process.poll() is None for process in self.processes), self.log(0)
            time.sleep(0.1)


@pytest.fixture
def cluster(tmp_path):
    two = Cluster(tmp_path)
    yield two
    for process in two.processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("share", ["trajectories", "agents"])
def test_two_processes_are_one_run(tmp_path, cluster, share):
    """Two processes, then one, then two again, against one process for all epochs."""
    one, several = tmp_path / "one", tmp_path / "several"
    together = ["--share", share]
    cluster.start(*GAME, "--num-epochs", 2, "--out", several, *together)
    assert cluster.ends() == [0, 0], cluster.log(0) + cluster.log(1)
    assert f"2 devices share the {share}" in cluster.log(0)
    assert cli.main([*RESUME, str(several), "--num-epochs", "3"]) == 0
    cluster.start(*RESUME, several, "--num-epochs", 5, *together)
    assert cluster.ends() == [0, 0], cluster.log(0) + cluster.log(1)
    cluster.start(*RESUME, several, "--num-epochs", 5, *together)
    assert cluster.ends() == [0, 0], cluster.log(0) + cluster.log(1)
    assert "is already finished (5 epochs)" in cluster.log(0)
    assert cli.main([*GAME, "--num-epochs", "5", "--out", str(one)]) == 0
    assert_equal_runs(one, several)


@pytest.mark.slow
def test_networks_of_two_processes_are_those_of_two_devices(tmp_path, cluster):
    """As many devices, so the same bits; four devices then go on from their checkpoint."""
    settings = [*PPO, "--num-trajectories", 4, "--minibatch-size", 8, "--num-epochs", 2]
    settings += ["--annealing-epochs", 0]
    settings += ["--no-report", "--num-evaluation-trajectories", 4, "--own-influence-agents", 0]
    one, several = tmp_path / "one", tmp_path / "several"
    cluster.start(*settings, "--out", several)
    assert cluster.ends() == [0, 0], cluster.log(0) + cluster.log(1)
    assert "2 devices share the trajectories" in cluster.log(0)
    on_devices(4, [[*settings, "--out", one, "--devices", 2]])
    with np.load(one / "policy.npz") as expected, np.load(several / "policy.npz") as actual:
        assert expected.files == actual.files
        for name in expected.files:
            np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)
    on_devices(4, [[*RESUME, several, "--num-epochs", 3, "--devices", 4]])
    rows = read_metrics(RunDirectory.open(several).metrics_jsonl, up_to_epoch=LONG)
    assert len(rows) == 3


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What the run that is interrupted would have come to."""
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert cli.main([*GAME, "--num-epochs", str(LONG), "--out", str(out)]) == 0
    return out


def start_long(cluster: Cluster, out: Path, *more: object) -> None:
    checkpoints = ["--checkpoint-every", 5, "--checkpoint-seconds", 0]
    cluster.start(*GAME, "--num-epochs", LONG, *checkpoints, "--out", out, *more)
    cluster.wait_for_epochs(out, 12)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_ends_when_one_is_killed(tmp_path, cluster, uninterrupted, victim):
    out = tmp_path / "run"
    start_long(cluster, out)
    cluster.processes[victim].kill()
    other = 1 - victim
    assert cluster.processes[other].wait(30) not in (0, None)
    assert any(reason in cluster.log(other) for reason in REASONS), cluster.log(other)
    assert cli.main([*RESUME, str(out)]) == 0
    assert_equal_runs(uninterrupted, out)


@pytest.mark.slow
def test_one_that_hangs_ends_the_other_within_the_limit(tmp_path, cluster):
    out, limit = tmp_path / "run", 15
    start_long(cluster, out, "--host-timeout", limit)
    cluster.processes[1].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert cluster.processes[0].wait(3 * limit) == 2
    assert time.monotonic() - began > limit - 5
    assert f"process 0 waited {limit} s for the others during epoch" in cluster.log(0)


@pytest.mark.slow
@pytest.mark.parametrize("presser", [0, 1])
def test_ctrl_c_in_one_process_stops_both_after_a_checkpoint(
    tmp_path, cluster, uninterrupted, presser
):
    out = tmp_path / "run"
    start_long(cluster, out)
    cluster.processes[presser].send_signal(signal.SIGINT)
    assert cluster.ends(60) == [130, 130], cluster.log(0) + cluster.log(1)
    rows = (out / "metrics.jsonl").read_bytes().count(b"\n")
    directory = RunDirectory.open(out)
    assert max(checkpoint.epochs(directory.checkpoints)) == rows < LONG
    assert f"stopped; {rows} epochs are saved" in cluster.log(0)
    assert cli.main([*RESUME, str(out), "--devices", "1"]) == 0
    assert_equal_runs(uninterrupted, out)
