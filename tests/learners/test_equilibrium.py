"""How close learners come to equilibrium on A-SIS, judged by a simulator and a dynamic program in
plain NumPy that share no code with the library.

Axes: K paths, N agents, H steps, S = (I,H) states, A = (D,U) actions.
"""

import jax
import numpy as np
import pytest

import crowdnash as cn


class NumpySIS:
    """A-SIS once more: its play, and what deviations gain against frozen paths."""

    def __init__(self, game):
        self.alpha, self.recovery, self.cost = (np.asarray(x, np.float64) for x in game.agents)
        self.num_agents, self.horizon = game.num_agents, game.horizon

    def contacts(self, probs, num_paths, rng):
        """The share of others who are infected and go out, as each agent meets it: [K,H,N]."""
        everyone = np.arange(self.num_agents)
        met = np.empty((num_paths, self.horizon, self.num_agents))
        state = rng.integers(0, 2, (num_paths, self.num_agents))  # half are infected
        for step in range(self.horizon):
            out = rng.random(state.shape) < probs[everyone, step, state, 1]
            spreads = ((state == 0) & out).astype(float)
            met[:, step] = (spreads.sum(1, keepdims=True) - spreads) / (self.num_agents - 1)
            falls_ill = out & (rng.random(state.shape) < self.alpha * met[:, step])
            recovers = rng.random(state.shape) < self.recovery
            state = np.where(state == 0, recovers, ~falls_ill).astype(int)
        return met

    def q_values(self, after, contact):
        """Q [2,2,N] of one step, from the values [2,N] after it."""
        ill, well = after
        in_bed = -1 + self.recovery * well + (1 - self.recovery) * ill
        infection = self.alpha * contact
        go_out = infection * ill + (1 - infection) * well
        return np.stack([[in_bed - self.cost, in_bed], [well - self.cost, go_out]])

    def best_response(self, contact):
        """The best actions [H,2,N] against one path of contacts [H,N]."""
        after, best = np.zeros((2, self.num_agents)), []
        for step in reversed(range(self.horizon)):
            q = self.q_values(after, contact[step])
            best.append(q.argmax(1))
            after = q.max(1)
        return np.array(best[::-1])

    def values(self, probs, contact):
        """The value [N] of a policy [N,H,2,2] against one path of contacts."""
        after = np.zeros((2, self.num_agents))
        for step in reversed(range(self.horizon)):
            q = self.q_values(after, contact[step])
            after = np.einsum("nsa,san->sn", probs[:, step], q)
        return after.mean(0)

    def gains(self, probs, num_paths, seed):
        """What each agent gains by its best response to planning paths, on fresh ones: [K,N]."""
        rng = np.random.default_rng(seed)
        best = self.best_response(self.contacts(probs, num_paths, rng).mean(0))
        deviation = np.moveaxis(np.eye(2)[best], 2, 0)
        return np.array(
            [
                self.values(deviation, contact) - self.values(probs, contact)
                for contact in self.contacts(probs, num_paths, rng)
            ]
        )


def tables(policy, num_agents):
    """The policy of every agent, [N,H,S,A]."""
    policy = policy.tabular() if isinstance(policy, cn.FeaturePolicy) else policy
    probs = np.asarray(policy.probs, np.float64)
    return probs[np.asarray(policy.groups)] if len(probs) < num_agents else probs


def lower_end(values):
    """Of the mean over paths."""
    return values.mean(0) - 1.96 * values.std(0, ddof=1) / np.sqrt(len(values))


@pytest.mark.slow
def test_the_certificate_says_the_same():
    game = cn.games.SIS.sample(jax.random.key(3), num_agents=60, horizon=6, heterogeneity=0.1)
    learner = cn.PolicyMirrorDescent.practical(num_epochs=40, td_epochs=10)
    policy = cn.solve(game, learner, key=jax.random.key(0)).policy
    e = cn.exploitability(game, policy, key=jax.random.key(1), method="paths")
    judged = NumpySIS(game).gains(tables(policy, 60), 256, seed=0)
    error = judged.std(0, ddof=1) / 16
    allowed = 4.5 * np.hypot(error, e.standard_error) + 2e-3
    assert (np.abs(judged.mean(0) - e.lower) < allowed).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "largest", "mean"),
    [
        ({}, 0.04, 0.006),
        ({"step_size": 1.0}, 0.04, 0.006),
        ({"step_size": 0.3}, 0.07, 0.02),
        ({"representation": "features"}, 0.1, 0.013),
        ({"groups": "independent", "td_epochs": 100, "step_size": 0.3}, 0.08, 0.025),
    ],
)
def test_a_thousand_different_agents(settings, largest, mean):
    game = cn.games.SIS.sample(jax.random.key(0), num_agents=1000, horizon=20, heterogeneity=0.1)
    learner = cn.PolicyMirrorDescent.practical(num_epochs=300, temperature=0.01, **settings)
    policy = cn.solve(game, learner, key=jax.random.key(1)).policy
    gains = NumpySIS(game).gains(tables(policy, 1000), 60, seed=2)
    # Lower ends at 95%, as the certificate's.
    assert lower_end(gains).max() < largest
    assert lower_end(gains.mean(1)) < mean
