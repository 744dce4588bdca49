"""What a run keeps of its game: exact alpha and beta, and the agents' parameters by name."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.interval import Interval
from crowdnash.runs import game_record
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.game_record import GameRecord, agent_parameters, exact_symmetry
from small_games import PULL, Drift, DriftByLaw


class Toll(cn.PopulationGame):
    """Two roads; the toll road's price is the agent's own; moves are free of the crowd."""

    transition_in_aggregate: ClassVar = "free"
    reward_in_aggregate: ClassVar = "affine"
    agents: dict[str, Any]
    initial_distribution: Any
    horizon: int = eqx.field(static=True)
    num_states: ClassVar[int] = 2
    num_actions: ClassVar[int] = 2

    def __init__(self, **agents: Any):
        self.agents = {name: jnp.asarray(values, jnp.float32) for name, values in agents.items()}
        self.initial_distribution = jnp.array([0.5, 0.5])
        self.horizon = 3

    def transition(self, agent, state, action, aggregate, step):
        return jnp.where(jnp.arange(2) == action, 1.0, 0.0)

    def reward(self, agent, state, action, aggregate, step):
        return jnp.where(action == 1, -agent["toll"] - aggregate[1] - aggregate[3], -0.6)


def test_alpha_and_beta_by_hand():
    # Moves are the same for all: alpha = 0. Tolls 0, 0.1, 0.5 have mean 0.2: beta = 0.3. On the
    # toll road among all others one gets -toll - 1, so that rewards range from -1.5 to 0.
    found = exact_symmetry(Toll(toll=[0.0, 0.1, 0.5]))
    assert found is not None
    assert found.alpha == 0.0
    assert found.beta == pytest.approx(0.3, rel=1e-6)
    assert tuple(found.reward_range) == pytest.approx((-1.5, 0.0))


@pytest.mark.slow
@pytest.mark.parametrize("game_class", [cn.games.SIS, cn.games.RockPaperScissors])
def test_alpha_and_beta_are_those_of_symmetry(game_class):
    game = game_class.sample(jax.random.key(1), num_agents=20, horizon=3)
    found, expected = exact_symmetry(game), cn.symmetry(game)
    assert found is not None
    assert expected.exact
    assert Interval(found.alpha, found.alpha) == expected.alpha
    assert Interval(found.beta, found.beta) == expected.beta
    assert found.reward_range == expected.reward_range


def test_nothing_is_said_where_it_is_not_exact_or_dear(monkeypatch):
    assert exact_symmetry(Drift()) is None  # its reward is not affine
    assert exact_symmetry(DriftByLaw()) is None
    monkeypatch.setattr(game_record, "_MAX_WORK", 10)
    assert exact_symmetry(Toll(toll=[0.0, 0.1, 0.5])) is None


def test_a_law_that_is_no_number_somewhere_spoils_no_run():
    assert exact_symmetry(Toll(toll=[0.0, np.inf, 0.5])) is None


def test_parameters_have_names_and_constants_are_left_out():
    matrix = np.arange(12.0).reshape(3, 2, 2)
    matrix[:, 0, 1] = 7.0
    found = agent_parameters(Toll(toll=[0.0, 0.1, 0.5], same=[1.0, 1.0, 1.0], pays=matrix))
    assert list(found) == ["pays[0,0]", "pays[1,0]", "pays[1,1]", "toll"]
    np.testing.assert_allclose(found["pays[1,0]"], [2.0, 6.0, 10.0])
    np.testing.assert_allclose(found["toll"], [0.0, 0.1, 0.5])
    assert list(agent_parameters(Drift())) == ["pull"]
    wide = Toll(toll=[0.0, 0.1, 0.5], wide=np.arange(90.0).reshape(3, 30))
    assert len(agent_parameters(wide)) == 24


def test_features_of_a_simulator_are_numbered():
    game = cn.games.Taxi.sample(jax.random.key(0), num_agents=5, horizon=4)
    found = agent_parameters(game)
    assert list(found) == ["feature[0]", "feature[1]", "feature[2]"]
    features = np.asarray(game.agent_features)
    np.testing.assert_allclose(np.stack(list(found.values()), 1), features)


def test_record_round_trips(tmp_path):
    directory = RunDirectory.create(tmp_path / "run", "{}")
    empty = GameRecord.load(directory)
    assert empty.symmetry is None
    assert empty.parameters == {}
    record = GameRecord.of(Toll(toll=PULL))
    record.save(directory)
    loaded = GameRecord.load(directory, num_agents=4)
    assert loaded.symmetry == record.symmetry
    assert loaded.parameters.keys() == {"toll"}
    np.testing.assert_array_equal(loaded.parameters["toll"], record.parameters["toll"])
    with pytest.raises(ValueError, match=r"'toll' must be a float for each of 5 agents"):
        GameRecord.load(directory, num_agents=5)
    directory.symmetry.write_text("[]")
    with pytest.raises(ValueError, match=r"symmetry.json is damaged"):
        GameRecord.load(directory)
