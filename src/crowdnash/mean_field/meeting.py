"""Whom the agents of each group meet: shares meeting[g,k] of the populations.

Axes: G groups, X = S*A pairs, N agents.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class OthersOfGroups(eqx.Module):
    """Everybody meets all others: meeting[g,k] = (N_k - 1[k=g]) / (N-1).

    What is met is the total less one's own part, so that neither time nor memory grow with G^2:
    with one population an agent the matrix itself would have N^2 entries.

    Args:
        sizes: how many agents each group has, N_g >= 1, N >= 2 together.
    """

    sizes: Float[Array | np.ndarray, " G"]

    @property
    def matrix(self) -> Float[np.ndarray, "G G"]:
        """meeting[g,k], written out."""
        sizes = np.asarray(self.sizes)
        return (sizes - np.eye(len(sizes))) / (sizes.sum() - 1)

    def __matmul__(self, mu: Float[Array, "G X"]) -> Float[Array, "G X"]:
        """sigma_g = sum_k meeting[g,k] mu_k = (sum_k N_k mu_k - mu_g) / (N-1)."""
        sizes = jnp.asarray(self.sizes, mu.dtype)
        others = (sizes @ mu - mu) / (sizes.sum() - 1)
        # Rounding may leave less than nothing of a pair that only one group is in.
        return jnp.where(others < 0, jnp.zeros_like(others), others)


Meeting = Any
"""`OthersOfGroups`, or shares [G,G] whose rows sum to 1; `meeting @ mu` is what is met."""
