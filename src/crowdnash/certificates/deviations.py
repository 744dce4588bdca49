"""Which deviations are really played, and what they gain (Def. 2's lower ends).

Where own influence is small, the best response that counts it to first order is the one to play.
Where it is not, first order promises too much or too little: then each agent's frozen best
response, its influence-aware one, every constant action and changes of its best response in single
steps are played on planning paths, and the best of them on fresh ones.

Axes: m agents, P plays of each, H steps, X = S*A pairs.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from crowdnash.certificates.planning import Prepared, Setting, frozen_gains
from crowdnash.certificates.played import Deviations, Played, play_deviations
from crowdnash.games.base import PopulationGame
from crowdnash.games.legal import ILLEGAL_REWARD

_FEW_PLAYS = 64
LEAST_PLAYS = 8
_STEPS_PLAYED = 2_000_000_000
"""Agent-steps for the plays that measure a small influence; fewer plays in a very large crowd."""

_SCREENING_PLAYS = 16
_FINALISTS = 4
_STEPS_CHANGED = 16


class Chosen(NamedTuple):
    """Deviations `probs` [H,X,m], and the gains by which they were chosen, [m]."""

    probs: Float[np.ndarray, "H X m"]
    gain: Float[np.ndarray, " m"]


def number_of_plays(setting: Setting, agents: Prepared) -> int:
    """All paths, or a few where own influence is small and so is the noise in it."""
    if not agents.first_order.all():
        return setting.num_paths
    one = 3 * setting.game.num_agents * setting.game.horizon * len(agents.agents)
    few = min(_FEW_PLAYS, max(LEAST_PLAYS, _STEPS_PLAYED // one))
    return min(setting.num_paths, few)


def choose_deviations(setting: Setting, agents: Prepared) -> Chosen:
    """The most promising deviation of each agent, by planning alone."""
    probs, gain = np.array(agents.players.deviation), np.array(agents.gain)
    for column in np.flatnonzero(~agents.first_order):
        tables = candidates(setting.game, agents.at(np.array([column])))
        columns = np.full(tables.shape[-1], column)
        kept = np.arange(tables.shape[-1])
        gains = frozen_gains(setting.game, agents, tables, columns)
        for plays in (_SCREENING_PLAYS, _FEW_PLAYS):
            count = min(plays, setting.num_paths)
            played = play(setting, agents, tables[..., kept], columns[kept], count, planning=True)
            total = gains[kept] + played.influence.mean(1)
            order = np.argsort(-total, kind="stable")[:_FINALISTS]
            kept, total = kept[order], total[order]
        probs[..., column], gain[column] = tables[..., kept[0]], total[0]
    return Chosen(probs, gain)


def candidates(game: PopulationGame, agent: Prepared) -> Float[np.ndarray, "H X c"]:
    """Policies that one agent might deviate to, none twice.

    Where the action of a constant or of a changed step is illegal, the best response stays.
    """
    players, legal = agent.players, np.asarray(agent.model.reward[..., 0]) > ILLEGAL_REWARD / 2
    planned = np.asarray(players.planned[..., 0])
    shape = (game.horizon, game.num_states, game.num_actions)
    actions = np.eye(game.num_actions, dtype=planned.dtype)
    tables: list[np.ndarray] = [np.asarray(players.deviation[..., 0]), planned]
    for number, action in enumerate(actions):
        there = legal.reshape(shape)[..., number, None]
        constant = np.where(there, action, planned.reshape(shape))
        tables.append(constant.reshape(planned.shape))
        for step in range(min(game.horizon, _STEPS_CHANGED)):
            changed = planned.reshape(shape).copy()
            changed[step] = constant[step]
            tables.append(changed.reshape(planned.shape))
    different = {table.tobytes(): table for table in tables}
    return np.stack(list(different.values()), axis=-1)


def play(
    setting: Setting,
    agents: Prepared,
    probs: Float[np.ndarray, "H X m"],
    columns: Int[np.ndarray, " m"],
    num_plays: int,
    *,
    planning: bool = False,
) -> Played:
    """Play m deviations of the agents at these columns on paths 0..P-1 each; results [m,P]."""
    shape = (len(columns), num_plays)
    paths = np.tile(np.arange(num_plays, dtype=np.uint32), len(columns))
    which = np.repeat(np.arange(len(columns)), num_plays)
    played = play_once(setting, agents, probs[..., which], columns[which], paths, planning=planning)
    return Played(played.frozen.reshape(shape), played.influence.reshape(shape))


def play_once(
    setting: Setting,
    agents: Prepared,
    probs: Float[np.ndarray, "H X m"],
    columns: Int[np.ndarray, " m"],
    paths: np.ndarray,
    *,
    planning: bool = False,
) -> Played:
    """Play m deviations on one path each; results [m]."""
    base = np.asarray(agents.players.base.probs)[..., columns]
    deviations = Deviations(agents.agents[columns].astype(np.int32), base, probs)
    key: Array = setting.planning_key if planning else setting.evaluation_key
    return play_deviations(setting, deviations, key, paths)
