"""Policies to MFGLib (0.3; Guo et al. 2023) and from it: arrays of probabilities.

Axes: H = T + 1 steps, S states, A actions, which MFGLib may lay out in several dimensions each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from crowdnash.checks import as_array, check_instance
from crowdnash.policies.base import Policy
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulators.contract import library
from crowdnash.simulators.mfglib_games import MFGLibGame
from crowdnash.simulators.shared_table import shared_table


def to_mfglib(policy: Policy, game: MFGLibGame, *, agent: int | None = None) -> Any:
    """A policy as MFGLib (Guo et al. 2023) has it, for its `exploitability_score`, say.

    Args:
        policy: of the game's agents.
        game: what `mfglib` made of the environment.
        agent: whose part of the policy is meant; None where all play alike.

    Returns:
        A `torch.Tensor` (T + 1, *S, *A), float32.

    Raises:
        ImportError: PyTorch, which MFGLib needs, is not installed.
        ValueError: `game` is no such game, the policy does not fit it, or agents play differently
            and `agent` does not say whose policy is meant.
    """
    check_instance("game", game, MFGLibGame)
    table = shared_table(policy, game, agent)
    return library("torch", "mfglib").as_tensor(table.reshape(-1, *game.layout))


def from_mfglib(policy: Any, game: MFGLibGame) -> TabularPolicy:
    """A mean-field policy of MFGLib (Guo et al. 2023), to be played by N agents.

    Args:
        policy: a tensor or array (T + 1, *S, *A), or an `mfglib.policy.Policy`; a list of as many
            as there are environments gives one to each kind of agent.
        game: what `mfglib` made of the environment, or of several.

    Returns:
        A table for all agents, or one for each kind; play and certify it as any policy.

    Raises:
        ValueError: `game` is no such game, or `policy` no such array or none of probabilities.
    """
    check_instance("game", game, MFGLibGame)
    environments = game.environments
    if not isinstance(policy, list | tuple):
        return TabularPolicy.symmetric(_table(policy, game, environments[0]), game.num_agents)
    if len(policy) != len(environments):
        raise ValueError(
            f"policy must be one, or a list of {len(environments)}, one for each kind of agent, "
            f"not of {len(policy)}"
        )
    kinds = [_table(one, game, own) for one, own in zip(policy, environments, strict=True)]
    return TabularPolicy.grouped(np.stack(kinds), np.asarray(game.agents.kind))


def _table(policy: Any, game: MFGLibGame, environment: Any) -> Float[np.ndarray, "H S A"]:
    """One kind's table."""
    if hasattr(policy, "build"):
        # Its own check wants sums right to 1e-8, which float32 cannot hold.
        policy = policy.build(environment, verify_integrity=False)
    if hasattr(policy, "detach"):
        policy = policy.detach().cpu().numpy()
    array = np.asarray(as_array("policy", policy))
    shape = (game.horizon, *game.layout)
    if array.shape != shape:
        raise ValueError(f"policy must have shape {list(shape)}, not {list(array.shape)}")
    return array.reshape(game.horizon, game.num_states, game.num_actions).astype(np.float64)
