"""Step sizes of temporal-difference learning (Algorithm 1, Theorem 2).

Axes: G groups.
"""

from typing import Literal, get_args

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from crowdnash.checks import check_choice, check_number

TDStep = Literal["adaptive", "horizon-visits", "visits", "theorem"]
"""Step-size rules eta; see `StepRule.named`."""

Weighting = Literal["trajectories", "visitors"]
"""How much the trajectories of one group weigh; see `StepRule.named`."""


class StepRule(eqx.Module):
    """eta = c w / (c w + k): w is the weight of a trajectory, k that of the earlier ones.

    `scale` c and `sizes`, the number of agents in each group, may differ from group to group.
    """

    scale: Float[Array, " G"]
    sizes: Float[Array, " G"]
    by_visits: Bool[Array, ""]
    by_visitors: Bool[Array, ""]

    @classmethod
    def named(
        cls,
        name: TDStep,
        horizon: int,
        group_sizes: Int[np.ndarray, " G"],
        delta: float = 1.0,
        weighting: Weighting = "trajectories",
    ) -> "StepRule":
        """One of the rules of the paper and its mended forms.

        - "adaptive": c = 1 + min(H, number of agents in the group): "visits" for one agent alone,
          whose noise must be averaged out, "horizon-visits" for many, whose mean has little noise
          and should travel fast.
        - "horizon-visits": c = H + 1. Carries values through H steps fastest.
        - "visits": c = 2.
        - "theorem": c = 2/delta and k the number of earlier trajectories (Theorem 2); delta in
          (0,1] is the smallest positive probability with which agent 1 visits any (h,s,a).

        Args:
            name: the rule; in all but "theorem" k is the sum of the weights w of the earlier
                trajectories.
            horizon: H.
            group_sizes: number of agents in each group that are learned from.
            delta: see "theorem".
            weighting: "trajectories": w = 1 for a trajectory in which anyone of the group visited
                (h,s,a) (the paper's Algorithm 1, which lets a lone visitor move the table as much
                as a crowd); "visitors": w is the share of the group that visited.

        Raises:
            ValueError: another name or weighting, or delta outside (0,1].
        """
        check_choice("td_step_size", name, get_args(TDStep))
        check_choice("weighting", weighting, get_args(Weighting))
        check_number("delta", delta, above=0, most=1)
        sizes = np.asarray(group_sizes)
        scale = {
            "adaptive": 1.0 + np.minimum(horizon, sizes),
            "horizon-visits": np.full(sizes.shape, horizon + 1.0),
            "visits": np.full(sizes.shape, 2.0),
            "theorem": np.full(sizes.shape, 2.0 / delta),
        }[name]
        return cls(
            jnp.asarray(scale, jnp.float32),
            jnp.asarray(np.maximum(sizes, 1), jnp.float32),
            jnp.asarray(name != "theorem"),
            jnp.asarray(weighting == "visitors"),
        )

    def weight(self, visitors: Float[Array, "..."]) -> Float[Array, "..."]:
        """w of a trajectory that so many agents of the group visited."""
        return jnp.where(self.by_visitors, visitors / self.sizes, visitors > 0)

    def step_size(
        self, weight: Float[Array, "..."], earlier: Float[Array, "..."], epoch: Int[Array, "..."]
    ) -> Float[Array, "..."]:
        """eta of a trajectory, after `epoch` ones whose weights sum to `earlier`; 0 if w is 0."""
        earlier = jnp.where(self.by_visits, earlier, epoch.astype(jnp.float32))
        share = self.scale * weight
        return jnp.where(weight > 0, share / (share + earlier), 0.0)
