"""The charts of a run, from arrays: what each shows, its axes and its colours.

Axes: G groups, H steps, S states, A actions, E epochs, n agents, L layers, Q quantiles.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.colors import to_hex, to_rgb

from crowdnash.certificates.by_label import LabelGains
from crowdnash.interval import Interval
from crowdnash.reports.chart import COLOURS as LINE_COLOURS
from crowdnash.reports.chart import DASHES, Axis, Chart, HeatMap, Marker, Panels, Series
from crowdnash.reports.style import COLOURS

_REWARD = "total reward"
_STATE_COLOURS = ("blue", "red", "green", "yellow", "purple", "cyan")
_FAR_ABOVE = 5.0
_MAX_NUMBERS = 60_000
_MAX_PAIRS = 12
_MAX_QUANTILES = 400
_MAX_STATES = 12
_MAX_LABELS = 12


def exploitability_over_epochs(
    epochs: Int[np.ndarray, " E"],
    maximum: Float[np.ndarray, "E 2"],
    mean: Float[np.ndarray, "E 2"],
    uniform: Mapping[str, Interval] | None,
    title: str,
) -> Panels:
    """The largest and the mean exploitability with their intervals over the epochs.

    Where the uniform policy's values are far above, the axis is logarithmic.

    Args:
        epochs: the epochs that were certified.
        maximum: lower and upper end for the largest exploitability, reward units.
        mean: the same for the mean over the agents.
        uniform: the intervals "maximum" and "mean" of the uniform policy, or None.
        title: of the chart.
    """
    series = [
        Series(
            "largest over agents",
            epochs,
            maximum.mean(1),
            "blue",
            marker="circle",
            interval=maximum,
        ),
        Series("mean over agents", epochs, mean.mean(1), "red", marker="square", interval=mean),
    ]
    highest = max(float(np.nanmax(maximum)), 0.0)
    far = uniform is not None and uniform["maximum"].upper > _FAR_ABOVE * highest
    positive = all((one.y > 0).all() for one in series)
    for name, words, colour in (("maximum", "largest", "blue"), ("mean", "mean", "red")):
        if uniform is not None:
            ends = np.tile(np.asarray(uniform[name], np.float64), (len(epochs), 1))
            label = f"uniform policy, {words}"
            level: Any = {"dash": "dashed", "interval": ends, "reference": True}
            series.append(Series(label, epochs, ends.mean(1), colour, **level))
    scale = "log" if far and positive else "linear"
    y = Axis(f"exploitability ({_REWARD})", scale=scale, from_zero=True, switch=True)
    return Panels([Chart(title, Axis("epoch", "count"), y, series)], size=(7.6, 4.3))


def return_over_epochs(
    epochs: Int[np.ndarray, " E"], mean_return: Float[np.ndarray, " E"], uniform: float | None
) -> Panels:
    """The mean return of the policies that were played while learning.

    Args:
        epochs: epoch numbers.
        mean_return: total reward of an agent, mean over agents and trajectories.
        uniform: the uniform policy's mean return, or None.
    """
    series = [Series("policy of the epoch", epochs, mean_return)]
    if uniform is not None:
        level = np.full(len(epochs), uniform)
        series.append(Series("uniform policy", epochs, level, "grey", "dashed", reference=True))
    title = "Mean return of an agent while learning"
    y = Axis(f"mean return ({_REWARD})")
    return Panels([Chart(title, Axis("epoch", "count"), y, series)], size=(7.6, 3.6))


def gain_distribution(
    gains: Mapping[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]],
) -> Panels:
    """For each policy, the agents' gains from deviating, from the least to the largest.

    Args:
        gains: by the policy's name, the agents' lower and upper gains (total reward).
    """
    series = []
    colours = ("blue", "green", "grey", "purple")
    for (name, (lower, upper)), colour, dash in zip(gains.items(), colours, DASHES, strict=False):
        shares, low, high = gain_quantiles(lower, upper)
        ends = np.stack([low, high], 1)
        series.append(Series(name, shares, (low + high) / 2, colour, dash, interval=ends))
    x = Axis("share of the agents, smallest gains first", "share")
    y = Axis(f"gain ({_REWARD})")
    chart = Chart("How much single agents could still gain", x, y, series)
    return Panels([chart], size=(7.6, 4.1))


def gains_by_label(gains: Sequence[LabelGains], label: str) -> Panels:
    """Who could still gain: the largest and the mean gain of the agents of each label.

    Bars reach over the intervals; where nothing bounds a gain from above, the point is its lower
    end and has no bar.

    Args:
        gains: as `Exploitability.by` gives them.
        label: what the labels are, e.g. "group of the policy".
    """
    numbers = all(isinstance(one.label, int | float) for one in gains)
    places = np.array([one.label for one in gains]) if numbers else np.arange(len(gains))
    series = []
    kinds: tuple[tuple[str, str, str, Marker], ...] = (
        ("maximum", "largest of them", "blue", "circle"),
        ("mean", "mean of them", "red", "square"),
    )
    for name, title, colour, marker in kinds:
        ends = np.array([getattr(one, name) for one in gains], np.float64)
        bounded = np.isfinite(ends[:, 1])
        upper = np.where(bounded, ends[:, 1], ends[:, 0])
        middle, half = (ends[:, 0] + upper) / 2, (upper - ends[:, 0]) / 2
        half = half if bounded.any() else None
        series.append(Series(title, places, middle, colour, "none", marker, error=half))
    few = len(gains) <= _MAX_LABELS
    ticks = places.tolist() if few else ()
    labels = [str(one.label) for one in gains] if few and not numbers else ()
    x, y = Axis(label, ticks=ticks, labels=labels), Axis(f"gain ({_REWARD})")
    return Panels([Chart("Who could still gain", x, y, series)], size=(7.6, 4.1))


def gain_quantiles(
    lower: Float[np.ndarray, " n"], upper: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]:
    """Return shares of the agents, Q of them, and the quantiles of both ends of the gains there.

    At most 401, so that a million agents make no larger picture than a thousand.
    """
    shares = np.linspace(0.0, 1.0, min(len(lower), _MAX_QUANTILES) + 1)
    return shares, np.quantile(lower, shares), np.quantile(upper, shares)


class PolicyMaps(NamedTuple):
    """Heat maps of a policy, and which of their choices a still picture shows (all if empty)."""

    panels: Panels
    choices: tuple[str, ...]


def policy_maps(
    probs: Float[np.ndarray, "G H S A"],
    group_sizes: Int[np.ndarray, " G"],
    state_names: Sequence[str],
    action_names: Sequence[str],
    states: Sequence[int],
    title: str,
) -> PolicyMaps:
    """Action probabilities by step: a row a state, a column a group.

    With several groups, the reader of a page picks one of those that are inhabited (of three, if
    all would make a heavy page). A still picture shows three: with the fewest, median and most of
    the first action. Both have the spread, the standard deviation over agents.

    Args:
        probs: the policy tables.
        group_sizes: number of agents in each group.
        state_names: one name a state.
        action_names: one name an action.
        states: the states to show, see `most_visited`.
        title: of all of them.
    """
    shown = representative_groups(probs, group_sizes)
    groups = [int(group) for group in np.flatnonzero(group_sizes > 0)]
    if len(groups) * probs.shape[1] * len(states) * probs.shape[3] > _MAX_NUMBERS:
        groups = list(shown)
    several = len(probs) > 1
    weights = group_sizes / group_sizes.sum()
    charts = []
    for state in states:
        about = (f"State {state_names[state]}", Axis("step", "count"), action_names)
        for group in groups:
            choice = _group_name(group, group_sizes) if several else ""
            charts.append(HeatMap(*about, probs[group, :, state].T, "probability", choice=choice))
        if several:
            mean = np.tensordot(weights, probs[:, :, state], 1)
            squares = np.tensordot(weights, (probs[:, :, state] - mean) ** 2, 1)
            spread = (np.sqrt(squares).T, "standard deviation", 0.5, "red", _SPREAD)
            charts.append(HeatMap(*about, *spread))
    choices = (*(_group_name(group, group_sizes) for group in shown), _SPREAD) if several else ()
    columns = max(len(choices), 1)
    size = (2.6 if several else 7.6, 0.65 + 0.3 * len(action_names))
    return PolicyMaps(Panels(charts, title, columns, size), choices)


_SPREAD = "spread over agents"


def _group_name(group: int, sizes: Int[np.ndarray, " G"]) -> str:
    return f"group {group} ({sizes[group]} agent{'s' if sizes[group] > 1 else ''})"


def representative_groups(
    probs: Float[np.ndarray, "G H S A"], group_sizes: Int[np.ndarray, " G"]
) -> tuple[int, ...]:
    """Return up to three groups: with the least, the median and the most of the first action."""
    inhabited = np.flatnonzero(group_sizes > 0)
    order = inhabited[np.argsort(probs[inhabited, :, :, 0].mean((1, 2)), kind="stable")]
    chosen = (order[0], order[len(order) // 2], order[-1])
    return tuple(dict.fromkeys(int(group) for group in chosen))


def most_visited(flow: Float[np.ndarray, "H S A"] | None, num_states: int) -> tuple[int, ...]:
    """Return the states that are worth showing: all if few, else the most visited, in order."""
    if num_states <= _MAX_STATES:
        return tuple(range(num_states))
    visits = np.zeros(num_states) if flow is None else flow.sum((0, 2))
    return tuple(sorted(int(state) for state in np.argsort(-visits, kind="stable")[:_MAX_STATES]))


def population_flow(
    flows: Mapping[str, Float[np.ndarray, "H S A"]],
    state_names: Sequence[str],
    action_names: Sequence[str],
) -> Panels:
    """Shares of the agents in each state-action pair over time, stacked; a chart a policy.

    The most visited pairs have a layer each, all others share one.

    Args:
        flows: shares by the policy's name.
        state_names: one name a state.
        action_names: one name an action.
    """
    num_states, num_actions = next(iter(flows.values())).shape[1:]
    visits = np.sum([flow.sum(0) for flow in flows.values()], axis=0).ravel()
    pairs = sorted(int(p) for p in np.argsort(-visits, kind="stable")[:_MAX_PAIRS])
    others = len(pairs) < num_states * num_actions
    charts = []
    for name, flow in flows.items():
        layers = flow.reshape(len(flow), -1)[:, pairs].T
        stack = [
            _layer(
                f"{state_names[pair // num_actions]}, {action_names[pair % num_actions]}",
                layer,
                _pair_colour(*divmod(pair, num_actions), num_actions),
            )
            for pair, layer in zip(pairs, layers, strict=True)
        ]
        if others:
            stack.append(_layer("all others", np.clip(1.0 - layers.sum(0), 0.0, 1.0), "#D9D9D9"))
        charts.append(_stack(name, "agents", stack))
    title = "Where the population is and what it does"
    return Panels(charts, title, len(charts), (3.7, 3.7), share_y=True, legend="right")


def zone_shares(shares: Float[np.ndarray, "H 3"]) -> Panels:
    """Shares of a taxi fleet at the start, in zone 1 and in zone 2 over an episode, stacked."""
    # Zone 1 on top, the start between the zones, as on the paper's map.
    looks = ((2, "zone 2", "red"), (0, "start", "grey"), (1, "zone 1", "blue"))
    stack = [_layer(name, shares[:, zone], colour) for zone, name, colour in looks]
    return Panels([_stack("Where the fleet is", "taxis", stack)], size=(6.1, 3.6), legend="right")


def _layer(name: str, shares: Float[np.ndarray, " H"], colour: str) -> Series:
    return Series(name, np.arange(len(shares)), shares, colour)


def _stack(title: str, whose: str, stack: Sequence[Series]) -> Chart:
    return Chart(title, Axis("step", "count"), Axis(f"share of {whose}", "share"), stack, "stack")


def _pair_colour(state: int, action: int, num_actions: int) -> str:
    colour = COLOURS[_STATE_COLOURS[state % len(_STATE_COLOURS)]]
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    # The state decides the colour, the action how light it is.
    share = action / (num_actions - 1) if num_actions > 1 else 0.0
    return to_hex(colorsys.hls_to_rgb(hue, lightness + share * (0.85 - lightness), saturation))


def lines_over(
    x: Int[np.ndarray, " E"],
    lines: Mapping[str, Float[np.ndarray, " E"]],
    *,
    x_name: str,
    y_name: str,
    title: str,
) -> Panels:
    """One or more lines over epochs or steps.

    Args:
        x: epochs or steps.
        lines: values by name; a legend is drawn if there are several.
        x_name: what x is.
        y_name: what the values are, with units.
        title: of the chart.
    """
    series = [
        Series(name, x, y, LINE_COLOURS[k % len(LINE_COLOURS)], DASHES[k % len(DASHES)])
        for k, (name, y) in enumerate(lines.items())
    ]
    chart = Chart(title, Axis(x_name, "count"), Axis(y_name), series)
    return Panels([chart], size=(6.4, 3.6), legend="right" if len(lines) > 1 else "inside")


def diagnostics_over_epochs(
    epochs: Int[np.ndarray, " E"], rows: Mapping[str, Float[np.ndarray, " E"]]
) -> Panels:
    """A learner's own figures: a chart for every name in `rows`, which has the units."""
    charts = [
        Chart(name, Axis("epoch", "count"), Axis(), [Series(name, epochs, values)])
        for name, values in rows.items()
    ]
    return Panels(charts, "Figures of the learner", 2, (3.8, 2.4))
