"""The report of a PPO run: its pictures and its page, from what the run saved.

Axes: E epochs, H steps, N agents.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from crowdnash.games.taxi import Taxi
from crowdnash.games.taxi_map import TaxiMap, read_map
from crowdnash.reports import html as html_page
from crowdnash.reports import taxi as taxi_pictures
from crowdnash.reports.agent_table import AgentGains
from crowdnash.reports.chart import Chart, Series
from crowdnash.reports.html import Picture
from crowdnash.reports.plotting_learning import diagnostics_over_epochs, lines_over
from crowdnash.reports.report_charts import line_chart
from crowdnash.runs.episode import Episode
from crowdnash.runs.saved_run import SavedRun

_DIAGNOSTICS = {
    "entropy": "entropy of the policy (nats)",
    "approximate_kl": "KL, old to new policy (nats)",
    "explained_variance": "share of variance the critic knew",
    "clip_fraction": "share of clipped ratios",
}
_ZONES = ("zone_1_share", "zone_2_share")


def city_of(saved: SavedRun) -> TaxiMap | None:
    """The map, if the game is A-Taxi and an episode was kept."""
    if saved.config.game != Taxi.name or saved.episode is None:
        return None
    return read_map(str(saved.config.game_parameters["map_text"]))


def draw_ppo_pictures(saved: SavedRun) -> list[Picture]:
    """Return the pictures that the saved data allow, in the order of the report."""
    epochs = np.asarray([row["epoch"] for row in saved.metrics], np.int64)
    pictures = [
        _lines(
            "mean_return",
            "What an agent earns in the plays that each epoch learned from.",
            epochs,
            {"mean return": _column(saved, "mean_return")},
            x_name="epoch",
            y_name="mean return (total reward)",
            title="Mean return of an agent while learning",
        )
    ]
    if saved.statistics:
        pictures.append(
            _lines(
                "statistics",
                "The game's own figures, means over the steps of an epoch's plays.",
                epochs,
                {name.replace("_", " "): _column(saved, name) for name in saved.statistics},
                x_name="epoch",
                y_name="mean over steps",
                title="The game while learning",
            )
        )
    pictures += _episode_pictures(saved)
    return pictures + diagnostics_pictures(saved)


def diagnostics_pictures(saved: SavedRun) -> list[Picture]:
    """The learner's own figures, where it has those that are worth a picture."""
    epochs = np.asarray([row["epoch"] for row in saved.metrics], np.int64)
    names = {
        title: _column(saved, name)
        for name, title in _DIAGNOSTICS.items()
        if name in saved.diagnostics
    }
    if not names:
        return []
    return [
        Picture(
            "diagnostics",
            "PPO's own figures: entropy that falls to 0 early, a KL above 0.05 or a critic that "
            "explains nothing are signs of bad settings.",
            diagnostics_over_epochs(epochs, names),
            tuple(
                line_chart(epochs, {name: values}, x_name="epoch", y_name="", title=name)
                for name, values in names.items()
            ),
        )
    ]


def _lines(
    name: str,
    caption: str,
    x: Int[np.ndarray, " E"],
    lines: Mapping[str, Float[np.ndarray, " E"]],
    **words: str,
) -> Picture:
    return Picture(name, caption, lines_over(x, lines, **words), (line_chart(x, lines, **words),))


def _episode_pictures(saved: SavedRun) -> list[Picture]:
    if saved.episode is None:
        return []
    if city_of(saved) is not None:
        positions = saved.episode.snapshots["position"]
        last = len(positions) - 1
        steps = sorted({0, last // 16, last // 4, last})
        return [
            Picture(
                "zone_occupancy",
                "Where the trained fleet is, at every step of one episode.",
                taxi_pictures.zone_occupancy(positions, city_of(saved)),
                _zone_charts(saved.episode),
            ),
            Picture(
                "fleet",
                "Taxis in every cell at some steps of the same episode.",
                taxi_pictures.fleet_on_map(positions, city_of(saved), steps),
            ),
        ]
    if not saved.episode.statistics:
        return []
    lines = {
        name.replace("_", " "): np.asarray(x, np.float64)
        for name, x in saved.episode.statistics.items()
    }
    horizon = len(next(iter(lines.values())))
    return [
        _lines(
            "episode",
            "One episode of the final policy.",
            np.arange(horizon),
            lines,
            x_name="step",
            y_name="value",
            title="One episode at the end",
        )
    ]


def _zone_charts(episode: Episode) -> tuple[Chart, ...]:
    zones = [np.asarray(episode.statistics[name], np.float64) for name in _ZONES]
    layers = {"zone 2": zones[1], "start": 1.0 - zones[0] - zones[1], "zone 1": zones[0]}
    colours = ("red", "grey", "blue")
    return (
        Chart(
            "Where the fleet is",
            "step",
            "share of taxis",
            np.arange(len(zones[0])),
            [
                Series(name, np.clip(layer, 0.0, 1.0), colour)
                for (name, layer), colour in zip(layers.items(), colours, strict=True)
            ],
            kind="bars",
            share=True,
        ),
    )


def save_animation(saved: SavedRun) -> Path | None:
    """Write the episode as an animated GIF into the run, if its game can be drawn so."""
    if city_of(saved) is None or saved.episode is None:
        return None
    path = saved.directory.path / "fleet.gif"
    taxi_pictures.save_animation(path, saved.episode.snapshots["position"], city_of(saved))
    return path


def ppo_page(saved: SavedRun, drawn: list[tuple[Picture, bytes]], animation: Path | None) -> str:
    """Return the page of a run, with its pictures inside."""
    config = saved.config
    agents, horizon = (config.game_parameters.get(n) for n in ("num_agents", "horizon"))
    title = f"{config.game}: {agents} agents, {horizon} steps, {config.learner.summary()}"
    moving = ""
    if animation is not None:
        caption = "One episode of the trained fleet, a dot for each taxi."
        moving = html_page.image(caption, animation.read_bytes(), "image/gif")
    gains = _agent_gains(saved)
    sections = [
        f"<h1>{escape(title)}</h1>",
        *_summary(saved),
        "<h2>Charts</h2>",
        *(html_page.figure(picture, svg) for picture, svg in drawn),
        moving,
        *([] if gains is None else gains.section()),
        "<h2>Settings</h2>",
        html_page.settings_table(config.settings()),
    ]
    content = None if gains is None else gains.content()
    return html_page.document(title, sections, [picture for picture, _ in drawn], content)


def _agent_gains(saved: SavedRun) -> AgentGains | None:
    """What the agents that learned to deviate gained."""
    if saved.evaluation is None:
        return None
    certificate = saved.evaluation.policies[saved.evaluation.recommended].exploitability
    if certificate is None:
        return None
    gains = {
        "gain": certificate.lower,
        "standard_error": certificate.standard_error,
        "value": certificate.value,
    }
    title = "Gains of learned deviations"
    return AgentGains.of(certificate.agents, gains, saved.game_record.parameters, None, title)


def _summary(saved: SavedRun) -> list[str]:
    evaluation = saved.evaluation
    if evaluation is None:
        return [
            f'<p class="lead">This run is not finished: {len(saved.metrics)} of '
            f"{saved.config.num_epochs} epochs are done.</p>"
        ]
    policy = evaluation.policies[evaluation.recommended]
    figures = [
        (html_page.interval(policy.mean_return), "mean return of an agent"),
        *((html_page.number(x), name.replace("_", " ")) for name, x in policy.statistics.items()),
        (str(evaluation.epoch), "epochs of learning"),
    ]
    text = (
        f"When all {evaluation.num_agents} agents play the learned policy, the average agent's "
        f"total reward over {evaluation.horizon} steps lies in this interval "
        f"({evaluation.confidence:.0%} confidence, {evaluation.num_trajectories} plays). "
    )
    certificate, cost = policy.exploitability, evaluation.lower_bound_cost
    if cost is not None:
        text += cost.advice(saved.directory.path) + "."
    if certificate is not None:
        largest = html_page.number(certificate.maximum.lower)
        figures.insert(0, (f"≥ {largest}", "largest exploitability"))
        count = len(certificate.agents)
        text += (
            f"{count} of the agents learned to deviate while all others went on as before. The "
            f"agent picked beforehand gains at least {largest} in total reward, the {count} of "
            f"them at least {html_page.number(certificate.mean.lower)} on average "
            f"({evaluation.confidence:.0%} confidence). Samples give no upper bound: another "
            "deviation may gain more."
        )
    return [html_page.cards(figures), f'<p class="lead">{escape(text)}</p>']


def _column(saved: SavedRun, name: str) -> Float[np.ndarray, " E"]:
    cells: list[Any] = [row.get(name) for row in saved.metrics]
    return np.asarray([np.nan if cell is None else cell for cell in cells], np.float64)
