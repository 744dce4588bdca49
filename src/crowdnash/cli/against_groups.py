"""`crowdnash symmetry --against-groups`: call the library, print, save picture and numbers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from crowdnash.approximate_symmetry.against_groups import GroupCountResult, symmetry_against_groups
from crowdnash.games.base import PopulationGame, TabularGame
from crowdnash.reports.group_figures import symmetry_over_groups
from crowdnash.reports.style import save_figure

_CONFIDENCE = 0.95


def show_against_groups(
    game: TabularGame, group_counts: str, *, out: Path | None, seed: int, as_json: bool
) -> None:
    """Solve, play and certify the equilibrium for several numbers of groups; print or save.

    Args:
        game: a population game.
        group_counts: the numbers of groups, with commas between them.
        out: a new or empty directory for the numbers and the picture, or None.
        seed: decides the play.
        as_json: print the numbers as JSON instead of a table.

    Raises:
        ValueError: `group_counts` or `out` is not as above, or the game is no population game.
    """
    if not isinstance(game, PopulationGame):
        raise ValueError(f"--against-groups needs a population game; {game.name} is not")
    counts = _group_counts(group_counts)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out must be new or empty: {out} is not")
    console = Console(stderr=as_json)
    with console.status("") as status:

        def report(result: GroupCountResult) -> None:
            status.update(f"{result.num_groups} groups done")

        results = symmetry_against_groups(
            game, counts, key=jax.random.key(seed), seed=seed, callback=report
        )
    record = {
        "game": game.name,
        "num_agents": game.num_agents,
        "horizon": game.horizon,
        "confidence": _CONFIDENCE,
        "results": [dataclasses.asdict(one) for one in results],
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "against_groups.json").write_text(json.dumps(record, indent=2) + "\n")
        figure = symmetry_over_groups(results, game.name, game.num_agents, _CONFIDENCE)
        save_figure(figure, out / "against_groups.png")
    if as_json:
        print(json.dumps(record, indent=2))
    else:
        console.print(_against_groups_table(game, results))


def _group_counts(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--against-groups must be integers with commas between them, not {text!r}"
        ) from None


def _against_groups_table(game: TabularGame, results: Sequence[GroupCountResult]) -> Table:
    table = Table(
        title=f"{game.name}, {game.num_agents} agents: exact mean-field equilibrium of G groups, "
        "played by all",
        caption=f"Exploitability in total reward: measured, {_CONFIDENCE:.0%} intervals; Theorem "
        f"1's bounds, sharper and mended (trivial: {results[0].trivial_bound:.4g}); what is left "
        "in the mean-field game."
        + ("" if all(one.certified for one in results) else " Bounds rest on searched values."),
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    for name in ("G", "alpha", "beta", "largest", "mean", "sharper", "mended", "left"):
        table.add_column(name, justify="right")
    for one in results:
        bounds = (
            "-" if x is None else f"{x:.{digits}g}"
            for x, digits in ((one.sharper_bound, 3), (one.bound, 2))
        )
        table.add_row(
            str(one.num_groups),
            interval_text(one.alpha, 3),
            interval_text(one.beta, 3),
            f"{one.maximum.lower:.2f}..{one.maximum.upper:.2f}",
            f"{one.mean.lower:.3f}..{one.mean.upper:.3f}",
            *bounds,
            f"{one.mean_field_exploitability:.1g}",
        )
    return table


def interval_text(interval: tuple[float, float], digits: int = 4) -> str:
    """One number if the ends are equal."""
    low, high = (f"{end:.{digits}g}" for end in interval)
    return low if interval[0] == interval[1] else f"{low} to {high}"
