"""`crowdnash symmetry` and `crowdnash mean-field`: parse, call the library, print."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table
from tyro.conf import arg

from crowdnash import games, mean_field
from crowdnash.approximate_symmetry.bounds import NashBound, bound_exists, nash_bound
from crowdnash.approximate_symmetry.measurement import Symmetry, symmetry
from crowdnash.cli.against_groups import interval_text, show_against_groups
from crowdnash.cli.flags import game_subcommands
from crowdnash.cli.parsing import parse
from crowdnash.games.base import TabularGame
from crowdnash.mean_field.induced import induced_game
from crowdnash.mean_field.solvers import MeanFieldSolution, Method
from crowdnash.runs.config import RunConfig

Groups = Literal["symmetric", "independent"] | int


@dataclass(frozen=True)
class SymmetryOptions:
    """What to measure."""

    groups: Annotated[Groups, arg(metavar="{symmetric,independent}|INT")] = "symmetric"
    """measure within these groups instead of over all agents"""
    seed: int = 0
    """decides the game's draw and the search where values are not exact"""
    json: bool = False
    """print the numbers as JSON"""
    against_groups: Annotated[
        str | None, arg(metavar="INT,INT,...", help_behavior_hint="(default: none)")
    ] = None
    """for these numbers of groups: also solve, play and certify the mean-field equilibrium"""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: none)")] = None
    """with --against-groups: new or empty directory for the picture and the numbers"""


@dataclass(frozen=True)
class MeanFieldOptions:
    """How to solve."""

    method: Method = "mirror_descent"
    """algorithm"""
    num_iterations: int = 2000
    """iterations at most"""
    tolerance: float = 1e-6
    """exploitability at which to stop, in the game's units"""
    temperature: float = 0.0
    """weight of the entropy bonus, in reward units"""
    step_size: Annotated[
        float | None, arg(metavar="FLOAT", help_behavior_hint="(default: the method's)")
    ] = None
    """step size of the method"""
    groups: Annotated[Groups, arg(metavar="{symmetric,independent}|INT")] = "symmetric"
    """one population, or one for each of these groups"""
    seed: int = 0
    """decides the game's draw"""
    json: bool = False
    """print the solution as JSON"""


def show_symmetry(arguments: Sequence[str]) -> None:
    """Run `crowdnash symmetry` with the arguments after it.

    Raises:
        ValueError: a bad argument, or a game that breaks its contract.
    """
    game, options = _parse(arguments, "symmetry", SymmetryOptions)
    if options.against_groups is not None:
        show_against_groups(
            game, options.against_groups, out=options.out, seed=options.seed, as_json=options.json
        )
        return
    if options.out is not None:
        raise ValueError("--out needs --against-groups")
    sym = symmetry(game, options.groups, seed=options.seed)
    bound = nash_bound(game, sym) if bound_exists(game, sym) else None
    if options.json:
        print(json.dumps(_symmetry_record(game, sym, bound), indent=2))
        return
    console = Console()
    console.print(_symmetry_table(game, sym))
    if bound is not None:
        console.print(_bound_table(bound))


def show_mean_field(arguments: Sequence[str]) -> None:
    """Run `crowdnash mean-field` with the arguments after it.

    Raises:
        ValueError: a bad argument, or a game that breaks its contract.
    """
    game, options = _parse(arguments, "mean-field", MeanFieldOptions)
    induced = induced_game(game, options.groups)
    solution = mean_field.solve(
        induced,
        options.method,
        num_iterations=options.num_iterations,
        tolerance=options.tolerance,
        temperature=options.temperature,
        step_size=options.step_size,
    )
    if options.json:
        record = {
            "game": game.name,
            "method": options.method,
            "exploitability": float(solution.exploitability),
            "converged": bool(solution.converged),
            "iterations": int(solution.num_iterations),
            "policy": np.asarray(solution.policy).tolist(),
        }
        print(json.dumps(record, indent=2))
        return
    console = Console()
    console.print(_solution_table(game, induced, options.method, solution))
    if not solution.converged:
        console.print(
            "Where iterates circle, a small --temperature (say 0.003) or another --step-size helps."
        )


def options_record(options: type) -> type:
    """The record of a command's flags: a game with its parameters, and the command's options."""
    _, union = game_subcommands(games.tabular_names())
    return dataclasses.make_dataclass(
        "Flags", [("game", union), ("options", options, options())], frozen=True, kw_only=True
    )


def _parse(arguments: Sequence[str], command: str, options: type) -> tuple[TabularGame, Any]:
    flags: Any = parse(options_record(options), command, arguments)
    config = RunConfig.create(
        type(flags.game).game,
        game_parameters=dataclasses.asdict(flags.game),
        seed=flags.options.seed,
    )
    game = config.draw_game()
    assert isinstance(game, TabularGame)  # the flags know no other
    return game, flags.options


def _symmetry_table(game: TabularGame, sym: Symmetry) -> Table:
    table = Table(
        title=f"{game.name}, {game.num_agents} agents, "
        + ("one group" if sym.num_groups == 1 else f"{sym.num_groups} groups"),
        title_justify="left",
    )
    table.add_column("quantity")
    table.add_column("value", justify="right")
    table.add_column("where")
    table.add_row("alpha (transitions, L1)", interval_text(sym.alpha), _where(game, sym, "alpha"))
    table.add_row("beta (reward per step)", interval_text(sym.beta), _where(game, sym, "beta"))
    table.add_row("beta / reward range", interval_text(sym.relative_beta), "")
    table.add_row("reward range", f"{sym.reward_range.lower:.4g}, {sym.reward_range.upper:.4g}")
    if sym.lipschitz is not None:
        moduli = sym.lipschitz
        for name in ("K_s", "K_a", "K_mu", "L_s", "L_a", "L_mu", "L_pop", "L_pop_sharper"):
            table.add_row(name, f"{getattr(moduli, name):.4g}", "" if moduli.exact else "searched")
    if sym.kappa is not None:
        table.add_row("kappa (sparsity)", str(sym.kappa))
    if sym.monotone is not None:
        for sense in ("everywhere", "along_flows"):
            verdict = getattr(sym.monotone, sense)
            table.add_row(f"monotone, {sense.replace('_', ' ')}", verdict.status, verdict.reason)
    return table


def _bound_table(bound: NashBound) -> Table:
    table = Table(
        title="Theorem 1: exploitability of an exact MFG-NE played by all agents is at most"
        + ("" if len(bound.group_values) == 1 else " (the largest over groups)"),
        title_justify="left",
    )
    table.add_column("form")
    table.add_column("bound", justify="right")
    table.add_column("regime of L_pop")
    rows = (
        ("mended constants", bound.value, bound.regime, bound.vacuous),
        ("sharper constants", bound.sharper, bound.regime_sharper, bound.sharper_vacuous),
    )
    for form, value, regime, vacuous in rows:
        remark = "; says no more than the trivial bound" if vacuous else ""
        table.add_row(form, f"{value:.4g}", f"{regime}{remark}")
    table.add_row("trivial: H times the reward range", f"{bound.trivial:.4g}", "")
    return table


def _solution_table(
    game: TabularGame, induced: mean_field.MeanFieldGame, method: str, solution: MeanFieldSolution
) -> Table:
    table = Table(
        title=f"Mean-field game of {game.name}: {method}, exploitability "
        f"{float(solution.exploitability):.3g} after {int(solution.num_iterations)} iterations"
        + ("" if solution.converged else "; tolerance not reached"),
        caption="Shares of the population along the flow, the busiest states.",
        title_justify="left",
        caption_justify="left",
    )
    flow = np.asarray(mean_field.population_flow(induced, solution.policy))
    if flow.ndim == 4:
        flow = np.tensordot(np.asarray(induced.group_weights), flow, 1)
    table.add_column("step", justify="right")
    columns = _flow_columns(game, flow)
    for name in columns:
        table.add_column(name, justify="right")
    for h in range(game.horizon):
        table.add_row(str(h), *(f"{shares[h]:.4f}" for shares in columns.values()))
    return table


def _flow_columns(game: TabularGame, flow: np.ndarray) -> dict[str, np.ndarray]:
    """What to show of a flow [H,S,A]: pairs if few, else the marginals, else the busiest states."""
    states, actions = game.state_names, game.action_names
    if len(states) * len(actions) <= _MOST_COLUMNS:
        return {
            f"{s}, {a}": flow[:, i, j] for i, s in enumerate(states) for j, a in enumerate(actions)
        }
    busiest = np.sort(np.argsort(-flow.sum((0, 2)), kind="stable")[:_MOST_COLUMNS])
    in_state = {f"in {states[i]}": flow[:, i].sum(-1) for i in busiest}
    if len(actions) > _MOST_COLUMNS:
        return in_state
    return in_state | {f"does {a}": flow[:, :, j].sum(-1) for j, a in enumerate(actions)}


_MOST_COLUMNS = 4


def _where(game: TabularGame, sym: Symmetry, which: str) -> str:
    place = getattr(sym, f"{which}_attained")
    if place is None:
        return ""
    return (
        f"agent {place.agent}, {game.state_names[place.state]}, "
        f"{game.action_names[place.action]}, step {place.step}"
    )


def _symmetry_record(game: TabularGame, sym: Symmetry, bound: NashBound | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "game": game.name,
        "num_agents": game.num_agents,
        "num_groups": sym.num_groups,
        "alpha": list(sym.alpha),
        "beta": list(sym.beta),
        "relative_beta": list(sym.relative_beta),
        "exact": sym.exact,
        "reward_range": list(sym.reward_range),
        "kappa": sym.kappa,
    }
    if sym.lipschitz is not None:
        moduli = sym.lipschitz
        record["lipschitz"] = dataclasses.asdict(moduli) | {
            "L_pop": moduli.L_pop,
            "L_pop_sharper": moduli.L_pop_sharper,
        }
        if sym.num_groups > 1:
            record["group_alpha"] = sym.group_alpha.tolist()
            record["group_beta"] = sym.group_beta.tolist()
    if sym.monotone is not None:
        record["monotone"] = {
            sense: getattr(sym.monotone, sense).status for sense in ("everywhere", "along_flows")
        }
    if bound is not None:
        record["theorem_1"] = {
            "mended": bound.value,
            "sharper": bound.sharper,
            "trivial": bound.trivial,
            "certified": bound.certified,
        }
        if sym.num_groups > 1:
            record["theorem_1"] |= {
                "group_mended": bound.group_values.tolist(),
                "group_sharper": bound.group_sharper.tolist(),
            }
    return record
