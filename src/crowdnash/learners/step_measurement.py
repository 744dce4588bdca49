"""What the automatic step is measured on, of each kind of learner: see `automatic_step`.

Axes: K groups or features, G groups or agents, H steps, S states, A actions, N agents, d features.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from crowdnash.learners.automatic_step import AutomaticStep, variation_of
from crowdnash.learners.mirror_state import MirrorDescentState
from crowdnash.simulation.devices import Devices


def measure(
    state: MirrorDescentState,
    values: Float[Array, "..."],
    visits: Float[Array, "G H S A"],
    temperature: Float[Array, ""],
    devices: Devices,
) -> AutomaticStep:
    """The step after this epoch's values, Q by group or, for "features", its weights."""
    assert state.automatic is not None
    assert state.before is not None
    modes, weight = _by_mode(state, values, devices), _weight(state, visits, devices)
    of_modes = variation_of(modes, _by_mode(state, state.before, devices), weight)
    of_tables = of_modes
    if state.weights is None:
        of_tables = _variation(values, state.before, visits, devices)
    variation = jnp.stack([of_tables, of_modes])
    return state.automatic.measured(state.epoch, modes, weight, temperature, variation)


def record_move(
    step: AutomaticStep, state: MirrorDescentState, after: MirrorDescentState, devices: Devices
) -> AutomaticStep:
    """The measurement, with what the mirror step changed log pi by."""
    move = after.scores - state.scores
    if state.legal is not None and state.weights is None:
        move = jnp.where(state.legal, move, 0.0)  # of an illegal action both are -inf
    return step.moved(_by_mode(state, move, devices))


def num_modes(features: Any, num_groups: int, num_agents: int) -> int:
    """Over how many features or groups the automatic step is measured.

    Over the features, else over the groups; where every agent is a group, over their mean.
    """
    if features is not None:
        return features.shape[-1]
    return num_groups if num_groups < num_agents else 1


def _by_mode(
    state: MirrorDescentState, x: Float[Array, "..."], devices: Devices
) -> Float[Array, "K H S A"]:
    """Tables by group, or weights, [H,S,A,d], as the automatic step takes them."""
    if state.weights is not None:
        return jnp.moveaxis(x, -1, 0)
    if state.features is not None:
        form = "nd,nhsa->dhsa" if state.features.ndim == 2 else "hnd,nhsa->dhsa"
        sums = jnp.einsum(form, state.features, x) / x.shape[0]
        return devices.mean_over_tables(sums)
    if x.shape[0] < state.groups.shape[0]:
        return x
    return devices.mean_over_tables(x.mean(0, keepdims=True))


def _weight(
    state: MirrorDescentState, visits: Float[Array, "G H S A"], devices: Devices
) -> Float[Array, "#K H S A"]:
    """Shares of visits, summing to 1 at every step."""
    if state.features is not None or visits.shape[0] == state.groups.shape[0]:
        visits = devices.sum_over_tables(visits.sum(0, keepdims=True))
    return visits / jnp.maximum(visits.sum((0, 2, 3), keepdims=True), 1)


def _variation(
    values: Float[Array, "G H S A"],
    before: Float[Array, "G H S A"],
    visits: Float[Array, "G H S A"],
    devices: Devices,
) -> Float[Array, ""]:
    """What the values of all tables changed by since the epoch before."""
    total = devices.sum_over_tables(visits.sum((0, 2, 3)))
    weight = visits / jnp.maximum(total, 1)[:, None, None]
    return devices.sum_over_tables(variation_of(values, before, weight))
