"""Games and policies in float64, for what is computed exactly."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def as_double(tree: Any) -> Any:
    """All floating arrays as float64; only inside `jax.enable_x64(True)`."""

    def cast(leaf: Any) -> Any:
        array = isinstance(leaf, np.ndarray | np.generic | jax.Array)
        floating = array and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(np.asarray(leaf), jnp.float64) if floating else leaf

    return jax.tree_util.tree_map(cast, tree)
