"""A two-step game whose mean-field equilibrium is only 1/sqrt(N) good, Theorem 1's very rate."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float

from crowdnash.approximate_symmetry.moduli import LipschitzModuli
from crowdnash.games.base import PopulationGame


class KinkAgent(NamedTuple):
    """All agents are alike: `gain` [N] multiplies the kink."""

    gain: Array


class KinkGame(PopulationGame):
    """Two states, two actions, two steps; R = 1[s = 1] and

    P(1|s,0,mu) = 1/2,  P(1|s,1,mu) = 1/2 + |mu(s=0) - 1/2|.

    The initial distribution is uniform, so in the mean-field game mu(s=0) = 1/2 and action 1 is
    worth nothing: "always 0" is an exact MFG-NE. Among N agents the empirical share of state 0
    misses 1/2 by about 0.4/sqrt(N), which is what action 1 gains: `exploitability`, exactly. The
    game shows that Theorem 1's rate is reached, and that the constants printed in the paper are too
    small for it.

    Args:
        num_agents: N >= 2.
    """

    name: ClassVar[str] = "kink"
    summary: ClassVar[str] = "Two-step game with a kink, which meets Theorem 1's rate"
    transition_in_aggregate = "nonlinear"
    reward_in_aggregate = "free"

    gain: Float[Array, " N"]
    initial_distribution: Float[Array, " 2"]
    horizon: int = eqx.field(static=True)
    num_states: ClassVar[int] = 2
    num_actions: ClassVar[int] = 2

    def __init__(self, num_agents: int):
        self.gain = jnp.ones(num_agents, jnp.float32)
        self.initial_distribution = jnp.full(2, 0.5, jnp.float32)
        self.horizon = 2

    @property
    def agents(self) -> KinkAgent:
        """The per-agent parameters."""
        return KinkAgent(self.gain)

    @property
    def reward_range(self) -> tuple[float, float]:
        """Both hold."""
        return 0.0, 1.0

    def transition(
        self, agent: Any, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.transition`; `aggregate` is sigma(rho^-i), [4]."""
        miss = jnp.abs(aggregate[0] + aggregate[1] - 0.5)
        up = 0.5 + jnp.where(action == 1, agent.gain * miss, 0.0)
        return jnp.stack([1.0 - up, up])

    def reward(
        self, agent: Any, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.reward`."""
        return jnp.where(state == 1, 1.0, 0.0)

    @property
    def equilibrium(self) -> Float[np.ndarray, "2 2 2"]:
        """The exact MFG-NE "always 0", [H,S,A]."""
        probs = np.zeros((2, 2, 2))
        probs[..., 0] = 1.0
        return probs

    @property
    def moduli(self) -> LipschitzModuli:
        """Lipschitz moduli of the induced game, worked out by hand.

        mu(s=0) moves by at most half of mu's L1 distance, and P(.|s,1) by twice that.
        """
        return LipschitzModuli(
            K_s=0.0,
            K_a=1.0,
            K_mu=1.0,
            L_s=1.0,
            L_a=0.0,
            L_mu=0.0,
            transition_spread=0.5,
            reward_spread=0.5,
            exact=True,
        )

    @property
    def exploitability(self) -> float:
        """Of `equilibrium` among N agents: E|K/(N-1) - 1/2|, K binomial (N-1, 1/2).

        Only the first move counts, and it meets the others' initial states.
        """
        others = self.num_agents - 1
        counts = np.arange(others + 1)
        weights = scipy.stats.binom.pmf(counts, others, 0.5)
        return float(weights @ np.abs(counts / others - 0.5))
