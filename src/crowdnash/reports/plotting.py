"""Pictures of a run, drawn from arrays; every function returns a matplotlib `Figure`.

Axes: G groups, H steps, S states, A actions, E epochs, n agents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from crowdnash.reports.picture_data import flow_layers, gain_quantiles
from crowdnash.reports.style import BLUE, GREEN, GREY, PURPLE, RED, heading, new_figure

_POLICY_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
_MAX_POINTS = 1500
_MAX_STATES = 12


def exploitability_over_epochs(
    epochs: Int[np.ndarray, " E"],
    maximum: Float[np.ndarray, "E 2"],
    mean: Float[np.ndarray, "E 2"],
    uniform: Mapping[str, tuple[float, float]] | None,
    confidence: float,
    policy_name: str,
) -> Figure:
    """Draw the largest and the mean exploitability with their intervals over the epochs.

    Args:
        epochs: the epochs that were certified.
        maximum: lower and upper end for the largest exploitability, reward units.
        mean: the same for the mean over the agents.
        uniform: the intervals "maximum" and "mean" of the uniform policy, or None.
        confidence: coverage of the intervals.
        policy_name: which policy was certified, in words.
    """
    with new_figure(7.6, 4.3) as (figure, axes):
        ax = axes[0, 0]
        for name, bounds, colour, marker in (
            ("largest over agents", maximum, BLUE, "o"),
            ("mean over agents", mean, RED, "s"),
        ):
            ax.fill_between(epochs, bounds[:, 0], bounds[:, 1], color=colour, alpha=0.22, lw=0)
            ax.plot(
                epochs,
                bounds.mean(1),
                color=colour,
                marker=marker if len(epochs) <= 60 else None,
                markersize=4.5,
                label=name,
            )
        if uniform is not None:
            for name, label, colour in (("maximum", "largest", BLUE), ("mean", "mean", RED)):
                ax.axhline(
                    sum(uniform[name]) / 2,
                    color=colour,
                    linestyle=(0, (4, 3)),
                    linewidth=1.2,
                    label=f"uniform policy, {label}",
                )
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0)
        ax.set_xlabel("epoch")
        ax.set_ylabel("exploitability (total reward)")
        ax.set_title(f"Exploitability of the {policy_name} ({confidence:.0%} intervals shaded)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(True)
        ax.legend(ncols=2)
    return figure


def return_over_epochs(
    epochs: Int[np.ndarray, " E"],
    mean_return: Float[np.ndarray, " E"],
    uniform: float | None,
) -> Figure:
    """Draw the mean return of the policies that were played while learning.

    Args:
        epochs: epoch numbers.
        mean_return: total reward of an agent, mean over agents and trajectories.
        uniform: the uniform policy's mean return, or None.
    """
    epochs, mean_return = _thinned(epochs), _thinned(mean_return)
    with new_figure(7.6, 3.6) as (figure, axes):
        ax = axes[0, 0]
        ax.plot(epochs, mean_return, color=BLUE, label="policy of the epoch")
        if uniform is not None:
            ax.axhline(
                uniform,
                color=GREY,
                linestyle=(0, (4, 3)),
                linewidth=1.2,
                label="uniform policy",
            )
            ax.legend()
        ax.set_xlabel("epoch")
        ax.set_ylabel("mean return (total reward)")
        ax.set_title("Mean return of an agent while learning")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(True)
    return figure


def policy_heat_map(
    probs: Float[np.ndarray, "G H S A"],
    group_sizes: Int[np.ndarray, " G"],
    state_names: Sequence[str],
    action_names: Sequence[str],
    states: Sequence[int],
    policy_name: str,
) -> Figure:
    """Draw action probabilities over time: a row per state, a column per group shown.

    With several groups, three are shown (fewest, median and most of the first action) beside
    the spread, the standard deviation over agents.

    Args:
        probs: the policy tables.
        group_sizes: number of agents in each group.
        state_names: one name a state.
        action_names: one name an action.
        states: the states to show, see `most_visited`.
        policy_name: which policy this is, in words.
    """
    shown = representative_groups(probs, group_sizes)
    spread = len(probs) > 1
    columns = len(shown) + spread
    actions = len(action_names)
    width = 7.6 if columns == 1 else 2.6 * columns + 1.2
    height = len(states) * (0.45 + 0.30 * actions) + 1.3
    with new_figure(width, height, len(states), columns, sharex=True, sharey=True) as (
        figure,
        axes,
    ):
        image: Any = None
        deviation: Any = None
        weights = group_sizes / group_sizes.sum()
        for row, state in enumerate(states):
            for column, group in enumerate(shown):
                image = _heat(axes[row, column], probs[group, :, state].T, "Blues", 1.0)
            if spread:
                mean = np.tensordot(weights, probs[:, :, state], 1)
                squares = np.tensordot(weights, (probs[:, :, state] - mean) ** 2, 1)
                deviation = _heat(axes[row, columns - 1], np.sqrt(squares).T, "Oranges", 0.5)
            axes[row, 0].set_yticks(range(actions), list(action_names))
            axes[row, 0].set_ylabel(f"state\n{state_names[state]}")
        for column, group in enumerate(shown):
            axes[-1, column].set_xlabel("step")
            if spread:
                size = group_sizes[group]
                axes[0, column].set_title(
                    f"group {group} ({size} agent{'s' if size > 1 else ''})", fontsize=10
                )
        if spread:
            axes[-1, -1].set_xlabel("step")
            axes[0, -1].set_title("spread over agents", fontsize=10)
            figure.colorbar(
                deviation, ax=axes[:, -1], label="standard deviation", fraction=0.1, aspect=25
            )
        figure.colorbar(
            image, ax=axes[:, : len(shown)], label="probability", fraction=0.1, aspect=25
        )
        heading(figure, f"Action probabilities over time: {policy_name}")
    return figure


def _heat(ax: Axes, values: np.ndarray, colours: str, top: float) -> Any:
    ax.spines[:].set_visible(True)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax.imshow(values, aspect="auto", cmap=colours, vmin=0, vmax=top, interpolation="none")


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
) -> Figure:
    """Draw the shares of agents in each state-action pair over time, stacked; a panel per policy.

    Args:
        flows: shares by the policy's name.
        state_names: one name a state.
        action_names: one name an action.
    """
    shares_of, labels, colours = flow_layers(flows, state_names, action_names)
    with new_figure(3.5 * len(flows) + 1.8, 3.9, 1, len(flows), sharey=True) as (figure, axes):
        for ax, (name, flow) in zip(axes[0], flows.items(), strict=True):
            # One bar a step: time is discrete, and an interpolated area would suggest otherwise.
            edges = np.arange(len(flow) + 1) - 0.5
            tops = np.cumsum(shares_of[name], axis=0)
            for layer, (label, colour) in enumerate(zip(labels, colours, strict=True)):
                below = tops[layer - 1] if layer else np.zeros(len(flow))
                ax.stairs(tops[layer], edges, baseline=below, fill=True, color=colour, label=label)
            ax.set_title(name, fontsize=10)
            ax.set_xlabel("step")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set_xlim(edges[0], edges[-1])
            ax.set_ylim(0, 1)
        axes[0, 0].set_ylabel("share of agents")
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles[::-1], names[::-1], loc="outside right center", title="state, action")
        heading(figure, "Where the population is and what it does")
    return figure


def gain_distribution(
    gains: Mapping[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]],
) -> Figure:
    """Draw, for each policy, the agents' gains from deviating, from the least to the largest.

    Args:
        gains: by the policy's name, the agents' lower and upper gains (total reward).
    """
    with new_figure(7.6, 4.1) as (figure, axes):
        ax = axes[0, 0]
        for (name, (lower, upper)), colour, dash in zip(
            gains.items(), (BLUE, GREEN, GREY, PURPLE), _POLICY_DASHES, strict=False
        ):
            shares, low, high = gain_quantiles(lower, upper)
            ax.fill_between(shares, low, high, color=colour, alpha=0.22, lw=0)
            ax.plot(shares, (low + high) / 2, color=colour, linestyle=dash, label=name)
        ax.axhline(0.0, color="#B0B0B0", linewidth=1.0)
        ax.set_xlim(0, 1)
        ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        ax.set_xlabel("share of the agents, those with the smallest gains first")
        ax.set_ylabel("gain from deviating (total reward)")
        ax.set_title("How much single agents could still gain")
        ax.grid(True)
        ax.legend(loc="best")
    return figure


def _thinned(values: np.ndarray) -> np.ndarray:
    """Return at most `_MAX_POINTS` of many values, evenly spaced, with both ends."""
    if len(values) <= _MAX_POINTS:
        return values
    return values[np.linspace(0, len(values) - 1, _MAX_POINTS).round().astype(int)]
