"""Policies to OpenSpiel and MFGLib and from them: beside the scores that these compute."""

import types

import jax
import numpy as np
import pytest
from scipy.stats import binom

import crowdnash as cn
from crowdnash.simulators import as_game

KEY = jax.random.key(0)


# --- a mean-field game of three places with OpenSpiel's interface, where there is no OpenSpiel ---


class CorridorGame:
    """All start at place 0; action 1 leads right in 3 of 4 cases, and is illegal at the end."""

    horizon = 2

    def get_type(self):
        return types.SimpleNamespace(short_name="corridor", dynamics="mean field")

    def num_players(self):
        return 1

    def num_distinct_actions(self):
        return 2

    def max_game_length(self):
        return self.horizon

    def new_initial_state(self):
        return CorridorState()


class CorridorState:
    """Chance places an agent; then it decides, may slip, and is told the distribution."""

    def __init__(self, place=None, time=0, node="start", moves=0, shares=(1.0, 0.0, 0.0), paid=0.0):
        self.place, self.time, self.node, self.moves = place, time, node, moves
        self.shares, self.paid = list(shares), paid

    def __str__(self):
        ending = {"slip": f"_a{self.moves}", "told": "_mu"}.get(self.node, "")
        return "initial" if self.place is None else f"({self.place}, {self.time}){ending}"

    def observation_string(self, player):
        return str(self)

    def observation_tensor(self, player):
        return [float(self.place), float(self.time)]

    def child(self, action):
        state = self.clone()
        state.apply_action(action)
        return state

    def clone(self):
        own = (self.place, self.time, self.node, self.moves, self.shares, self.paid)
        return CorridorState(*own)

    def is_terminal(self):
        return self.node == "decides" and self.time == CorridorGame.horizon

    def is_chance_node(self):
        return self.node in ("start", "slip")

    def current_player(self):
        return -4 if self.is_terminal() else {"told": -5, "decides": 0}.get(self.node, -1)

    def chance_outcomes(self):
        return [(0, 1.0)] if self.node == "start" else [(0, 0.25), (1, 0.75)]

    def legal_actions(self, player=0):
        return [0] if self.place == 2 else [0, 1]

    def apply_action(self, action):
        if self.node == "start":
            self.place, self.node = action, "decides"
        elif self.node == "decides":
            assert action in self.legal_actions()
            self.moves, self.node = action, "slip"
        else:
            self.place += self.moves * action
            self.time, self.node = self.time + 1, "told"

    def distribution_support(self):
        return [f"({place}, {self.time})_mu" for place in range(3)]

    def update_distribution(self, shares):
        assert self.node == "told"
        assert sum(shares) == pytest.approx(1)
        self.shares, self.node = list(shares), "decides"
        self.paid += 1 - self.shares[self.place]

    def returns(self):
        return [self.paid]


class Spreading:
    """Goes right the likelier, the more are at the same place, and later."""

    def action_probabilities(self, state, player_id=None):
        right = 0.5 * state.shares[state.place] + 0.1 * state.time
        return {0: 1.0} if state.place == 2 else {0: 1 - right, 1: right}


class TheirPolicy:
    """The constructor of `open_spiel.python.policy.Policy`."""

    def __init__(self, game, player_ids):
        self.game, self.player_ids = game, player_ids


@pytest.fixture
def corridor(monkeypatch):
    """Five copies in the corridor."""
    dynamics = types.SimpleNamespace(MEAN_FIELD="mean field", SIMULTANEOUS="simultaneous")
    made = {
        "pyspiel": {
            "Game": CorridorGame,
            "GameType": types.SimpleNamespace(Dynamics=dynamics),
            "PlayerId": types.SimpleNamespace(MEAN_FIELD=-5),
        },
        "open_spiel": {},
        "open_spiel.python": {},
        "open_spiel.python.policy": {"Policy": TheirPolicy},
    }
    for name, content in made.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(__import__("sys").modules, name, module)
    return cn.simulators.open_spiel(CorridorGame(), num_agents=5)


def test_a_policy_is_asked_with_the_distributions_that_it_brings_about(corridor):
    """By hand: half of all go right at once, and .375 arrive."""
    assert (corridor.num_states, corridor.num_actions, corridor.horizon) == (3, 2, 2)
    policy = cn.simulators.from_open_spiel(Spreading(), corridor)
    right = np.asarray(policy.probs)[0, :, :, 1]
    expected = [[0.5, 0.5, 0.5], [0.5 * 0.625 + 0.1, 0.5 * 0.375 + 0.1, 0.5]]
    np.testing.assert_allclose(right, expected, atol=1e-6)  # where nobody can be, all alike
    assert policy.num_agents == 5
    assert policy.num_groups == 1


def test_there_and_back(corridor):
    probs = np.random.default_rng(0).dirichlet(np.ones(2), (2, 3)).astype(np.float32)
    ours = cn.TabularPolicy.symmetric(probs, 5)
    theirs = cn.simulators.to_open_spiel(ours, corridor)
    assert isinstance(theirs, TheirPolicy)
    assert theirs.player_ids == [0]
    state = CorridorState(1, 1, "decides")
    assert theirs.action_probabilities(state) == {
        0: pytest.approx(probs[1, 1, 0]), 1: pytest.approx(probs[1, 1, 1]),
    }  # fmt: skip
    # At the end of the corridor only one action is legal.
    assert theirs.action_probabilities(CorridorState(2, 1, "decides"), 0) == {0: 1.0}
    back = np.asarray(cn.simulators.from_open_spiel(theirs, corridor).probs)[0]
    reached = ([0, 1, 1], [0, 0, 1])
    np.testing.assert_allclose(back[reached], probs[reached], atol=1e-6)


def test_whose_policy_is_meant_must_be_said_where_agents_differ(corridor):
    probs = np.full((5, 2, 3, 2), 0.5)
    probs[3, 1, 0] = [0.1, 0.9]
    own = cn.TabularPolicy.independent(probs)
    with pytest.raises(ValueError, match="agents 0 and 3 play differently at step 1"):
        cn.simulators.to_open_spiel(own, corridor)
    theirs = cn.simulators.to_open_spiel(own, corridor, agent=3)
    assert theirs.action_probabilities(CorridorState(0, 1, "decides"))[1] == pytest.approx(0.9)
    with pytest.raises(ValueError, match=r"agent must be in 0\.\.4, not 5"):
        cn.simulators.to_open_spiel(own, corridor, agent=5)
    with pytest.raises(ValueError, match="policy must be one of OpenSpiel, with action_prob"):
        cn.simulators.from_open_spiel(probs, corridor)
    with pytest.raises(ValueError, match="sim must be a MeanFieldCopies"):
        cn.simulators.from_open_spiel(Spreading(), CorridorGame())


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open_spiel.python.policy", None)
    with pytest.raises(ImportError, match="open_spiel is not installed: pip install open_spiel"):
        cn.simulators.to_open_spiel(cn.TabularPolicy.symmetric(np.ones((1, 1, 1)), 2), None)


# --- with the packages themselves ---


def crowd_flow_and_return(probs, num_copies):
    """Shares [10,10] of places over time, and what one of N copies in crowd modelling earns.

    Copies move independently. A step pays 1 - |x - 5| / 5, less a tenth of the last move, less the
    log of the share at x: 1/10 at first, then that of oneself and of the others who are there.
    """
    others, near = np.arange(num_copies), 1 - np.abs(np.arange(10) - 5) / 5
    flow, total = [np.full(10, 0.1)], 0.0
    for t in range(10):
        here = flow[-1]
        crowd = np.full(10, np.log(0.1))
        if t:
            logs = np.log((1 + others) / num_copies)
            crowd = np.array([binom.pmf(others, num_copies - 1, p) @ logs for p in here])
        total += here @ (near - crowd)
        moves = here[:, None] * probs[t]
        if t < 9:
            total -= (moves[:, 0] + moves[:, 2]).sum() / 10
        moved = sum(np.roll(moves[:, a], a - 1) for a in range(3))
        flow.append(sum(np.roll(moved, k) for k in (-1, 0, 1)) / 3)
    return np.array(flow[:-1]), total


@pytest.mark.slow
@pytest.mark.parametrize("iterations", [0, 5])
def test_a_mean_field_policy_of_openspiel_is_played_and_certified(iterations):
    """Its NashConv and its population are those of the table made of it, and copies earn that."""
    pytest.importorskip("pyspiel")
    from open_spiel.python.mfg.algorithms import distribution, mirror_descent, nash_conv

    sim = cn.simulators.open_spiel("mfg_crowd_modelling", num_agents=30)
    learner = mirror_descent.MirrorDescent(sim.game, lr=0.1)
    for _ in range(iterations):
        learner.iteration()
    theirs = learner.get_policy()  # uniform before the first
    ours = cn.simulators.from_open_spiel(theirs, sim)
    again = cn.simulators.to_open_spiel(ours, sim)
    scores = [nash_conv.NashConv(sim.game, one).nash_conv() for one in (theirs, again)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)
    flow, earned = crowd_flow_and_return(np.asarray(ours.probs, np.float64)[0], 30)
    told = distribution.DistributionPolicy(sim.game, theirs)
    shares = [[told.value_str(f"({x}, {t})") for x in range(10)] for t in range(10)]
    np.testing.assert_allclose(flow, shares, atol=1e-6)
    played = cn.simulate(sim, ours, key=KEY, num_trajectories=40).rewards.sum(1).mean(1)
    assert abs(played.mean() - earned) < 4 * played.std(ddof=1) / 40**0.5
    e = cn.exploitability(sim, ours, key=KEY, agents=[0], budget_steps=4000)
    assert 0 <= e.maximum.lower <= max(e.lower[0], 0) < scores[0] + 4 * e.standard_error[0]
    if not iterations:
        assert e.maximum.lower > 0.5  # of 2.8 in the limit


@pytest.mark.slow
@pytest.mark.parametrize("name", ["python_mfg_crowd_modelling", "mfg_crowd_modelling_2d"])
def test_openspiels_score_stays_as_it_is_there_and_back(name):
    pytest.importorskip("pyspiel")
    import open_spiel.python.mfg.games.crowd_modelling  # noqa: F401 (registers the first)
    from open_spiel.python.mfg.algorithms import fictitious_play, nash_conv

    sim = cn.simulators.open_spiel(name, num_agents=10)
    learner = fictitious_play.FictitiousPlay(sim.game)
    learner.iteration()
    theirs = learner.get_policy()
    again = cn.simulators.to_open_spiel(cn.simulators.from_open_spiel(theirs, sim), sim)
    scores = [nash_conv.NashConv(sim.game, one).nash_conv() for one in (theirs, again)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)
    assert scores[0] > 1


@pytest.mark.slow
def test_players_of_a_simultaneous_game_are_asked_at_their_step():
    """Goofspiel: what a network gives the player for its tensor, among the cards it holds."""
    pytest.importorskip("pyspiel")
    parameters = {"players": 3, "num_cards": 3, "imp_info": True, "points_order": "descending"}
    sim = cn.simulators.open_spiel("goofspiel", parameters=parameters)
    learner = cn.PPO(hidden_sizes=(8,), identity="number")
    game = as_game(sim)
    policy = learner.policies(game, learner.init(game, key=KEY))["last"]
    theirs, plain = cn.simulators.to_open_spiel(policy, sim), policy.numpy()
    state = sim.game.new_initial_state()
    for step, cards in enumerate([(0, 1, 2), (1, 2, 0)]):
        rows = plain.probabilities(sim.seen(state), step)
        for player in range(3):
            legal = state.legal_actions(player)
            expected = rows[player, legal] / rows[player, legal].sum()
            answer = theirs.action_probabilities(state, player)
            assert list(answer) == legal
            np.testing.assert_allclose(list(answer.values()), expected, atol=1e-5)
        state.apply_actions(list(cards))
    with pytest.raises(ValueError, match="agent is for mean-field games"):
        cn.simulators.to_open_spiel(policy, sim, agent=1)


@pytest.mark.slow
def test_mfglib_scores_ours_and_theirs_is_certified():
    pytest.importorskip("mfglib")
    import mfglib.alg
    import torch
    from mfglib.env import Environment
    from mfglib.policy import Policy
    from mfglib.scoring import exploitability_score

    environment = Environment.beach_bar()
    game = cn.simulators.mfglib(environment, num_agents=200)
    induced = cn.induced_game(game)
    solutions = mfglib.alg.OnlineMirrorDescent(alpha=1.0).solve(environment, max_iter=20)[0]
    certificates = []
    for theirs in (solutions[0], solutions[-1]):
        ours = cn.simulators.from_mfglib(theirs, game)
        score = float(exploitability_score(environment, theirs))
        assert float(cn.mean_field.exploitability(induced, ours.probs[0])) == pytest.approx(
            score, abs=1e-5
        )
        back = cn.simulators.to_mfglib(ours, game)
        assert isinstance(back, torch.Tensor)
        assert back.shape == theirs.shape
        assert float(exploitability_score(environment, back)) == pytest.approx(score, abs=1e-5)
        certificates.append(cn.exploitability(game, ours, key=KEY, num_trajectories=32).maximum)
        # The game of 200 agents differs from its limit by O(1/sqrt(N)).
        assert certificates[-1].lower - 0.2 < score < certificates[-1].upper + 0.2
    assert certificates[1].upper < certificates[0].lower
    uniform = cn.simulators.from_mfglib(Policy.uniform(), game)
    np.testing.assert_allclose(uniform.probs, 1 / game.num_actions)
    with pytest.raises(ValueError, match=r"policy must have shape \["):
        cn.simulators.from_mfglib(solutions[0][1:], game)


@pytest.mark.slow
def test_kinds_of_agents_in_mfglib_have_policies_of_their_own():
    pytest.importorskip("mfglib")
    from mfglib.env import Environment

    environments = [Environment.beach_bar(bar_loc=k) for k in (1, 2)]
    game = cn.simulators.mfglib(environments, num_agents=4, kinds=[0, 1, 1, 0])
    drawn = np.random.default_rng(0).dirichlet(
        np.ones(game.num_actions), (2, game.horizon, game.num_states)
    )
    shape = (game.horizon, *game.layout)
    policy = cn.simulators.from_mfglib([one.reshape(shape) for one in drawn], game)
    np.testing.assert_array_equal(policy.groups, [0, 1, 1, 0])
    theirs = cn.simulators.to_mfglib(policy, game, agent=2)
    np.testing.assert_allclose(theirs.reshape(drawn[1].shape), drawn[1], atol=1e-6)
    with pytest.raises(ValueError, match="agents 0 and 1 play differently"):
        cn.simulators.to_mfglib(policy, game)
    with pytest.raises(ValueError, match="list of 2, one for each kind of agent, not of 3"):
        cn.simulators.from_mfglib([*drawn, drawn[0]], game)
