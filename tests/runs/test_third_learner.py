"""A learner in one file, and one line in the registry: everything else takes it as it is.

Fictitious play by counting: every agent plays the mean of past best responses, mixed with a little
exploration; what it counts are returns-to-go by step, state and action.
"""

import json
from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

import crowdnash as cn
from crowdnash import cli
from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import states_for_tables
from crowdnash.learners import registry
from crowdnash.learners.base import Learner, Metrics, game_fingerprint


class Counts(eqx.Module):
    """Before epoch `epoch`: sums of returns-to-go and visits, and the policies so far, [H,S,A]."""

    epoch: Int[Array, ""]
    returns: Float[Array, "H S A"]
    visits: Float[Array, "H S A"]
    average: Float[Array, "H S A"]
    last: Float[Array, "H S A"]
    fingerprint: UInt32[Array, " 8"]
    key: UInt32[Array, "..."]


class FictitiousPlay(Learner[Counts, Metrics, cn.TabularPolicy]):
    """Fictitious play by counting.

    Args:
        num_epochs: best responses, at least 0.
        num_trajectories: plays of all agents for each.
        exploration: probability of a random action.
    """

    num_epochs: int = 10
    num_trajectories: int = 4
    exploration: float = 0.2

    @classmethod
    def presets(cls) -> Mapping[str, Callable[..., "FictitiousPlay"]]:
        return {"plain": cls}

    def check_suits(self, game: DynamicGame) -> None:
        states_for_tables(game)

    def init(self, game: DynamicGame, *, key: PRNGKeyArray) -> Counts:
        shape = (game.horizon, states_for_tables(game), game.num_actions)
        uniform = jnp.full(shape, 1 / game.num_actions)
        return Counts(
            epoch=jnp.asarray(0, jnp.int32),
            returns=jnp.zeros(shape),
            visits=jnp.zeros(shape),
            average=uniform,
            last=uniform,
            fingerprint=game_fingerprint(game),
            key=jax.random.key_data(key),
        )

    def step(self, game: DynamicGame, state: Counts) -> tuple[Counts, Metrics]:
        played = (1 - self.exploration) * state.average + self.exploration / game.num_actions
        trajectories = cn.simulate(
            game,
            cn.TabularPolicy.symmetric(played, game.num_agents),
            key=jax.random.fold_in(jax.random.wrap_key_data(state.key), state.epoch),
            num_trajectories=self.num_trajectories,
        )
        to_go = jnp.cumsum(trajectories.rewards[:, ::-1], axis=1)[:, ::-1]
        steps = jnp.arange(game.horizon)[None, :, None]
        place = (steps, trajectories.states, trajectories.actions)
        returns, visits = state.returns.at[place].add(to_go), state.visits.at[place].add(1.0)
        best = jnp.argmax(returns / jnp.maximum(visits, 1), axis=-1)
        last = jax.nn.one_hot(best, game.num_actions)
        after = Counts(
            epoch=state.epoch + 1,
            returns=returns,
            visits=visits,
            average=state.average + (last - state.average) / (state.epoch + 1),
            last=last,
            fingerprint=state.fingerprint,
            key=state.key,
        )
        metrics = Metrics(
            epoch=int(state.epoch),
            mean_return=float(to_go[:, 0].mean()),
            agent_steps=to_go.size,
            seconds=0.0,
        )
        return after, metrics

    def policies(self, game: DynamicGame, state: Counts) -> dict[str, cn.TabularPolicy]:
        tables = {"average": state.average, "last": state.last}
        return {n: cn.TabularPolicy.symmetric(x, game.num_agents) for n, x in tables.items()}


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(registry.LEARNERS, "fictitious-play", FictitiousPlay)


GAME = ["solve", "sis", "--learner", "fictitious-play", "--num-agents", "12", "--horizon", "3"]
EVALUATION = ["--num-evaluation-trajectories", "8", "--own-influence-agents", "0"]


@pytest.mark.slow
def test_solve_resume_certificate_and_report(registered, tmp_path, capsys):
    whole, out = tmp_path / "whole", tmp_path / "run"
    words = [*GAME, *EVALUATION, "--checkpoint-every", "2", "--num-trajectories", "5"]
    assert cli.main([*words, "--num-epochs", "6", "--no-report", "--out", str(whole)]) == 0
    assert cli.main([*words, "--num-epochs", "4", "--out", str(out)]) == 0
    assert "certifying the average policy" in capsys.readouterr().err
    assert json.loads((out / "config.json").read_text())["learner"]["exploration"] == 0.2
    assert "FictitiousPlay" in (out / "report.html").read_text()
    assert cli.main(["solve", "--resume", str(out), "--num-epochs", "6"]) == 0
    assert "after 6 epochs" in capsys.readouterr().out
    for name in ("policy.npz", "last_policy.npz"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    certificate = cn.Exploitability.load(out / "certificate-average.json")
    assert certificate.maximum.lower <= certificate.maximum.upper
    assert certificate.maximum.upper > 0
    assert cli.main(["solve", "--resume", str(out)]) == 0
    assert "already finished (6 epochs)" in capsys.readouterr().out


def test_its_flags_choose_it_and_a_file_too(registered, tmp_path):
    words = ["--exploration", "0.3", "--config", str(tmp_path / "run.toml"), "--out", "x"]
    (tmp_path / "run.toml").write_text(
        'game = "sis"\n[learner]\nname = "fictitious-play"\nnum_trajectories = 7\n'
    )
    from crowdnash.cli.flags import parse_solve

    def no_stored_run(path):
        raise AssertionError(f"{path} must not be read")

    made = parse_solve(words, no_stored_run).config.learner
    assert made == FictitiousPlay(num_trajectories=7, exploration=0.3)
    made = parse_solve(["sis", "--exploration", "0.3"], no_stored_run).config.learner
    assert made == FictitiousPlay(exploration=0.3)


def test_solve_learns_from_counts():
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=12, horizon=3)
    result = cn.solve(game, FictitiousPlay(num_epochs=3), key=jax.random.key(1))
    assert result.policy is result.policies["average"]
    np.testing.assert_allclose(result.policy.probs.sum(-1), 1, rtol=1e-6)
    assert len(result.history) == 3
    with pytest.raises(ValueError, match="mesh is not for FictitiousPlay: it learns on one device"):
        cn.solve(game, FictitiousPlay(num_epochs=3), key=jax.random.key(1), mesh="auto")
