"""Runs on disk: config, metrics, checkpoints, resuming after real kills, full disks."""

import csv
import dataclasses
import errno
import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdnash import Exploitability, PolicyMirrorDescent, TabularPolicy
from crowdnash.files import read_json, write_atomically
from crowdnash.runs import checkpoint, experiment, metrics_log
from crowdnash.runs.checkpoint import CheckpointError
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.epochs import run_columns
from crowdnash.runs.evaluation import Evaluation, population_shares
from crowdnash.runs.game_record import GameRecord
from crowdnash.runs.metrics_log import MetricsLog, read_metrics
from crowdnash.runs.training_loop import Interrupted, Observer

POLICIES = ("policy.npz", "last_policy.npz")


def config(**settings) -> RunConfig:
    defaults = {
        "num_epochs": 6,
        "td_epochs": 5,
        "evaluate_every": 3,
        "num_evaluation_trajectories": 8,
        "own_influence_agents": 0,
        "checkpoint_every": 2,
        "checkpoint_seconds": 0.0,  # by epochs alone, however slow the machine
    }
    game_parameters = {"num_agents": 12, "horizon": 3}
    return RunConfig.create("sis", game_parameters=game_parameters, **(defaults | settings))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run; tests that change it work on a copy."""
    out = tmp_path_factory.mktemp("experiment") / "run"
    experiment.run(config(), out)
    return out


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def same_policies(left: Path, right: Path) -> bool:
    return all((left / name).read_bytes() == (right / name).read_bytes() for name in POLICIES)


def unfinish(path: Path) -> None:
    """Take back what a run does after its last epoch."""
    for name in (*POLICIES, "policies.json", "evaluation.json", "evaluation.npz"):
        (path / name).unlink(missing_ok=True)


# --- config


def test_config_round_trips():
    original = config(temperature=0.1 + 0.2, groups=4)
    assert RunConfig.from_json(original.to_json()) == original


def test_config_writes_out_all_defaults():
    stored = json.loads(RunConfig.create("sis").to_json())
    assert stored["game_parameters"]["num_agents"] == 1000
    assert {"step_size", "mixing", "td_step_size"} <= stored["learner"].keys()


def test_config_has_every_setting_of_the_learner():
    fields = [item.name for item in dataclasses.fields(PolicyMirrorDescent)]
    stored = json.loads(RunConfig.create("sis").to_json())["learner"]
    assert stored.pop("name") == "policy-mirror-descent"
    assert sorted(stored) == sorted(fields)


def test_presets_differ_and_a_setting_overrides():
    theorem = RunConfig.create("sis", preset="theorem").learner
    practical = RunConfig.create("sis", preset="practical").learner
    assert theorem.step_size == "theorem"
    assert theorem.mixing
    assert practical.step_size != "theorem"
    assert not practical.mixing
    assert RunConfig.create("sis", preset="theorem", mixing=False).learner.mixing is False


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_epochs": 0}, "num_epochs must be at least 1, got 0"),
        ({"num_epochs": 2.5}, "num_epochs must be an integer, got 2.5"),
        ({"confidence": 1.0}, r"confidence must lie in \(0, 1\), got 1.0"),
        ({"temperature": float("nan")}, "temperature must be a finite number, got nan"),
        ({"groups": "pairs"}, "groups must be .*'symmetric'.*an integer, got 'pairs'"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**32}, r"seed must be below 2\*\*32, got 4294967296"),
        ({"iterate": "best"}, "iterate must be 'auto' or 'last' or 'average', got 'best'"),
        ({"checkpoint_every": 0, "checkpoint_seconds": 0.0}, "must not both be 0"),
        ({"epochs": 3}, "no setting is called 'epochs'"),
        ({"preset": "fast"}, "preset must be 'practical' or 'theorem', got 'fast'"),
        ({"game_parameters": {"agents": 3}}, "sis has no parameter 'agents'"),
        ({"game_parameters": {"num_agents": "3"}}, "num_agents must be an integer, got '3'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.create("sis", **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stored: stored | {"colour": 1}, "run.json has unknown setting colour"),
        (lambda stored: {k: v for k, v in stored.items() if k != "seed"}, "no setting seed"),
        (lambda stored: stored | {"seed": "x"}, "run.json: seed must be an integer, got 'x'"),
        (lambda stored: stored | {"format": 99}, "not a crowdnash config of format 2"),
        (lambda stored: stored | {"format": 1}, "run.json is of crowdnash 0.1, whose runs"),
        (lambda stored: stored | {"learner": 3}, "run.json has no settings called learner"),
        (lambda _: [1], "not a crowdnash config"),
    ],
)
def test_damaged_config_is_refused(change, message):
    stored = json.loads(config().to_json())
    with pytest.raises(ValueError, match=message):
        RunConfig.from_json(json.dumps(change(stored)), source="run.json")


def test_config_cut_short_is_refused():
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        RunConfig.from_json(config().to_json()[:50])


# --- what a run leaves


def test_run_directory_is_complete(finished):
    names = {entry.name for entry in finished.iterdir()}
    assert {"config.json", "metrics.jsonl", "metrics.csv", "evaluation.json"} <= names
    assert {"symmetry.json", "agents.npz"} <= names
    assert set(POLICIES) <= names
    assert not [name for name in names if "partial" in name]
    assert checkpoint.epochs(finished / "checkpoints") == (2, 4, 6)
    assert experiment.load_config(RunDirectory.open(finished)) == config()


def test_what_a_run_keeps_of_its_game_is_that_of_the_game(finished):
    record = GameRecord.load(RunDirectory.open(finished))
    game = config().draw_game()
    expected = GameRecord.of(game)
    assert record.symmetry == expected.symmetry is not None
    assert record.parameters.keys() == {"susceptibility", "recovery", "isolation_aversion"}
    np.testing.assert_allclose(record.parameters["recovery"], game.agents.recovery)


def test_a_run_of_old_keeps_nothing_of_its_game_until_it_is_evaluated(finished, tmp_path):
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    directory = RunDirectory.open(copy)
    directory.symmetry.unlink()
    directory.agents.unlink()
    assert experiment.resume(copy).evaluation.epoch == 6
    assert not directory.symmetry.exists()
    experiment.evaluate(copy)
    assert directory.symmetry.read_bytes() == (finished / "symmetry.json").read_bytes()
    assert directory.agents.exists()


def test_metrics_files_agree(finished):
    rows = read_metrics(finished / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    with open(finished / "metrics.csv", newline="") as file:
        table = list(csv.DictReader(file))
    columns = run_columns(config().learner, config().draw_game())
    assert tuple(table[0]) == tuple(rows[0]) == columns
    for row, cells in zip(rows, table, strict=True):
        for column, value in row.items():
            if value is None:
                assert cells[column] == ""
            elif not isinstance(value, str):
                assert float(cells[column]) == value
    evaluated = [row["epoch"] for row in rows if row["exploitability_max_lower"] is not None]
    assert evaluated == [3, 6]


def test_saved_policies_are_the_learners(finished):
    result = experiment.resume(finished)
    game = config().draw_game()
    saved = TabularPolicy.load(finished / "policy.npz")
    assert saved.probs.shape == (12, 3, 2, 2)  # a mixed model: a table for every agent
    assert list(result.policies) == ["last", "average"]  # the practical preset's
    np.testing.assert_array_equal(saved.probs, result.policies["average"].probs)
    saved.check_fits(game)


def test_evaluation_round_trips(finished):
    directory = RunDirectory.open(finished)
    evaluation = Evaluation.load(directory)
    assert list(evaluation.policies) == ["last", "average", "uniform"]
    for policy in evaluation.policies.values():
        gains = policy.exploitability
        assert gains.maximum.lower <= gains.maximum.upper
        assert gains.lower.shape == gains.upper.shape == (12,)
        assert policy.mean_return.lower <= policy.mean_return.upper
        assert policy.flow.shape == (3, 2, 2)
        np.testing.assert_allclose(policy.flow.sum((1, 2)), 1.0, atol=1e-6)
    again = Evaluation.load(directory)
    assert again.summary() == evaluation.summary()
    for name, policy in evaluation.policies.items():
        alone = Exploitability.load(finished / f"certificate-{name}.json")
        np.testing.assert_array_equal(alone.upper, policy.exploitability.upper)


def test_evaluate_again_gives_the_same_numbers_and_fresh_draws_others(copy):
    before = Evaluation.load(RunDirectory.open(copy))
    maximum = before.policies["last"].exploitability.maximum
    again = experiment.evaluate(copy)
    fresh = experiment.evaluate(copy, seed=7, confidence=0.9)
    assert again.policies["last"].exploitability.maximum == maximum
    assert fresh.policies["last"].exploitability.maximum != maximum
    stored = Evaluation.load(RunDirectory.open(copy))
    assert stored.policies["last"].exploitability.confidence == stored.confidence == 0.9


def test_evaluate_refuses_a_policy_for_another_game(copy):
    probs = np.full((3, 2, 2), 0.5, np.float32)
    TabularPolicy.symmetric(probs, num_agents=99).save(copy / "policy.npz")
    with pytest.raises(ValueError, match=r"policy.npz is a policy for another game.*N=12.*N=99"):
        experiment.evaluate(copy)


def test_population_shares_by_hand():
    states = np.array([[[0, 1], [1, 1]]])
    actions = np.array([[[1, 0], [0, 1]]])
    shares = population_shares(states, actions, num_states=2, num_actions=2)
    np.testing.assert_allclose(shares, [[[0, 0.5], [0.5, 0]], [[0, 0], [0.5, 0.5]]])


@pytest.mark.slow
def test_evaluations_along_the_way_compile_once(tmp_path):
    compiled = []

    def listen(event, *_, **__):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        settings = config(num_epochs=2, evaluate_every=1, groups="independent")
        experiment.run(settings, tmp_path / "first")
        assert compiled
        compiled.clear()
        settings = dataclasses.replace(settings.with_num_epochs(7), seed=3)
        experiment.run(settings, tmp_path / "second")
        assert compiled == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


# --- resuming


def test_bad_settings_leave_no_directory(tmp_path):
    bad = RunConfig.create("sis", game_parameters={"num_agents": 1})
    with pytest.raises(ValueError, match="num_agents"):
        experiment.run(bad, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_out_must_be_new_or_empty(finished, tmp_path):
    with pytest.raises(ValueError, match="out must be a new or empty directory"):
        experiment.run(config(), finished)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert RunDirectory.create(empty, "{}").config.read_text() == "{}"
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]


def test_out_may_be_a_link_to_an_empty_or_a_new_directory(tmp_path):
    (tmp_path / "empty").mkdir()
    for target in ("empty", "new/folder"):
        link = tmp_path / "link"
        link.symlink_to(tmp_path / target)
        assert RunDirectory.create(link, "{}").config.read_text() == "{}"
        assert link.is_symlink()
        assert (tmp_path / target / "config.json").is_file()
        with pytest.raises(ValueError, match="out must be a new or empty directory"):
            RunDirectory.create(link, "{}")
        link.unlink()
    link.symlink_to(link)
    with pytest.raises(ValueError, match="out must be a new or empty directory"):
        RunDirectory.create(link, "{}")
    assert {entry.name for entry in tmp_path.iterdir()} == {"empty", "new", "link"}


def test_out_may_be_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_atomically(Path("config.json"), b"left by a kill")
    Path("config.json").rename(".config.json.partial")
    assert RunDirectory.create(".", "{}").config.read_text() == "{}"
    assert (tmp_path / "config.json").is_file()


def test_a_new_directory_has_the_permissions_that_the_user_wants(tmp_path):
    previous = os.umask(0o077)
    try:
        RunDirectory.create(tmp_path / "run", "{}")
    finally:
        os.umask(previous)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_out_may_have_the_longest_name(tmp_path):
    assert RunDirectory.create(tmp_path / ("x" * 255), "{}").config.is_file()


def test_resume_without_checkpoint_starts_over(finished, copy):
    unfinish(copy)
    shutil.rmtree(copy / "checkpoints")
    result = experiment.resume(copy)
    assert result.resumed_from == 0
    assert same_policies(copy, finished)


@pytest.mark.slow
def test_resume_cuts_metrics_back_and_survives_a_cut_line(finished, copy):
    unfinish(copy)
    shutil.rmtree(copy / "checkpoints" / "6")
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[:5]) + lines[5][:17])
    table = (copy / "metrics.csv").read_text()
    (copy / "metrics.csv").write_text(table[:-9])
    seen = []
    result = experiment.resume(copy, observer=Observer(on_epoch=lambda r: seen.append(r["epoch"])))
    assert result.resumed_from == 4
    assert seen == [5, 6]
    assert [row["epoch"] for row in read_metrics(copy / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert len((copy / "metrics.csv").read_text().splitlines()) == 7
    assert same_policies(copy, finished)


def test_resume_of_a_finished_run_changes_nothing(copy):
    before = {entry: entry.stat().st_mtime_ns for entry in copy.rglob("*")}
    result = experiment.resume(copy)
    assert result.resumed_from == 6
    assert {entry: entry.stat().st_mtime_ns for entry in copy.rglob("*")} == before


@pytest.mark.slow
def test_more_epochs_continue_to_the_same_policies(copy, tmp_path):
    experiment.run(config(num_epochs=8), tmp_path / "long")
    result = experiment.resume(copy, num_epochs=8)
    assert result.resumed_from == 6
    assert result.evaluation.epoch == 8
    assert experiment.load_config(RunDirectory.open(copy)).num_epochs == 8
    assert same_policies(copy, tmp_path / "long")


def test_fewer_epochs_are_refused(copy):
    with pytest.raises(ValueError, match="num_epochs can only grow"):
        experiment.resume(copy, num_epochs=5)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_damaged_checkpoint_falls_back_with_one_warning(finished, copy, damage):
    unfinish(copy)
    files = [f for f in (copy / "checkpoints" / "6").rglob("*") if f.is_file()]
    damage(max(files, key=lambda file: file.stat().st_size))
    warnings = []
    result = experiment.resume(copy, observer=Observer(on_warning=warnings.append))
    assert len(warnings) == 1
    assert "6 is damaged" in warnings[0]
    assert "continuing from epoch 4" in warnings[0]
    assert result.resumed_from == 4
    assert same_policies(copy, finished)
    assert checkpoint.epochs(copy / "checkpoints") == (2, 4, 6)


def test_every_file_of_a_checkpoint_is_guarded(tmp_path):
    state = {"probs": jnp.arange(4000.0), "epoch": jnp.int32(1)}
    checkpoint.save(tmp_path, 1, state)
    for file in sorted(f for f in (tmp_path / "1").rglob("*") if f.is_file() and f.stat().st_size):
        content = file.read_bytes()
        flip(file)
        with pytest.raises(CheckpointError, match=r"checkpoint .*1 is"):
            checkpoint.restore(tmp_path, 1, state)
        file.write_bytes(content)
    restored = checkpoint.restore(tmp_path, 1, state)
    np.testing.assert_array_equal(restored["probs"], state["probs"])


def test_no_sound_checkpoint_is_an_error(copy):
    unfinish(copy)
    for epoch in (2, 4, 6):
        (copy / "checkpoints" / str(epoch) / "manifest.ocdbt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint can be restored"):
        experiment.resume(copy)
    assert checkpoint.epochs(copy / "checkpoints") == (2, 4, 6)


@pytest.mark.parametrize("name", ["[x]", "a\\b", "gs:", "a b#%zz?*", "ü\n"])
def test_a_run_may_have_any_name(tmp_path, name):
    # Orbax takes some of these for patterns: it left all arrays out, and said nothing.
    directory = tmp_path / name
    directory.mkdir()
    state = {"probs": jnp.arange(4.0)}
    checkpoint.save(directory, 1, state)
    np.testing.assert_array_equal(checkpoint.restore(directory, 1, state)["probs"], state["probs"])
    assert [entry.name for entry in directory.iterdir()] == ["1"]


def test_what_is_no_checkpoint_is_left_alone(copy):
    # "²".isdigit() is true and int("²") is not a number; int("٣") is 3, and no folder is called 3.
    unfinish(copy)
    checkpoints = copy / "checkpoints"
    for name in ("²", "٣", "007", "6.damaged", "-8", "notes"):
        (checkpoints / name).mkdir()
    (checkpoints / "8").write_text("a file")
    assert checkpoint.epochs(checkpoints) == (2, 4, 6)
    result = experiment.resume(copy, num_epochs=10, observer=Observer(on_warning=pytest.fail))
    assert result.resumed_from == 6
    assert checkpoint.epochs(checkpoints) == (6, 8, 10)
    assert (checkpoints / "²").exists()


def test_a_checkpoint_replaces_a_file_or_a_link_of_its_name(tmp_path):
    directory, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    for path in (directory, elsewhere):
        path.mkdir()
    (directory / "1").symlink_to(elsewhere)
    (directory / "2").write_text("a file")
    (directory / ".partial-3").write_text("a file")
    state = {"probs": jnp.arange(3.0)}
    for epoch in (1, 2, 3):
        checkpoint.save(directory, epoch, state, keep=2)
    assert {entry.name for entry in directory.iterdir()} == {"2", "3"}
    assert elsewhere.is_dir()


def test_checkpoint_of_other_shapes_is_an_error(tmp_path):
    checkpoint.save(tmp_path, 3, {"probs": jnp.ones((2, 3))})
    with pytest.raises(CheckpointError, match="does not fit this run"):
        checkpoint.restore(tmp_path, 3, {"probs": jnp.ones((2, 4))})


def test_a_run_in_use_is_refused(copy):
    with (
        RunDirectory.open(copy).locked(),
        pytest.raises(ValueError, match="in use by another process"),
    ):
        experiment.resume(copy)


def test_interrupt_saves_a_checkpoint(finished, tmp_path):
    def stop(row):
        if row["epoch"] == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="3 epochs are saved"):
        experiment.run(config(), tmp_path / "run", Observer(on_epoch=stop))
    assert checkpoint.epochs(tmp_path / "run" / "checkpoints") == (2, 3)
    assert experiment.resume(tmp_path / "run").resumed_from == 3
    assert same_policies(tmp_path / "run", finished)


def test_an_interrupt_that_python_drops_stops_the_run(finished, tmp_path):
    # JAX runs a callback with every garbage collection; an exception there is printed, no more.

    def press(phase, info):
        gc.callbacks.remove(press)
        signal.raise_signal(signal.SIGINT)

    def collect(row):
        if row["epoch"] == 2:
            gc.callbacks.append(press)
            gc.collect()

    with pytest.raises(Interrupted, match="3 epochs are saved"):
        experiment.run(config(evaluate_every=0), tmp_path / "run", Observer(on_epoch=collect))
    experiment.resume(tmp_path / "run")
    assert same_policies(tmp_path / "run", finished)


def test_an_interrupt_that_python_drops_while_a_policy_is_evaluated(copy):
    unfinish(copy)
    stages = []

    def press(phase, info):
        gc.callbacks.remove(press)
        signal.raise_signal(signal.SIGINT)

    def collect(words):
        stages.append(words)
        gc.callbacks.append(press)
        gc.collect()

    with pytest.raises(Interrupted, match="6 epochs are saved"):
        experiment.resume(copy, observer=Observer(on_stage=collect))
    assert len(stages) == 1


def test_an_interrupt_that_comes_out_as_another_error_stops_the_run(tmp_path, monkeypatch):
    step = PolicyMirrorDescent.step

    def broken(self, game, state):
        if state.epoch == 2:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt as error:
                raise RuntimeError("INTERNAL: CpuCallback error") from error
        return step(self, game, state)

    monkeypatch.setattr(PolicyMirrorDescent, "step", broken)
    with pytest.raises(Interrupted, match="2 epochs are saved"):
        experiment.run(config(), tmp_path / "run")


def test_an_interrupt_before_the_first_epoch_counts_what_is_saved(copy, monkeypatch):
    unfinish(copy)

    def press(*_):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(checkpoint, "restore", press)
    shutil.rmtree(copy / "checkpoints" / "6")
    with pytest.raises(Interrupted, match="4 epochs are saved"):
        experiment.resume(copy)


# --- a full disk


def test_full_disk_keeps_what_was_saved(finished, tmp_path, monkeypatch):
    out = tmp_path / "run"
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(metrics_log.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        experiment.run(config(), out)
    monkeypatch.undo()
    sound = checkpoint.epochs(out / "checkpoints")
    assert sound
    experiment.resume(out, observer=Observer(on_warning=pytest.fail))
    assert same_policies(out, finished)


def test_full_disk_inside_the_checkpoint_writer(tmp_path):
    state = {"probs": jnp.asarray(np.random.default_rng(0).random(4000, np.float32))}
    checkpoint.save(tmp_path, 1, state)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(tmp_path, 2, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]
    checkpoint.restore(tmp_path, 1, state)


def test_failed_write_keeps_the_old_file(tmp_path):
    file = tmp_path / "config.json"
    write_atomically(file, b"old")

    def fail(handle):
        handle.write(b"ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, fail)
    assert file.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.json"]


def test_numbers_that_are_not_finite_become_empty(tmp_path):
    directory = RunDirectory(tmp_path)
    with MetricsLog(directory, ("epoch", "x"), ()) as log:
        log.append({"epoch": 1, "x": float("nan")})
    assert read_metrics(directory.metrics_jsonl) == ({"epoch": 1, "x": None},)
    assert directory.metrics_csv.read_text() == "epoch,x\n1,\n"


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        "9" * 5000,
        "[1]",
        '{"epoch": true}',
        '{"epoch": 2.0}',
        '{"epoch": 2, "x": []}',
    ],
)
def test_a_line_that_is_no_row_ends_the_metrics(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"epoch": 1, "x": null}\n' + line + '\n{"epoch": 3, "x": 1}\n')
    assert read_metrics(file) == ({"epoch": 1, "x": None},)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "{", ""])
def test_a_damaged_json_file_is_named(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x.json is damaged"):
        read_json(tmp_path / "x.json")


# --- real kills

KILLED_RUN = textwrap.dedent(
    """
    import os, signal, sys
    from crowdnash.runs import experiment
    from crowdnash.runs import metrics_log
    from crowdnash.runs.config import RunConfig

    moment, nth, out, config = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    counts = {}
    def count(event):
        counts[event] = counts.get(event, 0) + 1
        return event == moment and counts[event] == nth

    replace, write_line = os.replace, metrics_log.MetricsLog.append
    def killing_replace(source, target, **options):
        # Before the rename the new file is whole but hidden; cut it too.
        if count("replace " + os.path.basename(target)):
            with open(source, "r+b") as file:
                file.truncate(os.path.getsize(source) // 2)
            die()
        replace(source, target, **options)

    def killing_append(self, row):
        if count("metrics"):
            line = self._json_line(row)
            self._jsonl.write(line[: len(line) // 2]); self._jsonl.flush()
            die()
        write_line(self, row)
        if count("epoch"):
            die()

    os.replace = killing_replace
    metrics_log.os.replace = killing_replace
    metrics_log.MetricsLog.append = killing_append

    import crowdnash.runs.checkpoint as checkpoint
    prune = checkpoint.sync_directory
    def killing_sync(path):
        prune(path)
        if path.name == "checkpoints" and count("checkpoint"):
            die()
    checkpoint.sync_directory = killing_sync

    if os.path.exists(os.path.join(out, "config.json")):
        experiment.resume(out)
    else:
        experiment.run(RunConfig.from_json(config), out)
    """
)


def start(out: Path, cache: Path, moment: str, nth: int, settings: RunConfig) -> subprocess.Popen:
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN, moment, str(nth), str(out), settings.to_json()],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def run_to_death(out: Path, cache: Path, moment: str, nth: int, settings: RunConfig) -> None:
    process = start(out, cache, moment, nth, settings)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors.decode()[-2000:]


@pytest.mark.slow
def test_killed_in_a_metrics_line_then_in_a_checkpoint(finished, tmp_path):
    out, cache = tmp_path / "run", tmp_path / "cache"
    # Without certificates on the way the killed processes compile less; the policies are the same.
    quick = config(evaluate_every=0)
    run_to_death(out, cache, "metrics", 4, quick)
    assert checkpoint.epochs(out / "checkpoints") == (2,)
    run_to_death(out, cache, "replace crowdnash.json", 1, quick)
    assert checkpoint.epochs(out / "checkpoints") == (2,)
    assert (out / "checkpoints" / ".partial-4").exists()
    experiment.resume(out, observer=Observer(on_warning=pytest.fail))
    assert same_policies(out, finished)
    assert [row["epoch"] for row in read_metrics(out / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert not [entry for entry in out.rglob("*partial*") if entry.is_dir()]


@pytest.mark.slow
def test_killed_again_and_again(finished, tmp_path):
    out, cache = tmp_path / "run", tmp_path / "cache"
    run_to_death(out, cache, "replace config.json", 1, config())
    assert not out.exists()
    for moment, nth in (
        ("replace metrics.csv", 1),
        ("epoch", 1),
        ("replace crowdnash.json", 1),
        ("checkpoint", 1),
        ("metrics", 2),
        ("replace crowdnash.json", 1),
        ("epoch", 4),
        ("replace last_policy.npz", 1),
        ("replace certificate-last.json", 1),
        ("replace evaluation.npz", 1),
        ("replace evaluation.json", 1),
    ):
        run_to_death(out, cache, moment, nth, config())
        assert experiment.load_config(RunDirectory.open(out)) == config()
    experiment.resume(out, observer=Observer(on_warning=pytest.fail))
    assert same_policies(out, finished)


@pytest.mark.slow
def test_killed_from_outside_at_any_time(tmp_path):
    long = config(num_epochs=400, checkpoint_every=3, evaluate_every=0)
    experiment.run(long, tmp_path / "whole")
    out, cache = tmp_path / "run", tmp_path / "cache"
    RunDirectory.create(out, long.to_json())
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = start(out, cache, "never", 0, long)
        metrics = out / "metrics.jsonl"
        size = metrics.stat().st_size if metrics.exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if metrics.exists() and metrics.stat().st_size > size + 2000:
                break
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.3)))
        process.kill()
        process.communicate()
    experiment.resume(out, observer=Observer(on_warning=pytest.fail))
    assert same_policies(out, tmp_path / "whole")


def test_a_run_ends_when_its_target_is_reached(tmp_path):
    settings = {"num_epochs": 9, "evaluate_every": 3}
    easy = config(target=50.0, **settings)  # no agent can gain so much in three steps
    result = experiment.run(easy, tmp_path / "easy")
    assert result.config.num_epochs == 3
    rows = read_metrics(result.directory.metrics_jsonl)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    again = experiment.resume(tmp_path / "easy")
    assert again.resumed_from == 3
    plain = experiment.run(config(num_epochs=3, evaluate_every=3), tmp_path / "plain")
    np.testing.assert_array_equal(result.policy.probs, plain.policy.probs)
    # More epochs are not wanted where the target is reached already.
    assert experiment.resume(tmp_path / "easy", num_epochs=9).config.num_epochs == 3
    hard = config(target=1e-9, **settings)
    with pytest.warns(RuntimeWarning, match="target 1e-09 was not reached in 9 epochs"):
        assert experiment.run(hard, tmp_path / "hard").config.num_epochs == 9
