"""The policies of a run in its directory, whatever kind they are of.

`policies.json` is written last: it names the policies, the recommended one first, and says how many
epochs are behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from crowdnash.files import read_json, write_json
from crowdnash.games.base import DynamicGame
from crowdnash.policies.base import Policy, check_policy
from crowdnash.policies.features import FeaturePolicy
from crowdnash.policies.neural import NeuralPolicy
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.runs.directory import RunDirectory

_FORMAT = 1


class SavedPolicies(NamedTuple):
    """The policies by name, the recommended one first, and the epochs behind them."""

    policies: dict[str, Policy]
    epoch: int


def save_policies(directory: RunDirectory, policies: Mapping[str, Any], epoch: int) -> None:
    """Write policies into a run: "last" and "average" under their names, others under their own.

    Where there is no "average", policy.npz is the recommended policy.

    Raises:
        OSError: they cannot be written.
    """
    directory.policies.unlink(missing_ok=True)
    for name, policy in policies.items():
        policy.save(directory.policy_file(name))
    if "average" not in policies:
        next(iter(policies.values())).save(directory.policy)
    content = {"format": _FORMAT, "epoch": epoch, "policies": list(policies)}
    write_json(directory.policies, content)


def load_policies(directory: RunDirectory, game: DynamicGame | None = None) -> SavedPolicies:
    """Read what `save_policies` wrote; with a game, make sure that the policies are for it.

    Raises:
        ValueError: there are none, a file is damaged, or a policy is for another game.
    """
    if not directory.policies.exists():
        raise ValueError(f"{directory.path} has no final policy yet; resume the run first")
    stored = read_json(directory.policies)
    try:
        if stored["format"] != _FORMAT:
            raise ValueError(f"it has format {stored['format']!r}, not {_FORMAT}")
        names, epoch = [str(name) for name in stored["policies"]], int(stored["epoch"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{directory.policies} is damaged: {error}") from None
    policies = {name: load_policy(directory.policy_file(name), game) for name in names}
    if "average" not in names:
        load_policy(directory.policy, game)
        recommended = directory.policy_file(names[0])
        if directory.policy.read_bytes() != recommended.read_bytes():
            raise ValueError(f"{directory.policy} is not the same policy as {recommended.name}")
    return SavedPolicies(policies, epoch)


def load_policy(path: Path, game: DynamicGame | None = None) -> Policy:
    """Read one policy, a table or a network.

    Raises:
        ValueError: the file is missing or damaged, or the policy is for another game.
    """
    if not path.exists():
        raise ValueError(f"{path} is missing")
    kinds: dict[str, Any] = {"NeuralPolicy": NeuralPolicy, "FeaturePolicy": FeaturePolicy}
    try:
        policy: Any = TabularPolicy.load(path)
    except ValueError as error:
        kind = next((kinds[name] for name in kinds if name in str(error)), None)
        if kind is None:
            raise
        policy = kind.load(path)
    if game is not None:
        try:
            check_policy(game, policy)
        except ValueError as error:
            raise ValueError(f"{path} is a policy for another game: {error}") from None
    return policy
