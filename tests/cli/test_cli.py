"""The command line: what it accepts, what it prints, how it fails."""

import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from crowdnash import GameError, PolicyMirrorDescent, TabularPolicy, cli
from crowdnash.cli import theory
from crowdnash.cli.display import RunDisplay, in_si
from crowdnash.cli.flags import parse_solve
from crowdnash.cli.game_flags import parameter_help
from crowdnash.runs import checkpoint, experiment
from crowdnash.runs.config import RunConfig
from crowdnash.runs.metrics_log import MetricsLog

DOCUMENTED = (
    "sis --num-agents 1000 --horizon 20 --heterogeneity 0.1 --groups symmetric --num-epochs 300 "
    "--td-epochs 100 --temperature 0.01 --seed 0 --out runs/sis"
)
TINY = (
    "sis --num-agents 12 --horizon 3 --num-epochs 4 --td-epochs 5 --evaluate-every 2 "
    "--num-evaluation-trajectories 8 --own-influence-agents 0 --checkpoint-every 2 --no-report"
)


def no_stored_run(path: Path) -> RunConfig:
    raise AssertionError(f"{path} must not be read")


def parse(text: str) -> RunConfig:
    return parse_solve(text.split(), no_stored_run).config


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    assert cli.main(["solve", *TINY.split(), "--out", str(out)]) == 0
    return out


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def fails(capsys, *arguments: object) -> str:
    """Run the command, which must fail with code 2 and one short line; return the line."""
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("crowdnash: error: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize("arguments", [[], ["--num-epochs", "3"]])
def test_solve_without_a_game(capsys, arguments):
    assert "game must come first: one of beach-bar, " in fails(capsys, "solve", *arguments)


# --- parsing


def test_documented_command_parses():
    request = parse_solve(DOCUMENTED.split(), no_stored_run)
    config = request.config
    assert request.out == Path("runs/sis")
    assert config.game == "sis"
    assert config.game_parameters["num_agents"] == 1000
    assert config.game_parameters["horizon"] == 20
    assert config.game_parameters["heterogeneity"] == 0.1
    learner = PolicyMirrorDescent.practical(
        groups="symmetric", num_epochs=300, td_epochs=100, temperature=0.01
    )
    assert config.learner == learner
    assert config.seed == 0


@pytest.mark.parametrize(
    ("text", "groups"),
    [("symmetric", "symmetric"), ("independent", "independent"), ("16", 16)],
)
def test_groups(text, groups):
    assert parse(f"sis --groups {text}").learner.groups == groups


def test_flags_before_the_game_and_an_alias():
    assert parse("--num-epochs 7 sis").num_epochs == 7
    assert parse("rps --payoffs cited").game_parameters["payoffs"] == "cited"


def test_heterogeneity_by_name():
    config = parse("sis --heterogeneity susceptibility=0.05,isolation-aversion=0.1")
    assert config.game_parameters["heterogeneity"] == {
        "susceptibility": 0.05,
        "isolation_aversion": 0.1,
    }


def test_preset_gives_defaults_that_flags_override():
    theorem = parse("sis --preset theorem").learner
    assert (theorem.step_size, theorem.mixing) == ("theorem", True)
    mixed = parse("sis --preset theorem --step-size 0.25 --no-mixing").learner
    assert (mixed.step_size, mixed.mixing) == (0.25, False)
    assert parse("sis --step-size theorem --mixing").learner.step_size == "theorem"


def test_every_setting_has_a_flag():
    text = (
        "sis --td-step-size visits --evaluate-every 0 --confidence 0.9 --iterate average "
        "--checkpoint-every 5 --checkpoint-seconds 0 --own-influence-agents 2"
    )
    config = parse(text)
    learner, evaluation, checkpoints = config.learner, config.evaluation, config.checkpoints
    assert (learner.td_step_size, learner.iterate) == ("visits", "average")
    assert (evaluation.confidence, evaluation.evaluate_every) == (0.9, 0)
    assert evaluation.own_influence_agents == 2
    assert (checkpoints.checkpoint_every, checkpoints.checkpoint_seconds) == (5, 0.0)


def test_help_texts_come_from_docstrings():
    found = parameter_help(
        "Draw.\n\nArgs:\n    key: decides.\n    size: how\n        large.\n\n- `rate`: speed."
    )
    assert found == {"key": "decides", "size": "how large", "rate": "speed"}


def test_solve_help_names_the_games_own_parameters(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["solve", "sis", "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--susceptibility" in text
    assert "--num-epochs" in text
    assert "centre of the cost of one step of distance" in text


# --- what is shown


def test_help_version_and_games(capsys):
    assert cli.main(["--help"]) == 0
    assert "crowdnash COMMAND" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("crowdnash ")
    assert cli.main(["games"]) == 0
    assert "rock-paper-scissors" in capsys.readouterr().out
    assert cli.main(["games", "--json"]) == 0
    games = json.loads(capsys.readouterr().out)
    sis = next(game for game in games if game["name"] == "sis")
    assert sis["parameters"]["num_agents"] == 1000


def test_solve_prints_the_table_and_sparse_progress(tmp_path, capsys):
    assert cli.main(["solve", *TINY.split(), "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr()
    for title in ("last iterate", "average policy", "uniform policy", "exploitability"):
        assert title in printed.out
    assert "epoch 4/4" in printed.err
    assert "agent-steps/s" in printed.err
    assert "\x1b" not in printed.err


def test_progress_bar_on_a_terminal():
    console = Console(force_terminal=True, width=160, record=True, file=io.StringIO())
    with RunDisplay(console, 4) as display:
        display.observer.on_start(0)
        for epoch in (1, 2, 3):
            display.observer.on_epoch(
                {
                    "epoch": epoch,
                    "mean_return": -8.0,
                    "agent_steps": 1_000_000,
                    "seconds": 0.5,
                    "exploitability_max_lower": 1.25,
                    "exploitability_max_upper": 1.5,
                }
            )
        display.observer.on_warning("checkpoint [6] is damaged")
    text = console.export_text()
    assert "3/4" in text
    assert "2 M agent-steps/s" in text
    assert "exploitability ≤ 1.500" in text
    assert "checkpoint [6] is damaged" in text


@pytest.mark.parametrize(
    ("number", "text"), [(950.0, "950"), (1.5e3, "1.5 k"), (2e8, "200 M"), (3e9, "3 G")]
)
def test_in_si(number, text):
    assert in_si(number) == text


def test_evaluate_as_json(copy, capsys):
    arguments = ["evaluate", str(copy), "--json", "--num-evaluation-trajectories", "4"]
    assert cli.main([*arguments, "--confidence", "0.9"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["num_trajectories"] == 4
    assert numbers["policies"]["last"]["exploitability"]["confidence"] == 0.9
    stored = json.loads((copy / "evaluation.json").read_text())
    returns = [n["policies"]["average"]["mean_return"] for n in (numbers, stored)]
    assert returns[0] == returns[1]


def test_verify_a_run(copy, capsys):
    """Game and policy are those of the run; a policy of another run is refused."""
    for name in ("last", "average", "uniform"):
        assert cli.main(["verify", str(copy / f"certificate-{name}.json")]) == 0
        assert "verified" in capsys.readouterr().out
    shutil.copy(copy / "policy.npz", copy / "last_policy.npz")
    assert cli.main(["verify", str(copy / "certificate-last.json")]) == 1
    assert "does not hold: the policy is another" in capsys.readouterr().out


# --- resuming


def test_resume_of_a_finished_run(finished, capsys):
    assert cli.main(["solve", "sis", "--resume", str(finished)]) == 0
    assert "already finished" in capsys.readouterr().out


def test_resume_takes_the_stored_settings(finished):
    request = parse_solve(
        ["--resume", str(finished), "--num-epochs", "9"],
        lambda path: experiment.load_config(experiment.RunDirectory.open(path)),
    )
    assert request.config.num_epochs == 9
    assert request.config.game_parameters["num_agents"] == 12


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("sis --num-agents 13", "--num-agents 13 contradicts .*run, which has 12"),
        ("sis --temperature 0.5", "--temperature 0.5 contradicts .*run, which has 0.01"),
        ("sis --num-epochs 3", "--num-epochs 3 contradicts .*which has 4; it can only grow"),
        ("--preset theorem", "--preset theorem contradicts .*which has td_epochs 5"),
        ("--heterogeneity recovery=0.2", "--heterogeneity recovery=0.2 contradicts .*has 0.1"),
        ("rps", "the game rock-paper-scissors contradicts .*which is of sis"),
        ("sis --out elsewhere", "--out elsewhere contradicts --resume"),
    ],
)
def test_a_flag_that_differs_is_refused(finished, flags, message, capsys):
    line = fails(capsys, "solve", *flags.split(), "--resume", finished)
    assert re.search(message, line)


@pytest.mark.slow
def test_more_epochs_are_run(copy, capsys):
    arguments = ["solve", *TINY.split(), "--resume", str(copy), "--num-epochs", "5"]
    assert cli.main(arguments) == 0
    assert "after 5 epochs" in capsys.readouterr().out
    assert checkpoint.epochs(copy / "checkpoints")[-1] == 5


# --- errors


def test_user_errors_are_one_line(finished, copy, tmp_path, capsys):
    assert "no command 'solv'; did you mean solve?" in fails(capsys, "solv")
    assert "rock-paper-scissors, route-choice, sis" in fails(
        capsys, "solve", "chess", "--out", tmp_path / "x"
    )
    assert str(finished) in fails(capsys, "solve", *TINY.split(), "--out", finished)
    for command in (["evaluate"], ["report"], ["solve", "sis", "--resume"]):
        assert "not a run directory" in fails(capsys, *command, tmp_path)
        assert "no such run" in fails(capsys, *command, tmp_path / "nowhere")
    assert "num_agents" in fails(capsys, "solve", "sis", "--num-agents", 1, "--out", tmp_path / "x")
    assert "horizon" in fails(capsys, "solve", "sis", "--horizon", 0, "--out", tmp_path / "x")
    assert "groups" in fails(
        capsys, "solve", "sis", "--num-agents", 5, "--groups", 6, "--out", tmp_path / "x"
    )
    assert "step_size" in fails(
        capsys, "solve", "sis", "--temperature", 4, "--step-size", 1, "--out", tmp_path / "x"
    )
    assert not (tmp_path / "x").exists()
    TabularPolicy.symmetric(np.full((3, 2, 2), 0.5), num_agents=9).save(copy / "policy.npz")
    assert "for another game" in fails(capsys, "evaluate", copy)
    assert "for another game" in fails(capsys, "report", copy)
    (copy / "policy.npz").write_bytes((finished / "policy.npz").read_bytes()[:200])
    assert "policy.npz" in fails(capsys, "evaluate", copy)
    (copy / "config.json").write_text("{")
    assert "config.json is damaged" in fails(capsys, "evaluate", copy)


def test_no_command_shows_the_usage(capsys):
    assert cli.main([]) == 2
    assert "usage:" in capsys.readouterr().err


def test_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x")

    monkeypatch.setattr(checkpoint, "save", full)
    assert cli.main(["solve", *TINY.split(), "--out", str(tmp_path / "run")]) == 2
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line == "crowdnash: error: runs/x: No space left on device"


def test_runtime_errors_of_the_library_are_one_line(capsys, monkeypatch, tmp_path):
    def broken(*_, **__):
        return eqx.error_if(jnp.zeros(()), jnp.asarray(True), "agent 3 went astray")

    monkeypatch.setattr(experiment, "run", broken)
    line = fails(capsys, "solve", *TINY.split(), "--out", tmp_path / "run")
    assert "agent 3 went astray" in line


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes."),
            "not enough memory: Out of memory allocating 12 bytes; fewer agents",
        ),
        (
            jax.errors.JaxRuntimeError("INTERNAL: \nfrom a trace"),
            "perhaps for want of memory",
        ),
        (MemoryError("Unable to allocate 7 TiB"), "not enough memory: Unable to allocate 7 TiB"),
    ],
)
def test_what_does_not_fit_the_memory_is_one_plain_line(
    capsys, monkeypatch, tmp_path, error, message
):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(experiment, "run", broken)
    assert message in fails(capsys, "solve", *TINY.split(), "--out", tmp_path / "run")


def test_a_game_larger_than_the_memory_is_one_line(capsys, tmp_path):
    line = fails(
        capsys, "solve", "sis", "--num-agents", "10000000000000", "--out", tmp_path / "run"
    )
    assert "need 200000000000000 bytes" in line
    assert not (tmp_path / "run").exists()


def test_bugs_keep_their_traceback(monkeypatch, tmp_path):
    def broken(*_, **__):
        raise TypeError("a bug")

    monkeypatch.setattr(experiment, "run", broken)
    with pytest.raises(TypeError, match="a bug"):
        cli.main(["solve", *TINY.split(), "--out", str(tmp_path / "run")])


def test_errors_of_other_libraries_keep_their_traceback(monkeypatch, tmp_path):
    def broken(*_, **__):
        return np.zeros(3) + np.zeros(4)

    # The frame is one of crowdnash's own, but its code raises nothing.
    broken.__code__ = broken.__code__.replace(co_filename=experiment.__file__)
    monkeypatch.setattr(experiment, "run", broken)
    with pytest.raises(ValueError, match="broadcast"):
        cli.main(["solve", *TINY.split(), "--out", str(tmp_path / "run")])


def test_an_error_in_theorem_1_is_not_taken_for_a_game_without_a_bound(monkeypatch, capsys):
    def broken(*_, **__):
        raise GameError("agent 1 contributes NaN")

    broken.__code__ = broken.__code__.replace(co_filename=theory.__file__)
    monkeypatch.setattr(theory, "symmetry", lambda *_, **__: None)
    monkeypatch.setattr(theory, "bound_exists", lambda *_: True)
    monkeypatch.setattr(theory, "nash_bound", broken)
    line = fails(capsys, "symmetry", "sis", "--num-agents", 3, "--horizon", 2)
    assert "agent 1 contributes NaN" in line


def test_interrupt_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    append, out = MetricsLog.append, tmp_path / "run"

    def interrupting(self, row):
        append(self, row)
        if row["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(MetricsLog, "append", interrupting)
    assert cli.main(["solve", *TINY.split(), "--out", str(out)]) == 130
    message = capsys.readouterr().err
    assert "3 epochs are saved" in message
    assert f"crowdnash solve --resume {out}" in message
    assert checkpoint.epochs(out / "checkpoints") == (2, 3)


def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "crowdnash", "evaluate", "/nowhere"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == "crowdnash: error: /nowhere: no such run directory\n"
