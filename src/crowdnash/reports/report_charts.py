"""The charts of a tabular run's report, beside the pictures in `plotting` that they stand in for.

Axes: G groups, H steps, S states, A actions, E epochs, n agents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.colors import to_hex

from crowdnash.reports.chart import Chart, Series
from crowdnash.reports.picture_data import flow_layers, gain_quantiles

_COLOURS = ("blue", "red", "green", "purple", "yellow", "cyan")
_DASHES = ("solid", "dashed", "dotted", "dash-dotted")
_MAX_NUMBERS = 60_000


def exploitability_chart(
    epochs: Int[np.ndarray, " E"],
    maximum: Float[np.ndarray, "E 2"],
    mean: Float[np.ndarray, "E 2"],
    uniform: Mapping[str, tuple[float, float]] | None,
    title: str,
) -> Chart:
    """The largest and the mean exploitability over the epochs; see the picture of that name."""
    series = [
        Series("largest over agents", maximum.mean(1), "blue", maximum),
        Series("mean over agents", mean.mean(1), "red", mean),
    ]
    for name, words, colour in (("maximum", "largest", "blue"), ("mean", "mean", "red")):
        if uniform is not None:
            ends = np.tile(np.asarray(uniform[name], np.float64), (len(epochs), 1))
            label = f"uniform policy, {words}"
            series.append(Series(label, ends.mean(1), colour, ends, reference=True))
    return Chart(title, "epoch", "exploitability (total reward)", epochs, series, from_zero=True)


def return_chart(
    epochs: Int[np.ndarray, " E"], mean_return: Float[np.ndarray, " E"], uniform: float | None
) -> Chart:
    """The mean return over the epochs."""
    series = [Series("policy of the epoch", mean_return)]
    if uniform is not None:
        level = np.full(len(epochs), uniform)
        series.append(Series("uniform policy", level, "grey", reference=True))
    title = "Mean return of an agent while learning"
    return Chart(title, "epoch", "mean return (total reward)", epochs, series)


def gains_chart(
    gains: Mapping[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]],
) -> Chart:
    """The agents' gains, from the least to the largest, by policy."""
    series = []
    shares = np.zeros(0)
    colours = ("blue", "green", "grey", "purple")
    for (name, (lower, upper)), colour, dash in zip(gains.items(), colours, _DASHES, strict=False):
        shares, low, high = gain_quantiles(lower, upper)
        series.append(Series(name, (low + high) / 2, colour, np.stack([low, high], 1), dash))
    return Chart(
        "How much single agents could still gain",
        "share of the agents, smallest gains first",
        "gain (total reward)",
        shares,
        series,
        x_whole=False,
        x_share=True,
    )


def policy_charts(
    probs: Float[np.ndarray, "G H S A"],
    group_sizes: Int[np.ndarray, " G"],
    groups: Sequence[int],
    states: Sequence[int],
    state_names: Sequence[str],
    action_names: Sequence[str],
) -> tuple[Chart, ...]:
    """Action probabilities by step, a chart a state; the reader picks the group.

    All groups that are inhabited are there, or only `groups` if that would make a heavy page.
    """
    inhabited = [int(group) for group in np.flatnonzero(group_sizes > 0)]
    size = len(inhabited) * probs.shape[1] * len(states) * probs.shape[3]
    steps = np.arange(probs.shape[1])
    charts = []
    for group in inhabited if size <= _MAX_NUMBERS else groups:
        whose = f", group {group}" if len(inhabited) > 1 else ""
        agents = "1 agent" if group_sizes[group] == 1 else f"{group_sizes[group]} agents"
        for state in states:
            series = [
                Series(name, probs[group, :, state, action], _COLOURS[action % len(_COLOURS)])
                for action, name in enumerate(action_names)
            ]
            charts.append(
                Chart(
                    f"Actions in state {state_names[state]}{whose}",
                    "step",
                    "probability",
                    steps,
                    series,
                    kind="bars",
                    share=True,
                    choice=f"{group} ({agents})",
                )
            )
    return tuple(charts)


def flow_charts(
    flows: Mapping[str, Float[np.ndarray, "H S A"]],
    state_names: Sequence[str],
    action_names: Sequence[str],
) -> tuple[Chart, ...]:
    """Shares of the agents in each state-action pair by step, a chart a policy."""
    shares, labels, colours = flow_layers(flows, state_names, action_names)
    return tuple(
        Chart(
            f"Where the population is: {name}",
            "step",
            "share of agents",
            np.arange(len(flow)),
            [
                Series(label, layer, to_hex(colour))
                for label, layer, colour in zip(labels, shares[name], colours, strict=True)
            ],
            kind="bars",
            share=True,
        )
        for name, flow in flows.items()
    )


def line_chart(
    x: Int[np.ndarray, " E"],
    lines: Mapping[str, Float[np.ndarray, " E"]],
    *,
    x_name: str,
    y_name: str,
    title: str,
) -> Chart:
    """One or more lines over epochs or steps; see `plotting_learning.lines_over`."""
    series = [
        Series(name, values, _COLOURS[k % len(_COLOURS)], dash=_DASHES[k % len(_DASHES)])
        for k, (name, values) in enumerate(lines.items())
    ]
    return Chart(title, x_name, y_name, x, series)
