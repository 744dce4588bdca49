"""Def. 1 and Def. 2 of tiny games by enumerating the joint chain, in plain NumPy float64.

A joint state z is a tuple of N states, a joint action u a tuple of N actions. Nothing here is
clever: everything is a loop over all z and u. The library is used for `game.law` only.

Axes: N agents, H steps, S states, A actions, D deterministic policies, Z = S^N joint states.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class TDFixedPoint:
    """What Algorithm 1 converges to for every group, each [G,H,S,A].

    `values` Q (0 where nobody observed ever comes), `visit_probability` that a trajectory updates
    the entry, `standard_error` a bound on the standard deviation of the learned value.
    """

    values: np.ndarray
    visit_probability: np.ndarray
    standard_error: np.ndarray


@dataclass(frozen=True)
class BruteForce:
    """One game and one policy profile `policy` [N,H,S,A].

    `move[h,i][z+u]` [S] and `pay[h,i][z+u]` are P^i and R^i of agent i at joint state z and joint
    action u, stored as arrays [H,N,S,..,S,A,..,A,(S)]; `initial` [N,S].
    """

    initial: np.ndarray
    move: np.ndarray
    pay: np.ndarray
    policy: np.ndarray

    @property
    def num_agents(self) -> int:
        return self.policy.shape[0]

    @property
    def horizon(self) -> int:
        return self.policy.shape[1]

    @property
    def num_states(self) -> int:
        return self.policy.shape[2]

    @property
    def num_actions(self) -> int:
        return self.policy.shape[3]

    @property
    def joint_states(self) -> list[tuple[int, ...]]:
        return list(itertools.product(range(self.num_states), repeat=self.num_agents))

    @property
    def joint_actions(self) -> list[tuple[int, ...]]:
        return list(itertools.product(range(self.num_actions), repeat=self.num_agents))

    def initial_joint(self) -> np.ndarray:
        """Probabilities of the joint states at step 0, [Z]: agents start independently."""
        everyone = np.arange(self.num_agents)
        return np.asarray([np.prod(self.initial[everyone, list(z)]) for z in self.joint_states])

    def action_probability(self, h: int, z: tuple, u: tuple, leave_out: int = -1) -> float:
        """Probability that all agents (but `leave_out`) play their part of u in z at step h."""
        others = [j for j in range(self.num_agents) if j != leave_out]
        return float(np.prod([self.policy[j, h, z[j], u[j]] for j in others]))

    def next_joint(self, h: int, z: tuple, u: tuple) -> np.ndarray:
        """Probabilities of the next joint state, [Z]: agents move independently given (z,u)."""
        joint = np.ones(1)
        for j in range(self.num_agents):
            joint = np.outer(joint, self.move[(h, j, *z, *u)]).reshape(-1)
        return joint

    @cached_property
    def occupancy(self) -> np.ndarray:
        """Probability of every joint state at every step under the profile, [H,Z]."""
        probability = self.initial_joint()
        steps = []
        for h in range(self.horizon):
            steps.append(probability)
            after = np.zeros_like(probability)
            for p, z in zip(probability, self.joint_states, strict=True):
                for u in self.joint_actions:
                    after += p * self.action_probability(h, z, u) * self.next_joint(h, z, u)
            probability = after
        return np.asarray(steps)

    @cached_property
    def value(self) -> np.ndarray:
        """J^i of the profile, [N]."""
        total = np.zeros(self.num_agents)
        for h in range(self.horizon):
            for p, z in zip(self.occupancy[h], self.joint_states, strict=True):
                for u in self.joint_actions:
                    total += (
                        p * self.action_probability(h, z, u) * self.pay[(h, slice(None), *z, *u)]
                    )
        return total

    def facing_others(self, agent: int) -> tuple[np.ndarray, np.ndarray]:
        """Joint law and reward when `agent` plays a and the others follow the profile.

        Returns [H,Z,A,Z] and [H,Z,A].
        """
        z_count = len(self.joint_states)
        law = np.zeros((self.horizon, z_count, self.num_actions, z_count))
        reward = np.zeros(law.shape[:3])
        for h in range(self.horizon):
            for k, z in enumerate(self.joint_states):
                for u in self.joint_actions:
                    p = self.action_probability(h, z, u, leave_out=agent)
                    law[h, k, u[agent]] += p * self.next_joint(h, z, u)
                    reward[h, k, u[agent]] += p * self.pay[(h, agent, *z, *u)]
        return law, reward

    def deviation_values(self, agent: int, policies: np.ndarray) -> np.ndarray:
        """J^i when `agent` plays each of the deterministic `policies` [D,H,S], others pi: [D]."""
        law, reward = self.facing_others(agent)
        own_state = np.asarray([z[agent] for z in self.joint_states])
        probability = np.tile(self.initial_joint(), (len(policies), 1))
        total = np.zeros(len(policies))
        for h in range(self.horizon):
            after = np.zeros_like(probability)
            for k in range(len(own_state)):
                action = policies[:, h, own_state[k]]
                total += probability[:, k] * reward[h, k, action]
                after += probability[:, k, None] * law[h, k, action]
            probability = after
        return total

    def best_response_value(self, agent: int) -> float:
        """max over all A^(S*H) deterministic policies of J^i (Def. 2)."""
        return float(self.deviation_values(agent, self.deterministic_policies()).max())

    def deterministic_policies(self) -> np.ndarray:
        """All of them, [D,H,S]."""
        entries = self.horizon * self.num_states
        every = itertools.product(range(self.num_actions), repeat=entries)
        return np.asarray(list(every)).reshape(-1, self.horizon, self.num_states)

    @cached_property
    def best_response_values(self) -> np.ndarray:
        """[N]."""
        return np.asarray([self.best_response_value(i) for i in range(self.num_agents)])

    @property
    def exploitability(self) -> np.ndarray:
        """E^i = max J^i(pi', pi^-i) - J^i(pi), [N] (Def. 2)."""
        return self.best_response_values - self.value

    def mean_model_best_response(self, agent: int) -> np.ndarray:
        """Best response to the agent's laws averaged over the others' play under pi, [H,S].

        The others' joint law at each step is that of undisturbed play of pi: the deviation that
        planning against frozen paths finds when it has infinitely many of them.
        """
        ahead = np.zeros(self.num_states)
        plan = np.zeros((self.horizon, self.num_states), int)
        for h in reversed(range(self.horizon)):
            action_values = np.zeros((self.num_states, self.num_actions))
            for p, z in zip(self.occupancy[h], self.joint_states, strict=True):
                for u in self.joint_actions:
                    weight = p * self.action_probability(h, z, u)
                    for s, a in np.ndindex(action_values.shape):
                        zs, us = list(z), list(u)
                        zs[agent], us[agent] = s, a
                        where = (h, agent, *zs, *us)
                        action_values[s, a] += weight * (self.pay[where] + self.move[where] @ ahead)
            plan[h] = action_values.argmax(-1)
            ahead = action_values.max(-1)
        return plan

    def td_fixed_point(
        self,
        groups: np.ndarray,
        observed: list[int],
        temperature: float,
        num_epochs: int,
        step_scale: Callable[[float], float],
    ) -> TDFixedPoint:
        """Fixed point of Algorithm 1 with the mean TD error over a trajectory's visitors.

        An epoch moves Q_h(s,a) of a group only if someone observed of the group visits (h,s,a),
        and then towards the mean over those visitors of r + Q_{h+1}(s',a') + tau H. The mean
        motion is therefore 0 where Q is the expectation of that mean *given that someone visits*.

        **The standard error.** With steps eta = c/n at the n-th visit, noise of variance v in the
        targets gives Var Q = v/n c^2/(2c-1); with steps scale/m at epoch m the same holds for
        c = scale * p and n = m * p (p the visit probability). An error of Q_{h+1} whose size at
        epoch j falls like j^-1/2 enters the target, and weights c j^(c-1) / n^c turn it into
        c/(c-1/2) times its last size; adding standard deviations allows for any correlation.
        `step_scale` maps p to c. The start Q = 0 enters with weight n^-c, c >= 2: nothing.
        """
        groups = np.asarray(groups)
        shape = (groups.max() + 1, self.horizon, self.num_states, self.num_actions)
        q, chance, error = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for h in reversed(range(self.horizon)):
            first, second, carried = np.zeros(shape), np.zeros(shape), np.zeros(shape)
            for p, z in zip(self.occupancy[h], self.joint_states, strict=True):
                for u in self.joint_actions:
                    p_here = p * self.action_probability(h, z, u)
                    for (g, s, a), visitors in _visitors(groups, observed, z, u).items():
                        mean, variance, ahead = self._mean_target(h, z, u, visitors, q[g], error[g])
                        chance[g, h, s, a] += p_here
                        first[g, h, s, a] += p_here * mean
                        second[g, h, s, a] += p_here * (mean**2 + variance)
                        carried[g, h, s, a] += p_here * ahead
            for g, s, a in np.argwhere(chance[:, h] > 0):
                at = (g, h, s, a)
                own = self.policy[groups == g][0, h, s]
                entropy = -sum(x * np.log(x) for x in own if x > 0)
                q[at] = first[at] / chance[at] + temperature * entropy
                noise = max(second[at] / chance[at] - (first[at] / chance[at]) ** 2, 0.0)
                c = step_scale(chance[at])
                error[at] = np.sqrt(c**2 / (2 * c - 1) * noise / (num_epochs * chance[at]))
                error[at] += c / (c - 0.5) * carried[at] / chance[at]
        return TDFixedPoint(q, chance, error)

    def _mean_target(
        self, h: int, z: tuple, u: tuple, visitors: list[int], q: np.ndarray, error: np.ndarray
    ) -> tuple[float, float, float]:
        """Mean and variance given (z,u) of the visitors' mean of r + Q'; mean error carried."""
        means, variances, carried = [], [], []
        for i in visitors:
            reward = self.pay[(h, i, *z, *u)]
            if h + 1 == self.horizon:
                means.append(reward)
                variances.append(0.0)
                carried.append(0.0)
                continue
            following = self.move[(h, i, *z, *u)][:, None] * self.policy[i, h + 1]  # [S,A]
            ahead = (following * q[h + 1]).sum()
            means.append(reward + ahead)
            variances.append((following * (q[h + 1] - ahead) ** 2).sum())
            carried.append((following * error[h + 1]).sum())
        count = len(visitors)
        return float(np.mean(means)), sum(variances) / count**2, float(np.mean(carried))


def _visitors(
    groups: np.ndarray, observed: list[int], z: tuple, u: tuple
) -> dict[tuple[int, int, int], list[int]]:
    """Observed agents by (group, state, action)."""
    found: dict[tuple[int, int, int], list[int]] = {}
    for i in observed:
        found.setdefault((int(groups[i]), z[i], u[i]), []).append(i)
    return found


def brute_force(game, policy) -> BruteForce:
    """Query all laws of a tiny `game`; `policy` has `.probs` [G,H,S,A] and `.groups` [N]."""
    n, num_s, num_a = game.num_agents, game.num_states, game.num_actions
    joint = np.asarray(list(itertools.product(*[range(num_s)] * n, *[range(num_a)] * n)))
    where = [(h, i) for h in range(game.horizon) for i in range(n)]
    step, agent = (np.repeat([w[k] for w in where], len(joint)).astype(np.int32) for k in range(2))
    joint = np.tile(joint, (len(where), 1)).astype(np.int32)
    states, actions = joint[:, :n], joint[:, n:]
    rows = np.arange(len(joint))
    others = np.asarray([[j for j in range(n) if j != i] for i in range(n)])[agent]
    law = jax.jit(jax.vmap(game.law))
    probs, reward = law(
        *(jnp.asarray(x) for x in (agent, states[rows, agent], actions[rows, agent])),
        *(jnp.asarray(x[rows[:, None], others]) for x in (states, actions)),
        jnp.asarray(step),
    )
    axes = (game.horizon, n, *[num_s] * n, *[num_a] * n)
    return BruteForce(
        initial=np.broadcast_to(np.asarray(game.initial_distribution, np.float64), (n, num_s)),
        move=np.asarray(probs, np.float64).reshape(*axes, num_s),
        pay=np.asarray(reward, np.float64).reshape(axes),
        policy=np.asarray(policy.probs, np.float64)[np.asarray(policy.groups)],
    )
