"""The pictures of a run, in the order of its report: what is drawn depends on what was saved.

Axes: E epochs, G groups, H steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from crowdnash.games.taxi import Taxi
from crowdnash.games.taxi_map import TaxiMap, read_map
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.reports import figures, taxi
from crowdnash.reports.chart import Picture
from crowdnash.runs.evaluation import Evaluation, policy_title
from crowdnash.runs.metrics_log import Row
from crowdnash.runs.saved_run import SavedRun

_DIAGNOSTICS = {
    "entropy": "entropy of the policy (nats)",
    "approximate_kl": "KL, old to new policy (nats)",
    "explained_variance": "share of variance the critic knew",
    "clip_fraction": "share of clipped ratios",
}
"""Titles, with units, of columns of the learners' own metrics."""
_MOST_GROUPS = 100
_NOT_DRAWN = frozenset(
    {"policy_change", "mean_reward", "policy_loss", "value_loss", "learning_rate", "play_seconds"}
)


def draw_pictures(saved: SavedRun) -> list[Picture]:
    """Return the pictures that the saved data allow, in the order of the report."""
    evaluation = saved.evaluation
    pictures = []
    if saved.certified_rows:
        pictures.append(_exploitability(saved))
    if evaluation is not None:
        pictures += [*_gains(evaluation), *_gains_by_group(saved, evaluation)]
        pictures += [*_policy(saved, evaluation), *_flow(evaluation)]
    if saved.metrics:
        pictures += [_mean_return(saved), *_statistics(saved)]
    return [*pictures, *_episode(saved), *_diagnostics(saved)]


def city_of(saved: SavedRun) -> TaxiMap | None:
    """The map, if the game is A-Taxi and an episode was kept."""
    if saved.config.game != Taxi.name or saved.episode is None:
        return None
    return read_map(str(saved.config.game_parameters["map_text"]))


def column(rows: Sequence[Row], name: str) -> Float[np.ndarray, " E"]:
    """A column of metrics; NaN where it is empty."""
    cells: list[Any] = [row.get(name) for row in rows]
    return np.asarray([np.nan if cell is None else cell for cell in cells], np.float64)


def _epochs(rows: Sequence[Row]) -> Int[np.ndarray, " E"]:
    return column(rows, "epoch").astype(np.int64)


def _exploitability(saved: SavedRun) -> Picture:
    rows = saved.certified_rows

    def ends(name: str) -> Float[np.ndarray, "E 2"]:
        sides = [column(rows, f"exploitability_{name}_{end}") for end in ("lower", "upper")]
        return np.stack(sides, axis=1)

    maximum, mean = ends("max"), ends("mean")
    uniform = saved.uniform and saved.uniform.exploitability
    levels = None if uniform is None else {"maximum": uniform.maximum, "mean": uniform.mean}
    exact = np.array_equal(maximum[:, 0], maximum[:, 1])
    return Picture(
        "exploitability",
        "What single agents can gain by deviating, as training goes on: computed exactly."
        if exact
        else f"The shaded band ({saved.config.evaluation.confidence:.0%} confidence) reaches from "
        "what a deviation was seen to gain to what none can gain; lines run through its middle.",
        figures.exploitability_over_epochs(
            _epochs(rows), maximum, mean, levels, "Exploitability of the learned policy"
        ),
    )


def _gains(evaluation: Evaluation) -> list[Picture]:
    gains = {
        policy_title(name): (certificate.lower, certificate.upper)
        for name, policy in evaluation.policies.items()
        if (certificate := policy.exploitability) is not None
        and np.isfinite(certificate.upper).all()
    }
    caption = (
        "Agents ordered by what they could gain by deviating alone. Each band reaches from a gain "
        "that a known deviation achieves to one that none exceeds, up to sampling error."
    )
    return [Picture("gains", caption, figures.gain_distribution(gains))] if gains else []


def _gains_by_group(saved: SavedRun, evaluation: Evaluation) -> list[Picture]:
    name, evaluated = next(iter(evaluation.policies.items()))
    policy, certificate = saved.policies.get(name), evaluated.exploitability
    if not isinstance(policy, TabularPolicy) or certificate is None:
        return []
    groups = np.asarray(policy.groups)
    count = len(np.unique(groups[certificate.agents]))
    if not 2 <= count <= _MOST_GROUPS or count == len(certificate.agents):
        return []
    caption = (
        "What the agents of each group of the policy could gain by deviating alone: the "
        "largest and the mean of those examined, with bars over the "
        f"{certificate.confidence:.0%} intervals."
    )
    panels = figures.gains_by_label(certificate.by(groups), "group of the policy")
    return [Picture("gains_by_group", caption, panels)]


def _policy(saved: SavedRun, evaluation: Evaluation) -> list[Picture]:
    name, evaluated = next(iter(evaluation.policies.items()))
    policy = saved.policies.get(name)
    if not isinstance(policy, TabularPolicy):
        return []
    probs = np.asarray(policy.probs)
    sizes: Int[np.ndarray, " G"] = np.bincount(np.asarray(policy.groups), minlength=len(probs))
    states = figures.most_visited(evaluated.flow, probs.shape[2])
    names = (evaluation.state_names, evaluation.action_names)
    title = f"Action probabilities over time: {policy_title(name)}"
    maps = figures.policy_maps(probs, sizes, *names, states, title)
    caption = "Probability of each action, by state, at each step."
    if len(states) < probs.shape[2]:
        caption += f" The {len(states)} most visited of {probs.shape[2]} states."
    still_note = (
        f"Of the {len(probs)} groups, those that play the first action least, in between and most "
        "are shown; the last column is the standard deviation over all agents."
    )
    note = still_note if len(probs) > 1 else ""
    return [Picture("policy", caption, maps.panels, "Show", maps.choices, note)]


def _flow(evaluation: Evaluation) -> list[Picture]:
    first = next(iter(evaluation.policies))
    flows = {
        policy_title(name): flow
        for name in dict.fromkeys((first, "uniform"))
        if name in evaluation.policies and (flow := evaluation.policies[name].flow) is not None
    }
    caption = (
        "Share of the agents in each state and action at each step, over simulated trajectories in "
        "which everyone plays the policy."
    )
    names = (evaluation.state_names, evaluation.action_names)
    panels = figures.population_flow(flows, *names) if flows else None
    return [] if panels is None else [Picture("population_flow", caption, panels)]


def _mean_return(saved: SavedRun) -> Picture:
    uniform = None if saved.uniform is None else sum(saved.uniform.mean_return) / 2
    returns = column(saved.metrics, "mean_return")
    return Picture(
        "mean_return",
        "What an agent earns when everyone plays the epoch's policy. In a game it need not rise: "
        "equilibrium is about deviating, not about welfare.",
        figures.return_over_epochs(_epochs(saved.metrics), returns, uniform),
    )


def _statistics(saved: SavedRun) -> list[Picture]:
    if not saved.statistics:
        return []
    words = {"x_name": "epoch", "y_name": "mean over steps", "title": "The game while learning"}
    panels = figures.lines_over(_epochs(saved.metrics), _lines(saved), **words)
    caption = "The game's own figures, means over the steps of an epoch's plays."
    return [Picture("statistics", caption, panels)]


def _lines(saved: SavedRun) -> dict[str, Float[np.ndarray, " E"]]:
    return {name.replace("_", " "): column(saved.metrics, name) for name in saved.statistics}


def _diagnostics(saved: SavedRun) -> list[Picture]:
    """The learner's own figures; those that nobody described bear their column's name."""
    lines = {
        _DIAGNOSTICS.get(name, name.replace("_", " ")): column(saved.metrics, name)
        for name in saved.diagnostics
        if name not in _NOT_DRAWN
    }
    if not lines:
        return []
    caption = "The learner's own figures."
    if "step_size" in saved.diagnostics:
        caption += " The step of mirror descent says how far the policy moves for a unit of reward."
    if "approximate_kl" in saved.diagnostics:
        caption += (
            " Entropy that falls to 0 early, a KL above 0.05 or a critic that explains nothing "
            "are signs of bad settings."
        )
    panels = figures.diagnostics_over_epochs(_epochs(saved.metrics), lines)
    return [Picture("diagnostics", caption, panels)]


def _episode(saved: SavedRun) -> list[Picture]:
    if saved.episode is None:
        return []
    if (city := city_of(saved)) is not None:
        positions = saved.episode.snapshots["position"]
        last = len(positions) - 1
        steps = sorted({0, last // 16, last // 4, last})
        occupancy = "Where the trained fleet is, at every step of one episode."
        cells = "Taxis in every cell at some steps of the same episode."
        return [
            Picture("zone_occupancy", occupancy, taxi.zone_occupancy(positions, city)),
            Picture("fleet", cells, taxi.fleet_on_map(positions, city, steps)),
        ]
    lines = {
        name.replace("_", " "): np.asarray(x, np.float64)
        for name, x in saved.episode.statistics.items()
    }
    if not lines:
        return []
    steps = np.arange(len(next(iter(lines.values()))))
    words = {"x_name": "step", "y_name": "value", "title": "One episode at the end"}
    panels = figures.lines_over(steps, lines, **words)
    return [Picture("episode", "One episode of the final policy.", panels)]
