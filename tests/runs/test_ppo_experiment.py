"""Runs with neural policies, through the library and the command line."""

import json
import shutil
from typing import Any

import jax
import numpy as np
import pytest

from crowdnash import PPO, NeuralPolicy, cli, games
from crowdnash.runs import checkpoint, experiment
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.episode import Episode
from crowdnash.runs.epochs import run_columns
from crowdnash.runs.evaluation import Evaluation
from crowdnash.runs.game_record import GameRecord
from crowdnash.runs.metrics_log import read_metrics
from small_games import DriftSimulator

GAME = {"num_agents": 20, "horizon": 6}
SMALL = {"num_epochs": 3, "hidden_sizes": (16, 16), "num_evaluation_trajectories": 2}
FLAGS = [
    "--num-agents",
    "20",
    "--horizon",
    "6",
    "--num-epochs",
    "3",
    "--hidden-sizes",
    "16",
    "16",
    "--num-evaluation-trajectories",
    "2",
]


def config(**changes) -> RunConfig:
    return RunConfig.create("taxi", learner="ppo", game_parameters=GAME, **(SMALL | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "taxi"
    return experiment.run(config(annealing_epochs=6), out)


def weights(policy: NeuralPolicy) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(policy.actor)]


def fails(capsys, *arguments) -> str:
    capsys.readouterr()
    assert cli.main([str(word) for word in arguments]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


def test_a_run_saves_what_it_found(finished):
    directory = finished.directory
    rows = read_metrics(directory.metrics_jsonl)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(0 <= row["zone_1_share"] <= 1 for row in rows)
    assert rows[0]["learning_rate"] == pytest.approx(2.5e-4)
    assert rows[2]["learning_rate"] == pytest.approx(2.5e-4 * (1 - 2 / 6))
    game = finished.config.draw_game()
    loaded = NeuralPolicy.load(directory.policy, game, identity="none")
    for mine, saved in zip(weights(finished.policy), weights(loaded), strict=True):
        np.testing.assert_array_equal(mine, saved)
    again = Evaluation.load(directory)
    assert again.summary() == finished.evaluation.summary()
    low, high = again.policies["last"].mean_return
    assert low <= high
    episode = Episode.load(directory)
    assert episode.snapshots["position"].shape == (6, 20)
    shares = episode.statistics["zone_1_share"] + episode.statistics["zone_2_share"]
    start = (episode.snapshots["position"] == 18).mean(1)
    np.testing.assert_allclose(shares + start, 1, rtol=1e-6)


def test_resuming_is_exact_and_may_carry_on(finished, tmp_path):
    whole = experiment.run(config(num_epochs=5, annealing_epochs=6), tmp_path / "whole")
    copy = shutil.copytree(finished.directory.path, tmp_path / "copy")
    longer = experiment.resume(copy, num_epochs=5)
    assert longer.resumed_from == 3
    for a, b in zip(weights(whole.policy), weights(longer.policy), strict=True):
        np.testing.assert_array_equal(a, b)
    figures = ("mean_return", "entropy", "zone_1_share")
    columns = [
        [[row[name] for name in figures] for row in read_metrics(run.directory.metrics_jsonl)]
        for run in (whole, longer)
    ]
    assert columns[0] == columns[1]
    assert experiment.resume(copy).seconds == 0.0
    with pytest.raises(ValueError, match="annealing_epochs must be at least num_epochs"):
        experiment.resume(copy, num_epochs=7)
    with pytest.raises(ValueError, match="num_epochs can only grow"):
        experiment.resume(copy, num_epochs=4)


def test_checkpoints_keep_empty_arrays_out(tmp_path):
    state = {"a": jax.numpy.arange(3.0), "empty": jax.numpy.zeros((4, 0))}
    checkpoint.save(tmp_path, 1, state)
    restored = checkpoint.restore(tmp_path, 1, jax.tree.map(jax.numpy.zeros_like, state))
    np.testing.assert_array_equal(restored["a"], [0, 1, 2])
    assert restored["empty"].shape == (4, 0)


def test_a_run_keeps_its_agents(finished):
    kept = GameRecord.load(finished.directory, 20).parameters
    game = finished.config.draw_game()
    for column, name in enumerate(("feature[0]", "feature[1]", "feature[2]")):
        np.testing.assert_allclose(kept[name], np.asarray(game.agent_features)[:, column])


@pytest.mark.slow
def test_an_extension_stopped_before_its_evaluation(finished, tmp_path, monkeypatch):
    """The policy is the new one by then, and the old evaluation must not speak for it."""
    copy = shutil.copytree(finished.directory.path, tmp_path / "copy")

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "evaluate_policies", stopped)
        with pytest.raises(KeyboardInterrupt):
            experiment.resume(copy, num_epochs=4)
    assert not (copy / "evaluation.json").exists()
    assert experiment.evaluate(copy).epoch == 4


@pytest.mark.slow
def test_best_responses_are_learned_on_request(finished, tmp_path):
    copy = shutil.copytree(finished.directory.path, tmp_path / "copy")
    # The number of their epochs is a setting of the run; few are enough to see it work.
    text = (copy / "config.json").read_text()
    stored = json.loads(text)
    stored["evaluation"]["best_response_epochs"] = 1
    (copy / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="best_response_agents must be at most N = 20, got 21"):
        experiment.evaluate(copy, best_response_agents=21)
    found = experiment.evaluate(copy, num_trajectories=3, best_response_agents=2)
    below = found.policies["last"].exploitability
    assert found.lower_bound_cost is None
    assert below is not None
    np.testing.assert_array_equal(below.agents, [0, 10])
    assert np.isfinite(below.lower).all()
    assert below.maximum.lower <= below.lower.max()
    assert Evaluation.load(RunDirectory.open(copy)).summary() == found.summary()


@pytest.mark.parametrize("identity", ["one-hot", "group", "parameters"])
def test_configs_round_trip(identity):
    made = config(identity=identity, groups=2 if identity == "group" else None)
    assert RunConfig.from_json(made.to_json()) == made
    assert made.learner.identity == identity


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": "name"}, "identity must be 'none' or 'one-hot'"),
        ({"num_epochs": 0}, "num_epochs must be at least 1"),
        ({"confidence": 1.0}, r"confidence must lie in \(0, 1\)"),
        ({"temperature": 1.0}, "no setting is called 'temperature'"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.slow
def test_command_line_from_solve_to_report(tmp_path, capsys):
    pytest.importorskip("tensorboardX")
    out = tmp_path / "run"
    words = ["solve", "taxi", *FLAGS, "--identity", "number", "--tensorboard", "--out", str(out)]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "mean return of an agent" in shown
    assert "zone 1 share" in shown
    assert list((out / "tensorboard").glob("events.*"))
    page = (out / "report.html").read_text()
    assert "ID-NN" in page
    assert "data:image/gif" in page
    assert page.count("<figure>") == 6
    for name in ("mean_return", "statistics", "zone_occupancy", "fleet", "diagnostics"):
        assert (out / f"{name}.png").stat().st_size > 5000
    assert cli.main(["evaluate", str(out), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["policies"]) == ["last"]
    assert cli.main(["solve", "--resume", str(out)]) == 0
    assert "already finished" in capsys.readouterr().out


@pytest.mark.slow
def test_tabular_games_take_an_identity_too(tmp_path):
    out = tmp_path / "run"
    assert cli.main(["solve", "sis", *FLAGS, "--identity", "none", "--out", str(out)]) == 0
    game = games.SIS.sample(jax.random.key(0), num_agents=20, horizon=6)
    assert NeuralPolicy.load(out / "policy.npz").tabulate().probs.shape == (1, 6, 2, 2)
    NeuralPolicy.load(out / "policy.npz", game)


def test_bad_command_lines_are_one_line(finished, tmp_path, capsys):
    run = finished.directory.path
    out = tmp_path / "new"
    cases = {
        ("symmetry", "taxi"): "only a simulator",
        ("mean-field", "taxi"): "only a simulator",
        ("solve", "--resume", run, "--seed", 5): "--seed 5 contradicts",
        ("solve", "--resume", run, "--identity", "number"): "--identity number contradicts",
        ("solve", "taxi", *FLAGS, "--groups", 4, "--out", out): "identity='none' takes no groups",
        ("solve", "taxi", *FLAGS, "--map-text", "11", "--out", out): "start",
        ("solve", "taxi", *FLAGS, "--learning-rate", 0, "--out", out): "learning_rate must be > 0",
    }
    for words, message in cases.items():
        assert message in fails(capsys, *words)
    assert not out.exists()
    copy = shutil.copytree(run, tmp_path / "copy")
    other = games.SIS.sample(jax.random.key(0), num_agents=20, horizon=6)
    with pytest.raises(ValueError, match="policy must fit the game: the game has name=sis"):
        NeuralPolicy.load(copy / "policy.npz", other)
    (copy / "policy.npz").write_bytes(b"nonsense")
    assert "policy.npz is damaged" in fails(capsys, "evaluate", copy)


class Confusing(DriftSimulator):
    def statistics(self, state):
        return {"entropy": jax.numpy.zeros(())}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": "group"}, "identity='group' needs groups"),
        ({"groups": 3}, "identity='none' takes no groups"),
        ({"best_response_agents": 21}, "best_response_agents must be at most N = 20, got 21"),
    ],
)
def test_settings_that_do_not_suit_the_game_leave_no_directory(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        experiment.run(config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_statistic_called_as_a_metric():
    with pytest.raises(ValueError, match="a statistic must not be called 'entropy'"):
        run_columns(PPO(), Confusing())
