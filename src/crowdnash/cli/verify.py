"""`crowdnash verify`: make a saved certificate again and say whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from crowdnash.cli.parsing import parse

if TYPE_CHECKING:
    from crowdnash.games.base import DynamicGame
    from crowdnash.policies.base import Policy

_FAILED = 1


@dataclass(frozen=True)
class VerifyFlags:
    """Make a certificate again, with the same random draws and with fresh ones; exit 0 or 1."""

    certificate: Annotated[Positional[Path], arg(metavar="FILE")]
    """the certificate, a .json file with its .npz beside it"""
    game: Annotated[
        str | None, arg(metavar="GAME", help_behavior_hint="(default: the certificate's run)")
    ] = None
    """its game: a run directory, a run's .json or .toml settings, or FILE.py:NAME, a file of your
    own and the name of the game in it (or of a function that makes it)"""
    policy: Annotated[
        Path | None, arg(metavar="FILE", help_behavior_hint="(default: the certificate's run)")
    ] = None
    """its policy, an .npz file"""


def show_verify(arguments: Sequence[str]) -> int:
    """Run `crowdnash verify` with the arguments after it."""
    flags = parse(VerifyFlags, "verify", arguments)

    from crowdnash.certificates.result import Exploitability
    from crowdnash.certificates.verification import verify_certificate

    certificate = Exploitability.load(flags.certificate)
    game = _game(flags.game or str(flags.certificate.parent))
    policy = _policy(flags, game)
    verification = verify_certificate(certificate, game, policy)
    print(certificate.statement)
    for problem in verification.problems:
        print(f"does not hold: {problem}")
    if not verification.holds:
        return _FAILED
    fresh = verification.fresh
    assert fresh is not None  # it holds, so it was played
    print(
        "verified: equal to rounding with the same random draws; with fresh ones the largest gain "
        f"lies between {fresh.maximum.lower:.4g} and {fresh.maximum.upper:.4g}"
    )
    return 0


def _game(source: str) -> DynamicGame:
    """The game of a run, of its settings, or of a Python file of the user's own."""
    file, _, name = source.rpartition(":")
    if file.endswith(".py"):
        return _own_game(Path(file), name)

    from crowdnash.runs.config import RunConfig
    from crowdnash.runs.directory import RunDirectory
    from crowdnash.runs.experiment import load_config

    path = Path(source)
    if path.is_dir() and not (path / "config.json").is_file():
        raise ValueError(f"{path} is not a run directory: name the game with --game")
    if path.suffix == ".toml":
        return RunConfig.from_toml(path.read_text(encoding="utf-8"), path.name).draw_game()
    if path.suffix == ".json":
        return RunConfig.from_json(path.read_text(encoding="utf-8"), path.name).draw_game()
    return load_config(RunDirectory.open(path)).draw_game()


def _own_game(file: Path, name: str) -> DynamicGame:
    import runpy

    from crowdnash.games.base import DynamicGame

    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    made: Any = runpy.run_path(str(file)).get(name)
    if made is not None and not isinstance(made, DynamicGame):
        made = made() if callable(made) else None
    if not isinstance(made, DynamicGame):
        raise ValueError(f"{file} has no game {name!r}, nor a function of that name that makes one")
    return made


def _policy(flags: VerifyFlags, game: DynamicGame) -> Policy:
    from crowdnash.runs.directory import RunDirectory
    from crowdnash.runs.evaluation import uniform_like
    from crowdnash.runs.saved_policies import load_policies, load_policy

    if flags.policy is not None:
        return load_policy(flags.policy)
    folder, name = flags.certificate.parent, flags.certificate.stem.removeprefix("certificate-")
    if not (folder / "config.json").is_file():
        return load_policy(folder / "policy.npz")
    run = RunDirectory.open(folder)
    if name == "uniform":
        from crowdnash.games.base import TabularGame

        some = next(iter(load_policies(run).policies.values()))
        if not isinstance(game, TabularGame):
            raise ValueError("the uniform policy has a certificate in tabular games only")
        return uniform_like(game, some)
    return load_policy(run.policy_file(name))
