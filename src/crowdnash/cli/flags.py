"""Flags of `crowdnash solve`: read from signatures and fields, so that each is written once.

The game's flags are the keywords of its `sample`, the learner's are its fields; the help texts are
those of their docstrings, and the defaults those of a preset, a file or a stored run.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import jax
from tyro.conf import arg

from crowdnash import games
from crowdnash.cli.devices import DeviceFlags
from crowdnash.cli.game_flags import game_subcommands, parameter_help, text_of
from crowdnash.cli.parsing import parse, with_canonical_game
from crowdnash.files import read_text
from crowdnash.games.base import TabularGame
from crowdnash.learners import registry
from crowdnash.runs.config import RunConfig, learner_settings, make_learner
from crowdnash.runs.setting_types import fits, is_union, setting_types

_DESCRIPTION = """\
Learn a policy for a game and certify how exploitable it is.

The learner is the first of these that suits the game and has all flags that are given:

{learners}

Their flags: crowdnash solve GAME --learner NAME --help.
"""


@dataclass(frozen=True)
class RunFlags:
    """The run and its directory."""

    seed: int
    """decides all random draws"""
    config: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(optional)")] = None
    """take the settings from this TOML file, as a run's config.toml is one; flags win"""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: a new one)")] = (
        None
    )
    """where to save the run: a new or empty directory"""
    resume: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(optional)")] = None
    """continue the run in this directory; its settings are then the defaults"""
    report: bool = True
    """draw pictures and write report.html at the end"""
    tensorboard: bool = False
    """write the metrics for TensorBoard too, into DIR/tensorboard"""


@dataclass(frozen=True)
class SolveRequest:
    """What `crowdnash solve` was asked for.

    Attributes:
        config: the settings, those of the stored run included.
        out: where a new run goes, or None.
        resume: the run to continue, or None.
        report: whether to write the report at the end.
        tensorboard: whether to write metrics for TensorBoard too.
        devices: which devices and processes share it.
    """

    config: RunConfig
    out: Path | None
    resume: Path | None
    report: bool
    tensorboard: bool
    devices: DeviceFlags = DeviceFlags()


def parse_solve(
    arguments: Sequence[str], stored_config: Callable[[Path], RunConfig]
) -> SolveRequest:
    """Parse the arguments after `crowdnash solve`.

    Args:
        arguments: the arguments.
        stored_config: reads the settings of a run directory.

    Raises:
        ValueError: no game, an unknown one, an unknown flag, a value of the wrong type or out of
            range, or a flag that contradicts the run that is to be resumed.
        SystemExit: after --help.
    """
    early = early_flags(arguments)
    stored = None
    if early.resume is not None:
        stored = stored_config(early.resume)
    elif early.config is not None:
        stored = RunConfig.from_toml(read_text(early.config), str(early.config))
    arguments = with_canonical_game(arguments)
    game = next((word for word in arguments if word in games.names()), stored and stored.game)
    name = early.learner or (registry.name_of(stored.learner) if stored else None)
    if name not in registry.LEARNERS:
        name = _learner_for(game, arguments, early.preset)
    settings = _learner_defaults(name, early.preset, stored, arguments)
    flags = parse(
        _solve_flags(game, name, settings, early.preset, stored),
        "solve",
        arguments,
        description=_description(),
    )
    for group in (flags.learner, flags.evaluation, flags.checkpoints):
        settings |= vars(group)
    run: RunFlags = flags.run
    del settings["preset"]  # its settings are the defaults of the others
    config = RunConfig.create(
        type(flags.game).game, game_parameters=vars(flags.game), seed=run.seed, **settings
    )
    if stored is not None and run.resume is not None:
        _refuse_differences(config, stored, run, early.preset)
    return SolveRequest(config, run.out, run.resume, run.report, run.tensorboard, flags.devices)


def _description() -> str:
    """The head of the help, with the first line of every learner's docstring."""
    heads = {
        n: (inspect.getdoc(kind) or "").split("\n")[0] for n, kind in registry.LEARNERS.items()
    }
    return _DESCRIPTION.format(learners="\n\n".join(f"{n}: {x}" for n, x in heads.items()))


def solve_records() -> tuple[type, ...]:
    """The records of all flags of a new run, one for each learner."""
    return tuple(
        _solve_flags(None, name, _learner_defaults(name, None, None, ()), None, None)
        for name in registry.LEARNERS
    )


class EarlyFlags(typing.NamedTuple):
    """The flags that decide the defaults of all others."""

    preset: str | None
    resume: Path | None
    config: Path | None
    learner: str | None


def early_flags(arguments: Sequence[str]) -> EarlyFlags:
    """Read them before the real parse, which reads them again and says what is wrong with them."""
    texts = _texts_of(EarlyFlags._fields, arguments)
    for name in ("resume", "config"):
        texts[name] = None if texts[name] is None else Path(texts[name])
    return EarlyFlags(**texts)


def _texts_of(flags: Iterable[str], arguments: Sequence[str]) -> dict[str, Any]:
    """The text after each of some flags; None without it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in flags:
        parser.add_argument(f"--{flag}", nargs="?")
    return vars(parser.parse_known_args(arguments)[0])


def _learner_for(game: str | None, arguments: Sequence[str], preset: str | None) -> str:
    """The first learner that suits the game and has every flag that is given."""
    words = {w[2:].split("=")[0].replace("-", "_") for w in arguments if w.startswith("--")}
    words |= {word.removeprefix("no_") for word in words}

    def num_known(name: str) -> int:
        own = setting_types(registry.LEARNERS[name])
        return len(words & own.keys()) + (preset in registry.LEARNERS[name].presets())

    names = sorted(registry.LEARNERS, key=lambda name: -num_known(name))  # stable
    game_class: Any = games.lookup(game) if game else TabularGame
    if issubclass(game_class, TabularGame):
        return names[0]
    sample = game_class.sample(jax.random.key(0))
    for name in names:
        try:
            make_learner(name, {}).check_suits(sample)
        except ValueError:
            continue
        return name
    return names[0]


def _learner_defaults(
    name: str, preset: str | None, stored: RunConfig | None, arguments: Sequence[str]
) -> dict[str, Any]:
    """The learner's settings where no flag is given."""
    presets = registry.lookup(name).presets()
    preset = preset if preset in presets else None
    if stored is None or registry.name_of(stored.learner) != name:
        chosen = presets[preset] if preset else next(iter(presets.values()))
        kinds = setting_types(registry.lookup(name))
        given = {
            flag: value for flag, value in _deciding(chosen, arguments) if fits(value, kinds[flag])
        }
        return learner_settings(make_learner(name, given, preset))
    settings = learner_settings(stored.learner)
    if preset is None:
        return settings
    # Of a stored run, a preset changes what presets differ in, and nothing else.
    each = [learner_settings(make_learner(name, {}, one)) for one in presets]
    chosen = learner_settings(make_learner(name, {}, preset))
    return settings | {n: x for n, x in chosen.items() if any(one[n] != x for one in each)}


def _deciding(preset: Callable[..., Any], arguments: Sequence[str]) -> list[tuple[str, Any]]:
    """The flags that the preset's signature names: its other settings depend on them.

    The real parse reads them again, and says what is wrong with them.
    """
    parameters = inspect.signature(preset).parameters.items()
    deciding = [name for name, parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    texts = _texts_of(deciding, arguments)
    return [(name, int(x) if x.isdigit() else x) for name, x in texts.items() if x is not None]


def _solve_flags(
    game: str | None,
    learner: str,
    settings: Mapping[str, Any],
    preset: str | None,
    stored: RunConfig | None,
) -> Any:
    """Return the class of all flags, with their defaults."""
    learner_class = registry.LEARNERS[learner]
    presets: Any = tuple(learner_class.presets())
    kinds = {name: _for_flags(kind) for name, kind in setting_types(learner_class).items()}
    choices: Any = {
        "learner": (Literal[tuple(registry.LEARNERS)], learner, "the learner"),
        "preset": (
            Literal[presets] if stored is None else Optional[Literal[presets]],  # noqa: UP045
            (preset if preset in presets else presets[0]) if stored is None else None,
            "where the learner's settings start from; single flags override it",
        ),
    }
    help_texts = parameter_help(inspect.getdoc(learner_class) or "")
    own = {
        name: (kinds[name], value, help_texts.get(name, ""))
        for name, value in settings.items()
        if fits(value, kinds[name])
    }
    some = stored or RunConfig.create(game or games.tabular_names()[0])
    game_flags, union = game_subcommands(games.names(), stored)
    parts: list[Any] = [
        ("game", union) if stored is None else ("game", union, game_flags[stored.game]()),
        _group("learner", choices | own),
        _group("evaluation", _rows(some.evaluation)),
        _group("checkpoints", _rows(some.checkpoints)),
        ("run", RunFlags, RunFlags(seed=stored.seed if stored else 0)),
        ("devices", DeviceFlags, DeviceFlags()),
    ]
    return dataclasses.make_dataclass("SolveFlags", parts, frozen=True, kw_only=True)


def _group(name: str, rows: Mapping[str, tuple[Any, Any, str]]) -> tuple[str, type, Any]:
    """A field of the record of all flags: a record of flags by type, default and help."""
    fields = [
        (
            flag,
            Annotated[kind, arg(help=text)],
            tuple(default) if isinstance(default, list) else default,
        )
        for flag, (kind, default, text) in rows.items()
    ]
    record = dataclasses.make_dataclass(f"{name.title()}Flags", fields, frozen=True)
    return name, record, record()


def _rows(settings: Any) -> dict[str, tuple[Any, Any, str]]:
    """Type, default and help of every field of a record of settings."""
    kinds = typing.get_type_hints(type(settings))
    help_texts = parameter_help(inspect.getdoc(type(settings)) or "")
    return {name: (kinds[name], x, help_texts[name]) for name, x in vars(settings).items()}


def _for_flags(kind: Any) -> Any:
    """The type without lists of numbers, where something shorter can be said too."""
    options = typing.get_args(kind) if is_union(kind) else (kind,)
    short = tuple(option for option in options if typing.get_origin(option) is not tuple)
    return typing.Union[short or options]  # noqa: UP007 (built at run time)


def _refuse_differences(
    config: RunConfig, stored: RunConfig, run: RunFlags, preset: str | None
) -> None:
    """Raise `ValueError` if a flag is not what the run began with, except for more epochs."""
    if run.out is not None and run.resume and run.out.resolve() != run.resume.resolve():
        raise ValueError(f"--out {run.out} contradicts --resume {run.resume}")
    if config.game != stored.game:
        raise ValueError(
            f"the game {config.game} contradicts {run.resume}, which is of {stored.game}"
        )
    before = dict(stored.settings())
    for name, new in config.settings():
        old = before.get(name)
        if new == old or (name == "num_epochs" and new > before[name]):
            continue
        what = f"--{name.replace('_', '-')} {text_of(new)}"
        has = text_of(old)
        presets = type(stored.learner).presets()
        if (
            preset is not None
            and preset in presets
            and new == learner_settings(presets[preset]()).get(name)
        ):
            what, has = f"--preset {preset}", f"{name} {has}"
        hint = "; it can only grow" if name == "num_epochs" else ""
        raise ValueError(f"{what} contradicts {run.resume}, which has {has}{hint}")
