"""Learners and certificates on simulators outside JAX, against returns that are known by hand."""

import jax
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.certificates.outside_plan import plan_outside
from crowdnash.learners.mirror_outside import legal_pairs
from crowdnash.simulators.game import OutsideGame
from simulator_toys import (
    Cards,
    Doors,
    Drivers,
    Meeting,
    Mortals,
    Stairs,
    meeting_values,
    stairs_values,
    uniform,
)

KEY = jax.random.key(0)


def tables(**changes):
    settings = {
        "num_epochs": 40,
        "td_epochs": 8,
        "step_size": 1.0,
        "evaluation": "td",
        "groups": "symmetric",
    }
    return cn.PolicyMirrorDescent.practical(**(settings | changes))


@pytest.mark.parametrize("evaluation", [pytest.param("td", marks=pytest.mark.slow), "fitted"])
def test_agents_that_die_learn_to_live_until_the_last_step(evaluation):
    """6.5 is the best; taking the dead for alive, one learns to die at once and earns 1.5."""
    learner = tables(evaluation=evaluation, num_epochs=60, td_epochs=20)
    result = cn.solve(Mortals(), learner, key=KEY)
    assert result.history[-1].mean_return == pytest.approx(6.5, abs=0.01)
    dies = np.asarray(result.last_policy.probs)[0, :, 0, 1]
    assert (dies[:-1] < 0.01).all()
    assert dies[-1] > 0.99


@pytest.mark.parametrize("evaluation", ["td", "fitted"])
def test_illegal_actions_do_not_count_in_tables(evaluation):
    """The best earns .5 + 1; an illegal action raises in the simulator."""
    result = cn.solve(Doors(), tables(evaluation=evaluation), key=KEY)
    assert result.history[-1].mean_return == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize(
    "settings",
    [
        {"groups": "independent"},
        {"groups": 2},
        {"groups": "independent", "evaluation": "fitted"},
        {"evaluation": "fitted", "representation": "features", "features": "linear"},
        {"evaluation": "fitted", "representation": "mixed", "features": "linear"},
    ],
    ids=str,
)
def test_every_grouping_and_representation_learns_to_stay_apart(settings):
    """In zone 0 or 1, whoever moves pays .1: at the equilibrium both zones are about as full."""
    sim = Drivers(num_agents=10, horizon=3)
    result = cn.solve(sim, tables(num_epochs=15, step_size=0.3, **settings), key=KEY)
    before, after = (
        np.mean([m.mean_return for m in part]) for part in (result.history[:1], result.history[-5:])
    )
    assert after > before  # fewer moves that cost and bring nothing
    played = cn.simulate(sim, result.policy, key=KEY, num_trajectories=4)
    assert played.actions.mean() < 0.5


def test_a_run_goes_on_as_if_it_had_not_stopped():
    whole = cn.solve(Doors(), tables(num_epochs=6), key=KEY)
    half = cn.solve(Doors(), tables(num_epochs=3), key=KEY)
    rest = cn.solve(Doors(), tables(num_epochs=6), key=jax.random.key(9), state=half.state)
    np.testing.assert_array_equal(rest.last_policy.probs, whole.last_policy.probs)
    assert [m.mean_return for m in half.history + rest.history] == [
        m.mean_return for m in whole.history
    ]


def test_one_epoch_of_algorithm_1_is_that_of_the_formula():
    """Q of the first epoch, in a plain loop over the played trajectories."""
    sim, count = Drivers(num_agents=6, horizon=3), 4
    learner = cn.PolicyMirrorDescent(
        num_epochs=1, td_epochs=count, temperature=0.0, step_size=1.0, mixing=False,
        td_step_size="visits",
    )  # fmt: skip
    result = cn.solve(sim, learner, key=KEY)
    played = cn.simulate(sim, uniform(sim), key=jax.random.fold_in(KEY, 0), num_trajectories=count)
    values, visits = np.zeros((4, 2, 2)), np.zeros((3, 2, 2))
    for m in range(count):
        old = values.copy()
        for h, s, a in np.ndindex(3, 2, 2):
            here = (played.states[m, h] == s) & (played.actions[m, h] == a)
            if not here.any():
                continue
            ahead = 0.0
            if h < 2:
                ahead = old[h + 1, played.states[m, h + 1], played.actions[m, h + 1]][here]
            target = np.mean(played.rewards[m, h][here] + ahead)
            eta = 2 / (2 + visits[h, s, a])
            values[h, s, a] += eta * (target - old[h, s, a])
            visits[h, s, a] += 1
    weight = np.exp(values[:3])
    expected = weight / weight.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.asarray(result.last_policy.probs[0]), expected, atol=1e-5)


def test_which_pairs_were_seen_to_be_legal():
    played = cn.simulate(Doors(), uniform(Doors()), key=KEY, num_trajectories=2)
    expected = np.array([[True, True, False], [True, False, True]])
    np.testing.assert_array_equal(legal_pairs(played, 2), np.stack([expected, expected]))
    # A state where nobody came limits nothing.
    np.testing.assert_array_equal(legal_pairs(played, 3)[:, 2], True)


PPO = {"num_epochs": 25, "num_trajectories": 10, "learning_rate": 1e-2, "hidden_sizes": (16,)}


@pytest.mark.slow
def test_networks_learn_from_agents_that_die():
    result = cn.solve(Mortals(), cn.PPO(**PPO, minibatch_size=150), key=KEY)
    assert result.history[-1].mean_return > 6.45


@pytest.mark.slow
def test_networks_keep_the_best_card_and_play_none_twice():
    """Uniform play earns 1, the best 2."""
    result = cn.solve(Cards(), cn.PPO(**PPO, minibatch_size=60), key=KEY)
    assert result.history[0].mean_return == pytest.approx(1, abs=0.35)
    assert result.history[-1].mean_return > 1.9
    played = cn.simulate(Cards(), result.policy, key=KEY, num_trajectories=20)
    assert played.rewards.sum(1).mean() > 1.9


@pytest.mark.slow
def test_own_networks_leave_out_the_samples_of_the_dead():
    result = cn.solve(
        Mortals(), cn.PPO(**(PPO | {"num_epochs": 2}), identity="independent"), key=KEY
    )
    assert all(np.isfinite(m.value_loss) for m in result.history)


@pytest.mark.slow
def test_what_single_agents_gain_is_learned_within_a_budget():
    """Uniform play dies at a coin's throw: it earns 1.25 (1 + 1/2 + ... + 1/32) = 2.461 of 6.5."""
    calls = []

    class Counted(Mortals):
        def step(self, actions):
            calls.append(0)
            return super().step(actions)

    e = cn.exploitability(Counted(), uniform(Mortals()), key=KEY, agents=[3], budget_steps=5000)
    assert len(calls) <= 5000
    assert e.method == "learned"
    gain = 6.5 - 1.25 * (2 - 1 / 32)
    assert abs(e.lower[0] - gain) < 4 * e.standard_error[0]  # nothing is better than this
    assert 0.9 * gain < e.maximum.lower <= gain
    assert np.isinf(e.maximum.upper)
    assert abs(e.value.mean() - (6.5 - gain)) < 4 * e.standard_error.max()


class NarrowStairs(Stairs):
    """With a third action that nobody has."""

    num_actions = 3

    def legal(self):
        return np.tile([True, True, False], (self.num_agents, 1))

    def step(self, actions):
        assert actions.max() < 2
        return (*super().step(actions)[:3], self.legal())


def resting(sim):
    """Nobody ever climbs."""
    probs = np.zeros((sim.horizon, sim.num_states, sim.num_actions))
    probs[..., 0] = 1
    return cn.TabularPolicy.symmetric(probs, sim.num_agents)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("stairs", "budget", "share"),
    [
        (NarrowStairs, 4000, 0.8),
        pytest.param(Stairs, 20_000, 0.9, marks=SLOW),
        pytest.param(NarrowStairs, 20_000, 0.9, marks=SLOW),
    ],
)
def test_tables_of_deviations_come_close_to_the_best_response(stairs, budget, share):
    """On stairs with noise and others that are not seen, beside the induction.

    Of few plays most of what is missing is the error of the mean.
    """
    sim = stairs()
    policy = resting(sim)
    earned, best, _ = stairs_values(np.asarray(policy.probs)[0, ..., :2])
    gain = best - earned
    assert gain > 1
    e = cn.exploitability(sim, policy, key=KEY, agents=[5], budget_steps=budget)
    assert share * gain < e.maximum.lower < gain
    assert abs(e.lower[0] - gain) < 0.02 * gain + 4 * e.standard_error[0]


@pytest.mark.slow
def test_a_table_of_eight_thousand_entries_is_learned_too():
    """Twenty steps, a hundred places, four directions: a network needs several times the steps."""
    earned, best = meeting_values()
    e = cn.exploitability(Meeting(), uniform(Meeting()), key=KEY, agents=[1], budget_steps=100_000)
    assert 0.9 * (best - earned) < e.maximum.lower < best - earned
    assert abs(e.lower[0] - (best - earned)) < 0.05 * (best - earned) + 4 * e.standard_error[0]


def climbing(sim):
    """The best response of everybody, whatever the others do."""
    plan = stairs_values(np.full((5, 5, 2), 0.5))[2]
    return cn.TabularPolicy.symmetric(np.eye(2)[plan], sim.num_agents)


def test_nothing_is_gained_over_the_best_response():
    sim = Stairs()
    e = cn.exploitability(sim, climbing(sim), key=KEY, agents=[0, 3], budget_steps=1000)
    assert (e.lower <= 4 * e.standard_error).all()
    assert 0 <= e.maximum.lower < 0.1
    assert 0 <= e.mean.lower < 0.1


@pytest.mark.slow
def test_measured_gains_stay_as_they_are_where_intervals_know_better():
    """Networks that hardly learned lose; keeping to the policy gains 0."""
    sim, bad = Stairs(), {"num_epochs": 1, "num_trajectories": 1, "minibatch_size": 5}
    learner = cn.PPO(**bad, hidden_sizes=(4,))
    e = cn.exploitability(
        sim, climbing(sim), key=KEY, agents=[0, 3], learner=learner, num_trajectories=30
    )
    assert e.lower.max() < 0
    assert e.maximum.lower == e.mean.lower == 0
    assert "no deviation that was learned is certain to gain anything" in e.statement


@pytest.mark.slow
def test_what_a_certificate_costs_is_said_before_it_begins():
    """Against a count of the simulator's own steps; one is played to see what it is."""
    calls, told = [], []

    class Counted(Drivers):
        def step(self, actions):
            calls.append(0)
            return super().step(actions)

    def note(progress):
        told.append((*progress, len(calls)))

    sim = Counted(num_agents=4, horizon=3)
    policy = uniform(sim)
    arguments = {"key": KEY, "agents": [0, 2], "budget_steps": 150}
    cn.exploitability(sim, policy, **arguments, callback=note)
    before = told[0][2]
    assert told[0][:2] == (0, told[-1][1])
    assert told[-1][0] == told[-1][1] <= 150
    assert [steps for steps, *_ in told] == [played - before for *_, played in told]
    assert len(told) > 5

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cn.exploitability(sim, policy, **arguments, callback=stop)
    assert len(calls) <= told[-1][2] + 1  # nothing was played but what tells its form
    tables = cn.games.SIS.sample(KEY, num_agents=3, horizon=2)
    with pytest.raises(ValueError, match="callback is for method='learned', not for 'enumerate'"):
        cn.exploitability(
            tables, uniform(tables), key=KEY, method="enumerate", callback=told.append
        )
    with pytest.raises(ValueError, match="callback is for deviations that a PPO learns"):
        cn.exploitability(
            tables, uniform(tables), key=KEY, method="learned", learner=cn.OptimisticQLearning(),
            callback=told.append,
        )  # fmt: skip


@pytest.mark.slow
def test_a_budget_that_is_too_small_says_what_would_do():
    with pytest.raises(ValueError, match="budget_steps must be at least") as raised:
        cn.exploitability(Mortals(), uniform(Mortals()), key=KEY, agents=[0], budget_steps=10)
    least = int(str(raised.value).split("at least ")[1].split()[0])
    calls = []

    class Counted(Mortals):
        def step(self, actions):
            calls.append(0)
            return super().step(actions)

    cn.exploitability(Counted(), uniform(Mortals()), key=KEY, agents=[0], budget_steps=least)
    assert 0 < len(calls) <= least
    with pytest.raises(ValueError, match="budget_steps sets the learner's settings"):
        cn.exploitability(
            Mortals(), uniform(Mortals()), key=KEY, budget_steps=100, learner=cn.PPO()
        )
    q_learning = cn.OptimisticQLearning()
    with pytest.raises(ValueError, match="budget_steps sets the learner's settings"):
        cn.exploitability(
            Mortals(), uniform(Mortals()), key=KEY, budget_steps=100, learner=q_learning
        )


@pytest.mark.parametrize("num_episodes", [450, pytest.param(3000, marks=SLOW)])
def test_q_learning_finds_best_responses_outside_jax(num_episodes):
    """Beside the induction; with an action that nobody has, and a last round that is not full."""
    sim, told = NarrowStairs(), []
    policy = resting(sim)
    earned, best, _ = stairs_values(np.asarray(policy.probs)[0, ..., :2])
    learner = cn.OptimisticQLearning(num_episodes=num_episodes)
    e = cn.exploitability(
        sim, policy, key=KEY, agents=[5], learner=learner, num_trajectories=60, callback=told.append
    )
    assert abs(e.lower[0] - (best - earned)) < 0.05 * (best - earned) + 4 * e.standard_error[0]
    assert e.maximum.lower > 0.7 * (best - earned)
    # To learn; then nobody deviates and the agent does, to choose and to measure.
    assert told[-1] == (told[-1].total_steps,) * 2
    assert told[-1].steps == 5 * (num_episodes + 4 * 60)


def test_q_learning_outside_jax_knows_who_is_out():
    """Dying at the last step earns 6.5, at once 1.5."""
    sim = Mortals()
    learner = cn.OptimisticQLearning(num_episodes=300, batch_size=20)
    e = cn.exploitability(
        sim, uniform(sim), key=KEY, agents=[3], learner=learner, num_trajectories=40
    )
    gain = 6.5 - 1.25 * (2 - 1 / 32)
    assert abs(e.lower[0] - gain) < 4 * e.standard_error[0]
    cards = OutsideGame(Cards())
    with pytest.raises(ValueError, match="must have num_states for tables"):
        plan_outside(cards, uniform(sim), 1, 40, learner, None)
