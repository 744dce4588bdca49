"""What is stored is believed only with all that it belongs to: settings, agents, evaluations."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import crowdnash as cn
from crowdnash import cli
from crowdnash.interval import Interval
from crowdnash.runs import experiment
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.evaluation import Evaluation
from crowdnash.runs.seal import finished_epochs

QUICK = {"num_evaluation_trajectories": 4, "own_influence_agents": 0, "evaluate_every": 0}


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("stored") / "tables"
    parameters = {"num_agents": 12, "horizon": 3}
    config = RunConfig.create("sis", game_parameters=parameters, num_epochs=2, td_epochs=3, **QUICK)
    experiment.run(config, out)
    return out


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("stored") / "networks"
    settings = {"num_epochs": 1, "hidden_sizes": (8,), "num_evaluation_trajectories": 2}
    parameters = {"num_agents": 20, "horizon": 6}
    config = RunConfig.create("taxi", learner="ppo", game_parameters=parameters, **settings)
    experiment.run(config, out)
    return out


@pytest.fixture
def copy(tables, tmp_path) -> Path:
    return Path(shutil.copytree(tables, tmp_path / "copy"))


def edit(path: Path, section: str | None, name: str, value) -> None:
    stored = json.loads((path / "config.json").read_text())
    (stored[section] if section else stored)[name] = value
    (path / "config.json").write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        (None, "seed", 5, "config.json was altered: seed is 5, and the run began with 0"),
        (
            "game_parameters",
            "recovery",
            0.4,
            "recovery is 0.4, and the run began with 0.3",
        ),
        ("learner", "temperature", 0.5, "temperature is 0.5, and the run began with 0.01"),
        ("learner", "num_epochs", 1, "num_epochs is 1, and there is a checkpoint of epoch 2"),
    ],
)
def test_edited_settings_are_not_resumed(copy, section, name, value, message):
    edit(copy, section, name, value)
    assert finished_epochs(RunDirectory.open(copy)) is None
    with pytest.raises(ValueError, match=message):
        experiment.resume(copy)
    if name != "num_epochs":
        with pytest.raises(ValueError, match=message):
            experiment.resume(copy, num_epochs=3)


def test_settings_that_decide_nothing_may_be_edited(copy):
    edit(copy, "checkpoints", "checkpoint_every", 7)
    assert experiment.resume(copy).resumed_from == 2


def test_the_state_of_another_game_is_refused():
    one, other = (
        cn.games.SIS.sample(jax.random.key(k), num_agents=6, horizon=2, heterogeneity=0.1)
        for k in range(2)
    )
    key, learner = jax.random.key(0), cn.PolicyMirrorDescent(num_epochs=2, td_epochs=2)
    state = cn.solve(one, learner, key=key).state
    with pytest.raises(ValueError, match="it is of a game with other agents"):
        cn.solve(other, learner, key=key, state=state)
    fewer = cn.PolicyMirrorDescent(num_epochs=1, td_epochs=2)
    with pytest.raises(ValueError, match="num_epochs must be at least the 2 epochs behind state"):
        cn.solve(one, fewer, key=key, state=state)


def test_a_run_of_the_first_version_is_refused_in_one_line(copy, capsys):
    (copy / "config.json").write_text(json.dumps({"format": 1, "learner": "ppo", "game": "sis"}))
    for command in (["evaluate"], ["report"], ["solve", "--resume"]):
        assert cli.main([*command, str(copy)]) == 2
        message = capsys.readouterr().err
        assert "config.json is of crowdnash 0.1, whose runs this version does not read" in message
        assert message.count("\n") == 1


def test_a_config_of_brackets_is_one_line(copy, capsys):
    (copy / "config.json").write_text("[" * 100_000)
    assert cli.main(["evaluate", str(copy)]) == 2
    assert "config.json is damaged" in capsys.readouterr().err


def test_the_toml_of_a_run_reproduces_it(tables):
    config = experiment.load_config(RunDirectory.open(tables))
    assert RunConfig.from_toml((tables / "config.toml").read_text()) == config
    part = 'game = "sis"\n[learner]\npreset = "theorem"\ntd_epochs = 7\n'
    learner = RunConfig.from_toml(part).learner
    assert learner == cn.PolicyMirrorDescent(td_epochs=7)


# --- evaluation


def test_evaluate_with_another_seed_draws_the_same_game(networks, tmp_path):
    copy = Path(shutil.copytree(networks, tmp_path / "copy"))
    before = Evaluation.load(RunDirectory.open(copy))
    fresh = experiment.evaluate(copy, seed=5)
    assert (copy / "agents.npz").read_bytes() == (networks / "agents.npz").read_bytes()
    assert fresh.policies["last"].statistics != before.policies["last"].statistics


def test_a_simulator_says_what_a_lower_bound_would_cost(networks, tmp_path, capsys):
    evaluation = Evaluation.load(RunDirectory.open(networks))
    assert evaluation.policies["last"].exploitability is None
    cost = evaluation.lower_bound_cost
    assert cost is not None
    # 4 agents, one after the other, from two starts each; plays to choose, and to judge.
    epochs, plays = 150, 682
    choosing = 4 * (1 + 2 * 2) + 1 + 4
    assert cost.agent_steps == (4 * 2 * epochs * plays + choosing * 2) * 20 * 6
    advice = cost.advice(Path("runs/taxi"))
    assert "minutes on this machine" in advice
    assert advice.endswith("crowdnash evaluate runs/taxi --best-response-agents 4")


@pytest.mark.slow
def test_a_neural_policy_of_a_tabular_game_gets_a_two_sided_certificate(tmp_path):
    settings = {"num_epochs": 1, "hidden_sizes": (8,), "identity": "none"} | QUICK
    parameters = {"num_agents": 12, "horizon": 3}
    config = RunConfig.create("sis", learner="ppo", game_parameters=parameters, **settings)
    result = experiment.run(config, tmp_path / "run")
    assert list(result.evaluation.policies) == ["last", "uniform"]
    certificate = result.evaluation.policies["last"].exploitability
    assert certificate is not None
    assert np.isfinite(certificate.upper).all()
    assert (tmp_path / "run" / "policy.npz").exists()
    with pytest.raises(ValueError, match="best_response_agents is for games that are only simul"):
        experiment.evaluate(tmp_path / "run", best_response_agents=2)


def test_evaluate_removes_a_report_of_the_evaluation_before(copy, capsys):
    (copy / "report.html").write_text("old")
    assert cli.main(["evaluate", str(copy)]) == 0
    assert not (copy / "report.html").exists()
    assert "crowdnash report" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["certificate-last.json", "certificate-last.npz", "evaluation.npz", "last_policy.npz"]
)
def test_files_of_two_evaluations_are_not_mixed(copy, name, capsys):
    (copy / name).write_bytes((copy / name).read_bytes() + b" ")
    assert cli.main(["report", str(copy)]) == 2
    message = capsys.readouterr().err
    assert f"{name} is not what was evaluated" in message
    assert "crowdnash evaluate" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 2}', "[" * 100_000])
def test_a_damaged_evaluation_is_one_line_and_can_be_made_anew(copy, tables, content, capsys):
    (copy / "evaluation.json").write_text(content)
    assert cli.main(["report", str(copy)]) == 2
    assert "evaluation.json is" in capsys.readouterr().err
    experiment.evaluate(copy)
    again, before = (Evaluation.load(RunDirectory.open(path)) for path in (copy, tables))
    for name, one in again.policies.items():
        assert one.exploitability.maximum == before.policies[name].exploitability.maximum


def test_a_certificate_is_saved_as_it_is(tmp_path):
    certificate = cn.Exploitability(
        agents=np.arange(2),
        value=np.array([0.1, 1 / 3]),
        lower=np.array([-0.5, 0.25]),
        upper=np.full(2, np.inf),
        standard_error=np.ones(2),
        upper_standard_error=np.zeros(2),
        maximum=Interval(0.1 + 0.2, np.inf),
        mean=Interval(-0.5, 1e-17),
        confidence=0.95,
        method="learned",
        num_trajectories=7,
        own_influence=cn.OwnInfluence(np.array([1]), np.array([0.1]), np.array([0.2])),
    )
    certificate.save(tmp_path / "c.json")
    again = cn.Exploitability.load(tmp_path / "c.json")
    for name, value in vars(certificate).items():
        if name != "own_influence":
            np.testing.assert_array_equal(getattr(again, name), value)
    np.testing.assert_array_equal(again.own_influence.difference, [0.1])
    (tmp_path / "c.npz").write_bytes((tmp_path / "c.npz").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"c\.(json|npz) is damaged"):
        cn.Exploitability.load(tmp_path / "c.json")


def test_a_finished_run_says_so_before_anything_slow_is_imported(tables):
    code = (
        "import sys; from crowdnash import cli\n"
        f"assert cli.main(['solve', '--resume', {str(tables)!r}]) == 0\n"
        "assert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "already finished (2 epochs)" in done.stdout


def test_two_numbers_for_one_name(tmp_path, capsys):
    words = [
        "--heterogeneity",
        "susceptibility=0.1,susceptibility=0.2",
        "--out",
        str(tmp_path / "x"),
    ]
    assert cli.main(["solve", "sis", *words]) == 2
    assert "the same name twice" in capsys.readouterr().err
