"""alpha, beta and moduli from trajectories: hand-made play, closed forms, size and coverage."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import crowdnash as cn
from crowdnash.approximate_symmetry.play.estimate import symmetry_from_trajectories
from crowdnash.simulation.exploration import explore
from small_games import Drift, DriftSimulator

KEY = jax.random.key(0)


def hand_made(num_trajectories=16, horizon=6):
    """Three agents: agent 0 always moves to state 1, the others to 0; rewards 1, 0.5, 0."""
    shape = (num_trajectories, horizon, 3)
    states = np.zeros(shape, int)
    states[:, 1:, 0] = 1
    states[: num_trajectories // 2, 0] = 1
    states[:, 0, :] = np.arange(num_trajectories)[:, None] // 2 % 2
    actions = np.zeros(shape, int)
    rewards = np.broadcast_to([1.0, 0.5, 0.0], shape)
    return SimpleNamespace(states=states, actions=actions, rewards=rewards)


def test_by_hand():
    """In state 0 at step 0: P(1) is 1, 0, 0, mean 1/3, so agent 0 is 4/3 away; beta is 1/2."""
    play = hand_made()
    estimate = symmetry_from_trajectories(
        play, num_states=2, num_actions=1, num_bins=1, min_visits=2, time_dependent=True
    )
    assert estimate.alpha.estimate == pytest.approx(4 / 3)
    assert estimate.alpha.standard_error < 1e-6
    assert (estimate.alpha.agent, estimate.alpha.action, estimate.alpha.step) == (0, 0, 0)
    assert estimate.alpha.compared == 1.0
    assert estimate.beta.estimate == pytest.approx(0.5)
    assert estimate.beta.agent in (0, 2)
    assert estimate.reward_range == (0.0, 1.0)
    assert estimate.visits.sum() == play.states.size
    assert estimate.visits[0, 1, 0] == 16 * 5 + 8
    assert estimate.alpha.interval.lower == pytest.approx(4 / 3, abs=1e-5)
    assert estimate.alpha.interval.upper == pytest.approx(4 / 3, abs=1e-4)


def test_an_agent_alone_in_its_group_is_its_own_mean():
    estimate = symmetry_from_trajectories(
        hand_made(), num_states=2, num_actions=1, groups=np.array([0, 1, 1]), min_visits=2
    )
    assert estimate.group_alpha[0].estimate == 0.0
    assert estimate.group_alpha[0].interval == (0.0, 0.0)
    assert estimate.group_beta[0].estimate == 0.0
    assert estimate.group_beta[1].estimate == pytest.approx(0.25)
    assert estimate.beta.agent in (1, 2)


def test_what_was_not_seen_is_said():
    estimate = symmetry_from_trajectories(hand_made(), num_states=3, num_actions=1, min_visits=10)
    assert not estimate.seen[:, 2].any()
    assert estimate.seen[1, 0].all()
    assert not estimate.seen[1, 1].any()  # once in every other trajectory
    assert estimate.unseen_share == pytest.approx(1 - estimate.seen.mean())
    nothing = symmetry_from_trajectories(hand_made(), num_states=2, num_actions=1, min_visits=999)
    assert np.isnan(nothing.alpha.estimate)
    assert nothing.alpha.interval == (0.0, np.inf)
    assert nothing.alpha.mu is None
    assert not nothing.seen.any()


def sis(heterogeneity, num_agents=60):
    return cn.games.SIS.sample(
        jax.random.key(5), num_agents=num_agents, horizon=10, heterogeneity=heterogeneity
    )


def sis_deviation(game, deviation) -> float:
    """Exact |P^i - P| of A-SIS where the estimate was taken."""
    infect, recover = (np.asarray(x, np.float64) for x in (game.susceptibility, game.recovery))
    if deviation.state == 0:
        return 2 * abs(recover[deviation.agent] - recover.mean())
    apart = abs(infect[deviation.agent] - infect.mean())
    return 2 * apart * deviation.mu[0, 1] if deviation.action == 1 else 0.0


@pytest.mark.slow
def test_sis_against_closed_forms():
    game = sis({"susceptibility": 0.15, "recovery": 0.25})
    exact = cn.symmetry(game)
    estimate = cn.symmetry(game, method="trajectories", num_trajectories=1024)
    play = estimate.play
    assert estimate.method == "trajectories"
    assert not estimate.exact
    true = sis_deviation(game, play.alpha)
    assert abs(play.alpha.estimate - true) <= 4 * play.alpha.standard_error
    assert play.alpha.interval.lower > 0.2  # clearly different agents
    assert true <= exact.alpha.upper
    assert play.alpha.interval.lower <= exact.alpha.upper
    # beta is free of the population and of the state: exact, and the agent is the right one
    assert play.beta.estimate == pytest.approx(exact.beta.upper, abs=1e-5)
    assert play.beta.interval.upper == pytest.approx(exact.beta.upper, abs=1e-4)
    assert estimate.beta_attained.agent == exact.beta_attained.agent
    for name in ("K_mu", "L_s", "L_a", "L_mu"):  # no larger at populations that were not met
        value, error = getattr(play.moduli, name)
        assert abs(value - getattr(exact.lipschitz, name)) <= 4 * error + 1e-5, name
    for name in ("K_s", "K_a", "transition_spread"):
        value, error = getattr(play.moduli, name)
        assert value <= getattr(exact.lipschitz, name) + 4 * error, name
    # Upper ends stay trivial: play shows nothing of populations that were not met.
    assert estimate.alpha == (max(play.alpha.estimate, 0.0), 2.0)
    assert estimate.lipschitz == play.lipschitz
    bound = cn.nash_bound(game, estimate, end="lower")
    assert not bound.certified
    # Known moduli, an alpha that is less than the exact one at worst by what was not met.
    assert 0.5 < bound.sharper / cn.nash_bound(game, exact).sharper < 1.2


@pytest.mark.slow
def test_groups_of_like_agents_are_alike():
    """Two types: as one group they differ; each in its own group not."""
    kind = np.arange(40) % 2
    susceptibility, recovery = np.where(kind, 0.9, 0.4), np.where(kind, 0.6, 0.2)
    game = cn.games.SIS(susceptibility, recovery, np.full(40, 0.5), horizon=10)
    one = cn.symmetry(game, method="trajectories", num_trajectories=256).play
    two = cn.symmetry(game, kind, method="trajectories", num_trajectories=256).play
    assert one.alpha.interval.lower > 0.2
    assert abs(one.alpha.estimate - sis_deviation(game, one.alpha)) <= 4 * one.alpha.standard_error
    assert len(two.group_alpha) == 2
    for part in two.group_alpha:
        assert abs(part.estimate) <= 4 * part.standard_error
    for name in ("K_mu", "K_s"):  # the larger of the groups': susceptibility, recovery
        value, error = getattr(two.moduli, name)
        exact = getattr(cn.symmetry(game, kind).lipschitz, name)
        assert value <= exact + 4 * error


@pytest.mark.slow
def test_rock_paper_scissors_at_the_populations_met():
    game = cn.games.RockPaperScissors.sample(KEY, num_agents=50, horizon=6)
    estimate = cn.symmetry(game, method="trajectories", num_trajectories=256)
    deviation = estimate.play.beta
    mu = jnp.asarray(deviation.mu.reshape(-1), jnp.float32)
    place = (jnp.int32(deviation.state), jnp.int32(deviation.action), mu, jnp.int32(0))
    rewards = np.asarray(jax.vmap(game.reward, (0, None, None, None, None))(game.agents, *place))
    true = abs(rewards[deviation.agent] - rewards.mean())
    assert deviation.estimate == pytest.approx(true, abs=4 * deviation.standard_error + 1e-3)
    exact = cn.symmetry(game)
    assert 0 < deviation.interval.lower <= true + 1e-3 <= deviation.interval.upper + 2e-3
    assert true <= exact.beta.upper + 1e-6
    assert estimate.play.alpha.estimate == pytest.approx(0.0, abs=1e-5)
    moduli = estimate.play.moduli
    assert moduli.L_mu.value == pytest.approx(exact.lipschitz.L_mu, abs=4 * 0.01)
    assert moduli.K_a.value == pytest.approx(2.0)


def test_a_bare_simulator():
    """Drift as a simulator: P(2) = 0.1 + pull x / 2, so agents differ by |pull - mean| x in L1."""
    pull = np.linspace(0.1, 1.0, 12)
    estimate = cn.symmetry(DriftSimulator(pull, horizon=5), num_trajectories=1024)
    assert estimate.method == "trajectories"
    deviation = estimate.play.alpha
    true = abs(pull[deviation.agent] - pull.mean()) * deviation.mu[2].sum()
    assert abs(deviation.estimate - true) <= 4 * deviation.standard_error
    assert deviation.interval.lower <= true <= deviation.interval.upper
    value, error = estimate.lipschitz.K_mu, estimate.play.moduli.K_mu.standard_error
    assert abs(value - 0.25 * 2 * pull.mean()) <= 4 * error
    assert estimate.relative_beta.upper == np.inf
    assert cn.nash_bound(DriftSimulator(pull, horizon=5), estimate, end="lower").value > 0


def test_order_of_agents_does_not_matter():
    game = sis(0.1, 12)
    play = explore(game, cn.TabularPolicy.uniform(game), 64, 0)
    order = np.random.default_rng(0).permutation(12)
    other = cn.Trajectories(*(np.asarray(x)[:, :, order] for x in play))
    ours, theirs = (
        symmetry_from_trajectories(p, num_states=2, num_actions=2, min_visits=5)
        for p in (play, other)
    )
    for one, two in ((ours.alpha, theirs.alpha), (ours.beta, theirs.beta)):
        assert one.estimate == pytest.approx(two.estimate, abs=1e-9)
        assert one.interval == pytest.approx(two.interval, abs=1e-9)
        assert order[two.agent] == one.agent
    np.testing.assert_array_equal(ours.seen[order], theirs.seen)
    np.testing.assert_allclose(ours.moduli, theirs.moduli, atol=1e-9)


def play_by_hand(rng, num_agents, infect, recover, num_trajectories=32, horizon=10):
    """A-SIS in plain NumPy: half the trajectories mostly go out, half mostly stay."""
    shape = (num_trajectories, num_agents)
    out = np.where(np.arange(num_trajectories) % 4 < 2, 0.8, 0.4)[:, None]
    state, states, actions = (rng.random(shape) < 0.5).astype(int), [], []
    for _ in range(horizon):
        action = (rng.random(shape) < out).astype(int)
        states.append(state)
        actions.append(action)
        ill = (state == 0) & (action == 1)
        others = (ill.sum(1, keepdims=True) - ill) / (num_agents - 1)
        sick = np.where(state == 0, 1 - recover, np.where(action == 1, infect * others, 0.0))
        state = np.where(rng.random(shape) < sick, 0, 1)
    states, actions = (np.stack(x, 1) for x in (states, actions))
    return SimpleNamespace(states=states, actions=actions, rewards=-1.0 * (states == 0))


def scores(num_seeds, infect, recover):
    """(estimate - exact) / standard error and whether the interval holds the truth, by seed."""
    infect, recover = np.asarray(infect), np.asarray(recover)
    n = len(infect)
    game = cn.games.SIS(infect, recover, np.full(n, 0.5), horizon=10)
    result = []
    for seed in range(num_seeds):
        play = play_by_hand(np.random.default_rng(seed), n, infect, recover)
        deviation = symmetry_from_trajectories(
            play, num_states=2, num_actions=2, min_visits=8
        ).alpha
        true = sis_deviation(game, deviation)
        z = (
            (deviation.estimate - true) / deviation.standard_error
            if deviation.standard_error > 1e-6
            else 0.0
        )
        result.append(
            (z, deviation.interval.lower <= true + 1e-9, true <= deviation.interval.upper)
        )
    return np.array(result)


def check_size(num_seeds):
    """A test of alpha = 0 at 5% rejects identical agents about so often, not every time."""
    estimate = scores(num_seeds, np.full(20, 0.8), np.full(20, 0.3))
    critical = scipy.stats.t.ppf(0.95, 15)
    rejected = (estimate[:, 0] > critical).mean()
    assert rejected <= 0.05 + 4 * (0.05 * 0.95 / num_seeds) ** 0.5
    assert abs(estimate[:, 0].mean()) <= 4 / num_seeds**0.5
    assert 0.7 < estimate[:, 0].std() < 1.3  # neither blind nor wild
    assert estimate[:, 1].mean() >= 0.975 - 4 * (0.025 * 0.975 / num_seeds) ** 0.5
    assert estimate[:, 2].mean() >= 0.975 - 4 * (0.025 * 0.975 / num_seeds) ** 0.5


@pytest.mark.slow
def test_identical_agents_are_not_found_different():
    check_size(100)


@pytest.mark.slow
def test_identical_agents_are_not_found_different_over_many_seeds():
    check_size(1000)


@pytest.mark.slow
def test_intervals_hold_what_different_agents_do():
    rng = np.random.default_rng(7)
    estimate = scores(60, rng.uniform(0.5, 1.0, 20), rng.uniform(0.1, 0.6, 20))
    assert abs(estimate[:, 0].mean()) <= 4 / 60**0.5
    assert estimate[:, 1].mean() >= 0.975 - 4 * (0.025 * 0.975 / 60) ** 0.5
    assert estimate[:, 2].mean() >= 0.975 - 4 * (0.025 * 0.975 / 60) ** 0.5


def test_laws_that_read_the_step():
    """Drift pays 0.05 h: pooled over steps that is noise, step by step it is nothing."""
    game = Drift(np.full(8, 0.5), horizon=3)
    play = explore(game, None, 128, 0)
    by_step = symmetry_from_trajectories(play, num_states=3, num_actions=2, time_dependent=True)
    assert 0 <= by_step.beta.step < 3
    assert abs(by_step.beta.estimate) <= 4 * by_step.beta.standard_error + 1e-6
    assert by_step.moduli.L_s.value == pytest.approx(0.2, abs=0.02)


def test_errors_say_what_is_wrong():
    play = hand_made()
    sizes = {"num_states": 2, "num_actions": 1}
    for change, text in (
        ({"num_bins": 0}, "num_bins must be at least 1, not 0"),
        ({"min_visits": 1}, "min_visits must be at least 2, not 1"),
        ({"confidence": 1.0}, r"confidence must be in \(0, 1\), not 1.0"),
        ({"groups": np.zeros(2, int)}, r"groups must have one entry an agent, \[3\], not \[2\]"),
        ({"groups": np.array([0, 2, 2])}, "groups must use every number"),
        ({"num_states": 1}, r"states must lie in 0..0: 1"),
    ):
        with pytest.raises(ValueError, match=text):
            symmetry_from_trajectories(play, **{**sizes, **change})
    with pytest.raises(ValueError, match="number of trajectories must be at least 16, not 8"):
        symmetry_from_trajectories(hand_made(8), **sizes)
    with pytest.raises(ValueError, match="num_trajectories must be at least 16, not 4"):
        cn.symmetry(DriftSimulator(), num_trajectories=4)
    with pytest.raises(ValueError, match="not an empty sequence"):
        cn.symmetry(DriftSimulator(), policy=[])


class Nameless(cn.DynamicGame):
    """A simulator whose agents observe who knows what."""

    num_agents = 3
    num_actions = 2
    horizon = 2

    def reset(self, key):
        return jnp.zeros(3)

    def step(self, state, actions, key):
        return state, jnp.zeros(3)

    def observe(self, state):
        return state


def test_a_simulator_without_num_states():
    with pytest.raises(ValueError, match=r"game must have num_states.*Nameless has none"):
        cn.symmetry(Nameless())


def leaving_play(num_trajectories=600, horizon=4, *, chance=(0.2, 0.2, 0.6, 0.6)):
    """One state; action 1 ends agent i with its own chance, and pays 1. Zeros after that."""
    generator = np.random.default_rng(5)
    shape = (num_trajectories, horizon, len(chance))
    actions, rewards = np.zeros(shape, int), np.zeros(shape)
    alive = np.ones(shape, bool)
    for h in range(horizon):
        actions[:, h] = generator.integers(0, 2, shape[::2]) * alive[:, h]
        rewards[:, h] = actions[:, h]
        dies = (actions[:, h] == 1) & (generator.random(shape[::2]) < np.array(chance))
        if h + 1 < horizon:
            alive[:, h + 1] = alive[:, h] & ~dies
    return cn.MaskedTrajectories(np.zeros(shape, int), actions, rewards, alive)


def test_leaving_is_an_outcome_and_the_dead_are_left_out():
    """Leaving has mean chance 0.4 and no agent's is: alpha = |0.2 - 0.4| + |0.8 - 0.6| = 0.4."""
    played = leaving_play()
    sym = cn.symmetry_from_trajectories(played, num_states=1, num_actions=2, num_bins=1)
    assert abs(sym.alpha.estimate - 0.4) < 4 * sym.alpha.standard_error
    assert sym.alpha.action == 1
    assert sym.alpha.interval.lower > 0.25
    assert sym.visits.sum() == played.alive.sum() < played.alive.size
    alike = leaving_play(chance=(0.4, 0.4, 0.4, 0.4))
    none = cn.symmetry_from_trajectories(alike, num_states=1, num_actions=2, num_bins=1)
    assert none.alpha.interval.lower < 0.1
    # Without the mask the zeros of the dead would be play, and nobody would ever leave.
    blind = cn.Trajectories(*played)
    padded = cn.symmetry_from_trajectories(blind, num_states=1, num_actions=2, num_bins=1)
    assert padded.alpha.estimate < 0.1
    with pytest.raises(ValueError, match="trajectories must be of agents that are all alive"):
        cn.mean_field.estimate_mean_field_game(played, num_states=1, num_actions=2)
    wrong = cn.MaskedTrajectories(*played, alive=played.alive[:, :2])
    with pytest.raises(ValueError, match=r"trajectories.alive must be bool of shape \[600, 4, 4\]"):
        cn.symmetry_from_trajectories(wrong, num_states=1, num_actions=2)
