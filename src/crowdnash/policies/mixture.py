"""A mixture of policies: every agent draws one at the start of an episode and keeps to it.

Axes: M policies.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from crowdnash.checks import as_array, check_instance
from crowdnash.games.base import is_distribution
from crowdnash.policies.base import Policy


class PolicyMixture(eqx.Module):
    """Policies of which every agent draws its own at the start, independently of the others.

    What fictitious play calls its average (Perrin et al. 2020): not a `Policy`, which has no
    memory (Def. 1), and not Algorithm 2's average, which is the table of mean probabilities.

    Args:
        policies: M >= 1 policies of the same agents.
        weights: With which probability each is drawn, default all alike.

    Raises:
        ValueError: There are no policies, or the weights are no M probabilities that sum to 1.
    """

    policies: tuple[Policy, ...]
    weights: Float[Array, " M"]

    def __init__(self, policies: Sequence[Policy], weights: Any = None):
        self.policies = tuple(policies)
        if not self.policies:
            raise ValueError("policies must hold at least one policy, not none")
        for policy in self.policies:
            check_instance("policies", policy, Policy)
        count = len(self.policies)
        shares = np.full(count, 1 / count) if weights is None else as_array("weights", weights)
        if shares.shape != (count,) or not is_distribution(np.asarray(shares, np.float64)):
            raise ValueError(
                f"weights must be {count} probabilities that sum to 1, not {np.asarray(shares)}"
            )
        self.weights = jnp.asarray(shares, jnp.float32)
