"""Write a run's pictures and its self-contained page, from what the run saved and nothing else."""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path
from typing import IO, Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from crowdnash.files import write_atomically
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.reports import plotting, report_charts
from crowdnash.reports.html import Picture
from crowdnash.reports.page import page
from crowdnash.reports.ppo_report import (
    diagnostics_pictures,
    draw_ppo_pictures,
    ppo_page,
    save_animation,
)
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.evaluation import Evaluation, policy_title
from crowdnash.runs.metrics_log import Row
from crowdnash.runs.saved_run import SavedRun


def write_report(path: str | PathLike[str]) -> Path:
    """Draw the pictures of a run (PNG and SVG) and write its report.html.

    Args:
        path: the run directory; a run that is not finished gets the pictures it has data for.

    Returns:
        The page, which needs no other file and no network.

    Raises:
        ValueError: not a run directory, a damaged file, or nothing to report yet.
        OSError: a file cannot be written.
    """
    directory = RunDirectory.open(path)
    saved = SavedRun.load(path)
    if saved.config.is_tabular:
        pictures = draw_pictures(saved) + diagnostics_pictures(saved)
        text = page(saved, _saved(directory, pictures))
    else:
        text = ppo_page(saved, _saved(directory, draw_ppo_pictures(saved)), save_animation(saved))
    write_atomically(directory.report, text.encode())
    return directory.report


def _saved(directory: RunDirectory, pictures: list[Picture]) -> list[tuple[Picture, bytes]]:
    """Write the pictures into the run; each comes back with its SVG file."""
    drawn = []
    for picture in pictures:
        files = {suffix: _render(picture.figure, suffix) for suffix in ("png", "svg")}
        for suffix, content in files.items():
            write_atomically(directory.path / f"{picture.name}.{suffix}", content)
        drawn.append((picture, files["svg"]))
    return drawn


def _render(figure: Figure, suffix: str) -> bytes:
    # Without dates, the same run gives the same files.
    metadata = {"Date": None} if suffix == "svg" else {"Software": None}
    buffer: IO[bytes] = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "crowdnash"}):
        figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
    buffer.seek(0)
    return buffer.read()


def draw_pictures(saved: SavedRun) -> list[Picture]:
    """Return the pictures that the saved data allow, in the order of the report."""
    pictures = []
    if saved.certified_rows:
        pictures.append(_exploitability_picture(saved))
    if saved.evaluation is not None:
        pictures.append(_gains_picture(saved.evaluation))
        if isinstance(saved.policies[saved.evaluation.recommended], TabularPolicy):
            pictures.append(_policy_picture(saved, saved.evaluation))
        pictures.append(_flow_picture(saved, saved.evaluation))
    if saved.metrics:
        pictures.append(_return_picture(saved))
    return pictures


def _exploitability_picture(saved: SavedRun) -> Picture:
    rows = saved.certified_rows
    uniform = None if saved.uniform is None else saved.uniform.exploitability

    def bounds(name: str) -> Float[np.ndarray, "E 2"]:
        ends = [_column(rows, f"exploitability_{name}_{end}") for end in ("lower", "upper")]
        return np.stack(ends, axis=1)

    epochs, maximum, mean = _column(rows, "epoch").astype(int), bounds("max"), bounds("mean")
    levels = uniform and {
        "maximum": (float(uniform.maximum.lower), float(uniform.maximum.upper)),
        "mean": (float(uniform.mean.lower), float(uniform.mean.upper)),
    }
    name = policy_title(saved.recommended) if saved.recommended else "learned policy"
    confidence = saved.config.evaluation.confidence
    title = f"Exploitability of the {name}"
    exact = np.array_equal(maximum[:, 0], maximum[:, 1])
    return Picture(
        "exploitability",
        "What single agents can gain by deviating, as training goes on: computed exactly."
        if exact
        else f"The shaded band ({confidence:.0%} confidence) reaches from what a deviation was "
        "seen to gain to what none can gain; lines run through its middle.",
        plotting.exploitability_over_epochs(epochs, maximum, mean, levels, confidence, name),
        (report_charts.exploitability_chart(epochs, maximum, mean, levels, title),),
    )


def _gains_picture(evaluation: Evaluation) -> Picture:
    gains = {
        policy_title(name): (policy.exploitability.lower, policy.exploitability.upper)
        for name, policy in evaluation.policies.items()
        if policy.exploitability is not None
    }
    return Picture(
        "gains",
        "Agents ordered by what they could gain by deviating alone. Each band reaches from a gain "
        "that a known deviation achieves to one that none exceeds, up to sampling error.",
        plotting.gain_distribution(gains),
        (report_charts.gains_chart(gains),),
    )


def _policy_picture(saved: SavedRun, evaluation: Evaluation) -> Picture:
    iterate = evaluation.recommended
    policy: Any = saved.policies[iterate]
    flow = evaluation.policies[iterate].flow
    assert flow is not None  # a tabular game's run has all flows
    probs = np.asarray(policy.probs)
    sizes: Int[np.ndarray, " G"] = np.bincount(np.asarray(policy.groups), minlength=len(probs))
    states = plotting.most_visited(flow, probs.shape[2])
    names = (evaluation.state_names, evaluation.action_names)
    caption = f"Probability of each action, by state, at each step: {policy_title(iterate)}."
    if len(states) < probs.shape[2]:
        caption += f" The {len(states)} most visited of {probs.shape[2]} states."
    return Picture(
        "policy",
        caption,
        plotting.policy_heat_map(probs, sizes, *names, states, policy_title(iterate)),
        report_charts.policy_charts(
            probs, sizes, plotting.representative_groups(probs, sizes), states, *names
        ),
        choice_name="Group",
        still_note=""
        if len(probs) == 1
        else f"Of the {len(probs)} groups, those that play the first action least, in between and "
        "most are shown; the last column is the standard deviation over all agents.",
    )


def _flow_picture(saved: SavedRun, evaluation: Evaluation) -> Picture:
    flows = {
        policy_title(name): flow
        for name in (evaluation.recommended, "uniform")
        if (flow := evaluation.policies[name].flow) is not None
    }
    names = (evaluation.state_names, evaluation.action_names)
    return Picture(
        "population_flow",
        "Share of the agents in each state and action at each step, over simulated "
        "trajectories in which everyone plays the policy.",
        plotting.population_flow(flows, *names),
        report_charts.flow_charts(flows, *names),
    )


def _return_picture(saved: SavedRun) -> Picture:
    uniform = None if saved.uniform is None else sum(saved.uniform.mean_return) / 2
    epochs, returns = (_column(saved.metrics, name) for name in ("epoch", "mean_return"))
    return Picture(
        "mean_return",
        "What an agent earns when everyone plays the epoch's policy. In a game it need "
        "not rise: equilibrium is about deviating, not about welfare.",
        plotting.return_over_epochs(epochs.astype(int), returns, uniform),
        (report_charts.return_chart(epochs.astype(int), returns, uniform),),
    )


def _column(rows: tuple[Row, ...], name: str) -> Float[np.ndarray, " E"]:
    cells: list[Any] = [row.get(name) for row in rows]
    return np.asarray([np.nan if cell is None else cell for cell in cells], np.float64)
