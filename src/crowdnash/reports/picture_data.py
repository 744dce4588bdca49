"""What pictures and charts show of large arrays: quantiles of gains, layers of population shares.

Axes: H steps, S states, A actions, n agents, L layers, Q quantiles.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.colors import to_rgb

from crowdnash.reports.style import BLUE, CYAN, GREEN, PURPLE, RED, YELLOW

_STATE_COLOURS = (BLUE, RED, GREEN, YELLOW, PURPLE, CYAN)
_MAX_PAIRS = 12
_MAX_QUANTILES = 400


def gain_quantiles(
    lower: Float[np.ndarray, " n"], upper: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]:
    """Return shares of the agents, Q of them, and the quantiles of both ends of the gains there.

    At most 401, so that a million agents make no larger picture than a thousand.
    """
    shares = np.linspace(0.0, 1.0, min(len(lower), _MAX_QUANTILES) + 1)
    return shares, np.quantile(lower, shares), np.quantile(upper, shares)


class FlowLayers(NamedTuple):
    """Layers of `population_flow`: shares [L,H] by policy, and a label and a colour a layer."""

    shares: dict[str, Float[np.ndarray, "L H"]]
    labels: list[str]
    colours: list[tuple[float, float, float]]


def flow_layers(
    flows: Mapping[str, Float[np.ndarray, "H S A"]],
    state_names: Sequence[str],
    action_names: Sequence[str],
) -> FlowLayers:
    """Return what to stack: the most visited state-action pairs, and all others in one layer."""
    num_states, num_actions = next(iter(flows.values())).shape[1:]
    visits = np.sum([flow.sum(0) for flow in flows.values()], axis=0).ravel()
    pairs = sorted(int(p) for p in np.argsort(-visits, kind="stable")[:_MAX_PAIRS])
    labels = [f"{state_names[p // num_actions]}, {action_names[p % num_actions]}" for p in pairs]
    colours = [_pair_colour(p // num_actions, p % num_actions, num_actions) for p in pairs]
    shares = {name: flow.reshape(len(flow), -1)[:, pairs].T for name, flow in flows.items()}
    if len(pairs) < num_states * num_actions:
        labels.append("all others")
        colours.append(to_rgb("#D9D9D9"))
        for name, part in shares.items():
            rest = np.clip(1.0 - part.sum(0, keepdims=True), 0.0, 1.0)
            shares[name] = np.concatenate([part, rest])
    return FlowLayers(shares, labels, colours)


def _pair_colour(state: int, action: int, num_actions: int) -> tuple[float, float, float]:
    hue, lightness, saturation = colorsys.rgb_to_hls(
        *to_rgb(_STATE_COLOURS[state % len(_STATE_COLOURS)])
    )
    # The state decides the colour, the action how light it is.
    share = action / (num_actions - 1) if num_actions > 1 else 0.0
    return colorsys.hls_to_rgb(hue, lightness + share * (0.85 - lightness), saturation)
