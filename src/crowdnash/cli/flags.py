"""Flags of `crowdnash solve`: read from the games' own signatures, the preset and a stored run."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import arg

from crowdnash import games
from crowdnash.cli.parsing import parse, with_canonical_game
from crowdnash.games.registry import sample_parameters
from crowdnash.learners.temporal_difference import TDStep
from crowdnash.policies.identity import IdentityName
from crowdnash.runs.config import RunConfig
from crowdnash.runs.experiment_config import (
    ExperimentConfig,
    Groups,
    Iterate,
    Preset,
    StepSize,
)
from crowdnash.runs.ppo_config import PPOConfig

_DESCRIPTION = """\
Learn a policy for a game and certify how exploitable it is.

Tables (policy mirror descent) for games with few states; neural networks (PPO) for a game that is
only a simulator, as taxi is, or with --identity none|one-hot|number|independent|group|parameters.
Their flags: crowdnash solve sis --help, crowdnash solve taxi --help.
"""


@dataclass(frozen=True)
class LearnerFlags:
    """Policy mirror descent. The preset gives the defaults; single flags override it."""

    preset: Preset
    """constant mirror step without mixing, or what the convergence theorem asks for"""
    groups: Annotated[Groups, arg(metavar="{symmetric,independent}|INT")]
    """who shares a policy: all agents, nobody, or this many groups of similar agents"""
    num_epochs: int
    """epochs of policy mirror descent"""
    td_epochs: int
    """trajectories for each policy evaluation"""
    temperature: float
    """weight of the entropy bonus, in reward units"""
    step_size: Annotated[StepSize, arg(metavar="theorem|FLOAT")]
    """mirror-descent step: 1/sqrt(t+1), or a constant"""
    mixing: bool
    """mix epoch t's policy with the uniform one, with weight 1/(t+1)"""
    td_step_size: TDStep
    """step-size rule of temporal-difference learning"""
    td_delta: float
    """visitation probability that the theorem's rule takes"""


@dataclass(frozen=True)
class EvaluationFlags:
    """How exploitability is certified, along the way and at the end."""

    evaluate_every: int
    """epochs between certificates; 0: only after the last epoch"""
    iterate: Iterate
    """the policy that is certified along the way (at the end both are)"""
    num_evaluation_trajectories: int
    """simulated population paths per certificate"""
    confidence: float
    """coverage of the intervals"""
    own_influence_agents: int
    """agents whose own influence on the population is measured at the end"""


@dataclass(frozen=True)
class RunFlags:
    """The run and its directory."""

    seed: int
    """decides all random draws"""
    checkpoint_every: int
    """epochs between checkpoints; 0: by time alone"""
    checkpoint_seconds: float
    """a checkpoint is also saved after this many seconds; 0: by epochs alone"""
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
class PPOFlags:
    """Proximal policy optimisation of a neural policy. The defaults are the paper's."""

    identity: IdentityName
    """what the policy is told of the agent it acts for"""
    groups: int
    """number of groups of similar agents, for --identity group"""
    num_epochs: int
    """epochs of play and improvement"""
    annealing_epochs: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: --num-epochs)")
    ]
    """epochs over which the learning rate falls to 0; 0: it stays as it is"""
    num_trajectories: int
    """plays of all agents in every epoch"""
    num_passes: int
    """passes over an epoch's samples"""
    minibatch_size: int
    """samples of one network in a minibatch, or all it has"""
    learning_rate: float
    """of Adam, at the start"""
    discount: float
    """of rewards, per step"""
    gae_lambda: float
    """of generalised advantage estimation"""
    entropy_weight: float
    """of the entropy bonus; 0 is the paper's Symm-NN-NR"""
    value_weight: float
    """of the value loss"""
    max_gradient_norm: float
    """gradients longer than this are shortened to it"""
    clip: float
    """range of the probability ratio"""
    clip_values: bool
    """clip the value loss likewise"""
    normalise_advantages: bool
    """within each minibatch"""
    hidden_layers: int
    """of the policy and of the value network"""
    hidden_width: int
    """units of a hidden layer"""
    horizon_is_end: bool
    """nothing comes after the last step (else play is only cut off there)"""
    matrix_dtype: Literal["float32", "bfloat16"]
    """type of the factors of matrix products"""


@dataclass(frozen=True)
class PPOEvaluationFlags:
    """How the final policy is judged."""

    num_evaluation_trajectories: int
    """plays of all agents"""
    best_response_agents: int
    """agents whose best response is learned at the end; 0: none"""
    best_response_epochs: int
    """epochs that each best response gets"""
    confidence: float
    """coverage of the intervals"""


_FLAG_GROUPS: dict[type[RunConfig], tuple[type, ...]] = {
    ExperimentConfig: (LearnerFlags, EvaluationFlags, RunFlags),
    PPOConfig: (PPOFlags, PPOEvaluationFlags, RunFlags),
}


@dataclass(frozen=True)
class SolveRequest:
    """What `crowdnash solve` was asked for.

    Attributes:
        config: the settings, those of the stored run included.
        out: where a new run goes, or None.
        resume: the run to continue, or None.
        report: whether to write the report at the end.
        tensorboard: whether to write metrics for TensorBoard too.
    """

    config: RunConfig
    out: Path | None
    resume: Path | None
    report: bool
    tensorboard: bool


def parse_solve(
    arguments: Sequence[str], stored_config: typing.Callable[[Path], RunConfig]
) -> SolveRequest:
    """Parse the arguments after `crowdnash solve`.

    A game that is only a simulator, or `--identity`, asks for a neural policy.

    Args:
        arguments: the arguments.
        stored_config: reads the settings of a run directory.

    Raises:
        ValueError: no game, an unknown one, an unknown flag, a value of the wrong type or out of
            range, or a flag that contradicts the run that is to be resumed.
        SystemExit: after --help.
    """
    early = _early_flags(arguments)
    stored = None if early.resume is None else stored_config(early.resume)
    arguments = with_canonical_game(arguments)
    if stored is None and not {*games.names(), "-h", "--help"} & set(arguments):
        raise ValueError(f"game must come first: one of {', '.join(games.names())}")
    config_class = type(stored) if stored is not None else _config_class(arguments)
    flags = parse(
        _solve_flags(config_class, stored, early.preset),
        "solve",
        arguments,
        description=_DESCRIPTION,
    )
    settings: dict[str, Any] = {}
    for group in (flags.learner, flags.evaluation, flags.run):
        settings |= {item.name: getattr(group, item.name) for item in dataclasses.fields(group)}
    out, resume, report, tensorboard = (
        settings.pop(name) for name in ("out", "resume", "report", "tensorboard")
    )
    config = config_class.create(
        type(flags.game).game,
        game_parameters={
            item.name: getattr(flags.game, item.name) for item in dataclasses.fields(flags.game)
        },
        **settings,
    )
    if stored is not None:
        _refuse_differences(config, stored, resume, out)
    return SolveRequest(config, out, resume, report, tensorboard)


def solve_records() -> tuple[type, ...]:
    """The records of all flags of a new run, one for each kind of settings."""
    return tuple(_solve_flags(kind, None, "practical") for kind in _FLAG_GROUPS)


def _config_class(arguments: Sequence[str]) -> Any:
    """Whose settings the flags are: those of a new run."""
    simulator_only = bool(arguments) and arguments[0] in set(games.names()) - set(
        games.tabular_names()
    )
    asked = any(word.split("=")[0] == "--identity" for word in arguments)
    return PPOConfig if simulator_only or asked else ExperimentConfig


class _EarlyFlags(typing.NamedTuple):
    preset: Preset
    resume: Path | None


def _early_flags(arguments: Sequence[str]) -> _EarlyFlags:
    # These two decide the defaults of all others, so they are read before the real parse, which
    # reads them again and reports what is wrong with them.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", nargs="?")
    parser.add_argument("--resume", nargs="?", type=Path)
    found, _ = parser.parse_known_args(arguments)
    preset = found.preset if found.preset in typing.get_args(Preset) else "practical"
    return _EarlyFlags(preset=preset, resume=found.resume)


def _solve_flags(config_class: Any, stored: RunConfig | None, preset: Preset) -> Any:
    """Return the class of all flags, with defaults from a stored config or from a preset."""
    if stored is not None:
        defaults: dict[str, Any] = {
            item.name: getattr(stored, item.name) for item in dataclasses.fields(stored)
        }
    else:
        defaults = {
            item.name: item.default
            for item in dataclasses.fields(config_class)
            if item.default is not dataclasses.MISSING
        }
        defaults |= config_class.create_defaults(preset)
    names = games.names() if config_class is PPOConfig else games.tabular_names()
    game_flags, union = game_subcommands(names, stored)
    fields: list[Any] = [
        ("game", union) if stored is None else ("game", union, game_flags[stored.game]())
    ]
    for name, flags in zip(
        ("learner", "evaluation", "run"), _FLAG_GROUPS[config_class], strict=True
    ):
        known = {
            item.name: defaults[item.name]
            for item in dataclasses.fields(flags)
            if item.name in defaults
        }
        fields.append((name, flags, flags(**known)))
    return dataclasses.make_dataclass("SolveFlags", fields, frozen=True, kw_only=True)


def game_subcommands(
    names: Sequence[str], stored: RunConfig | None = None
) -> tuple[dict[str, type], Any]:
    """Return the games' records of flags by name, and their union as subcommands."""
    game_flags = {name: _game_flags(games.lookup(name), stored) for name in names}
    union = typing.Union[  # noqa: UP007 (built at run time)
        tuple(
            Annotated[
                flags,
                tyro.conf.subcommand(name, description=games.lookup(name).summary),
            ]
            for name, flags in game_flags.items()
        )
    ]
    return game_flags, union


def _game_flags(game_class: Any, stored: RunConfig | None) -> type:
    """Return a record of the keywords of a game's `sample`, with defaults and help."""
    values = stored.game_parameters if stored and stored.game == game_class.name else {}
    help_texts = parameter_help(inspect.getdoc(game_class.sample) or "")
    fields = []
    for name, parameter in sample_parameters(game_class).items():
        annotation = parameter.annotation
        if _takes_mapping(annotation):
            annotation = _NUMBERS
        value = values.get(name, parameter.default)
        # A dataclass refuses a mapping as a plain default; the value is never changed, though.
        default = dataclasses.field(default_factory=lambda value=value: value)
        fields.append((name, Annotated[annotation, arg(help=help_texts.get(name, ""))], default))
    return dataclasses.make_dataclass(
        game_class.name, fields, namespace={"game": game_class.name}, frozen=True
    )


def parameter_help(docstring: str) -> dict[str, str]:
    """Return the help text of each argument that a docstring lists.

    Read are lines `name: text`, and list items "- `name`: text", with their continuation lines.
    """
    found: dict[str, str] = {}
    current = None
    pattern = re.compile(r"^\s*(?:[-*]\s+)?`{0,2}(\w+)`{0,2}(?:\s*\([^)]*\))?:\s+(.*)$")
    for line in docstring.splitlines():
        match = pattern.match(line)
        if match:
            current = match[1]
            found[current] = match[2].strip()
        elif not line.strip() or not line.startswith(" "):
            current = None
        elif current is not None:
            found[current] += " " + line.strip()
    return {name: text.replace("`", "").rstrip(".") for name, text in found.items()}


def _takes_mapping(annotation: Any) -> bool:
    options = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (typing.Union, types.UnionType)
        else (annotation,)
    )
    kinds = [typing.get_origin(option) or option for option in options]
    return any(isinstance(kind, type) and issubclass(kind, Mapping) for kind in kinds)


def _numbers_from_text(texts: list[str]) -> float | dict[str, float]:
    text = texts[0]
    if "=" not in text:
        return float(text)
    pairs = [part.split("=", 1) for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{text!r} is neither a number nor NAME=NUMBER,NAME=NUMBER,...")
    return {name.strip().replace("-", "_"): float(number) for name, number in pairs}


def _numbers_to_text(value: float | Mapping[str, float]) -> list[str]:
    if isinstance(value, Mapping):
        return [",".join(f"{name}={number}" for name, number in value.items())]
    return [str(value)]


_NUMBERS = Annotated[
    Any,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT|NAME=FLOAT,...",
        instance_from_str=_numbers_from_text,
        is_instance=lambda value: isinstance(value, int | float | Mapping),
        str_from_instance=_numbers_to_text,
    ),
]


def _refuse_differences(
    given: RunConfig, stored: RunConfig, resume: Path, out: Path | None
) -> None:
    if out is not None and out.resolve() != resume.resolve():
        raise ValueError(f"--out {out} contradicts --resume {resume}")
    if given.game != stored.game:
        raise ValueError(f"the game {given.game} contradicts {resume}, which is of {stored.game}")
    pairs: dict[str, tuple[Any, Any]] = {
        item.name: (getattr(given, item.name), getattr(stored, item.name))
        for item in dataclasses.fields(given)
        if item.name != "game_parameters"
    } | {
        name: (value, stored.game_parameters[name]) for name, value in given.game_parameters.items()
    }
    for name, (new, old) in pairs.items():
        if new == old or (name == "num_epochs" and new > old):
            continue
        hint = "; it can only grow" if name == "num_epochs" else ""
        raise ValueError(
            f"--{name.replace('_', '-')} {_text(new)} contradicts {resume}, "
            f"which has {_text(old)}{hint}"
        )


def _text(value: object) -> str:
    return _numbers_to_text(value)[0] if isinstance(value, Mapping) else str(value)
