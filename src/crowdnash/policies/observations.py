"""Observations as input of a network: one float32 vector an agent, the step included.

Policies depend on the step (Def. 1), and with a finite horizon they must; so the step is always
among the features, whatever the game shows its agents.

Axes: N agents, H steps, S states, F features.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import observation_shapes


class ObservationFeatures(eqx.Module):
    """Turns one agent's observation and the step into F numbers.

    An integer observation of a game with `num_states` becomes a one-hot code of the state and one
    of the step: a network can then stand for any table. Other observations, any pytree of arrays,
    are flattened, bool and int included, and followed by h/H in [0,1).
    """

    num_features: int = eqx.field(static=True)
    num_states: int | None = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    @classmethod
    def of(cls, game: DynamicGame) -> "ObservationFeatures":
        """The features for the agents of `game`; its `observe` is traced, not run.

        Raises:
            ValueError: an array that `observe` gives has no leading axis N.
        """
        leaves = jax.tree.leaves(observation_shapes(game))
        for leaf in leaves:
            if leaf.shape[:1] != (game.num_agents,):
                raise ValueError(
                    f"{type(game).__name__}.observe must give arrays with leading axis "
                    f"N={game.num_agents}, not of shape {list(leaf.shape)}"
                )
        num_states = game.num_states
        if (
            num_states is not None
            and len(leaves) == 1
            and leaves[0].ndim == 1
            and jnp.issubdtype(leaves[0].dtype, jnp.integer)
        ):
            return cls(num_states + game.horizon, num_states, game.horizon)
        size = sum(leaf.size // game.num_agents for leaf in leaves)
        return cls(size + 1, None, game.horizon)

    def __call__(self, observation: PyTree, step: Int[Array, ""]) -> Float[Array, " F"]:
        """The features of one agent that sees `observation` at step h."""
        if self.num_states is not None:
            (state,) = jax.tree.leaves(observation)
            codes = (jax.nn.one_hot(state, self.num_states), jax.nn.one_hot(step, self.horizon))
            return jnp.concatenate(codes).astype(jnp.float32)
        parts = [jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(observation)]
        time = (step.astype(jnp.float32) / self.horizon)[None]
        return jnp.concatenate([*parts, time])

    def valid(self, features: Float[Array, "*lead F"]) -> Bool[Array, "*lead"]:
        """Whether these came from what the game may show: one of S states, or finite numbers."""
        if self.num_states is not None:
            return (features[..., : self.num_states] != 0).any(-1)
        return jnp.isfinite(features).all(-1)

    def of_all(self, observations: PyTree, step: Int[Array, ""]) -> Float[Array, "M N F"]:
        """The features of N agents in M joint states; all arrays of `observations` [M,N,...]."""
        return jax.vmap(jax.vmap(self, (0, None)), (0, None))(observations, step)
