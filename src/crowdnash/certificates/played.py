"""Deviations really played in the N-player game, where the others feel them.

A play is made twice with the same random numbers for everyone but the deviator: once under the
policy (path z, the one that frozen values hold still) and once with the deviation (path z'). With V
the deviation's value along z,

    J(pi') = E[ rho0 . V_0 ] + E[ sum_h [ R_h(z') - R_h(z) + (P_h(z') - P_h(z)) V_{h+1} ] ]

at the pairs (s_h,a_h) that the deviator comes through: a martingale control variate. It holds as
the deviator draws by numbers of its own, on which z does not depend. Others who are not reached by
the disturbance do the same in both plays, so that the second sum has little noise: what is measured
is the influence itself.

Axes: P plays, each with a deviator of its own; H steps, X = S*A pairs, K components.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from crowdnash.certificates.path_values import backup, expected, laws_at
from crowdnash.certificates.planning import Setting
from crowdnash.certificates.simulated import Watched
from crowdnash.games.base import PopulationGame
from crowdnash.games.starts import mean_at_start, start_of
from crowdnash.games.vectorised import aggregates_of_others, contributions

_JUDGED_AT_ONCE = 64


class Deviations(NamedTuple):
    """Who deviates, from what and how: `agents` [P], both policies as tables [H,X,P]."""

    agents: Int[np.ndarray, " P"]
    base: Float[np.ndarray, "H X P"]
    probs: Float[np.ndarray, "H X P"]


class Played(NamedTuple):
    """Of each play, [P]: the gain against its frozen path, and what own influence adds to it.

    The mean of `frozen` + `influence` over paths is unbiased for the gain in the N-player game.
    """

    frozen: Float[np.ndarray, " P"]
    influence: Float[np.ndarray, " P"]


class _Kept(NamedTuple):
    """Of the three plays of each: the deviator's pairs, and the total contributions."""

    pairs: Int[np.ndarray, "H 3 P"]
    totals: np.ndarray  # [H,K,3,P]


def play_deviations(
    setting: Setting, deviations: Deviations, key: PRNGKeyArray, paths: UInt32[np.ndarray, " P"]
) -> Played:
    """Play every deviation once, on the path of its number."""
    count, kept = len(paths), _simulate(setting, deviations, key, paths)
    parts = []
    for first in range(0, count, _JUDGED_AT_ONCE):
        # The last block is filled up with plays that nobody looks at: one program serves all.
        index = np.minimum(np.arange(first, first + _JUDGED_AT_ONCE), count - 1)
        agents, base, probs = (x[..., index] for x in deviations)
        both = np.stack([probs, base], 2)
        plays = (agents, both, kept.pairs[..., index], kept.totals[..., index])
        judged = _judge(setting.game, *(jnp.asarray(x) for x in plays))
        parts.append(np.asarray(judged, np.float64))
    value, influence = np.concatenate(parts, -1)[..., :count]
    return Played(value[0] - value[1], influence[0] - influence[1])


def _simulate(
    setting: Setting, deviations: Deviations, key: PRNGKeyArray, paths: np.ndarray
) -> _Kept:
    """Three plays of each: nobody deviates, the deviation, the policy drawn anew."""
    game, count, size = setting.game, len(paths), setting.paths_at_once
    place = np.asarray(setting.layout.place)[deviations.agents]
    shape = (game.horizon, game.num_states, game.num_actions, count)
    tables = [np.moveaxis(x.reshape(shape), -1, 1) for x in (deviations.probs, deviations.base)]
    kept = [_undisturbed(setting, place, key, paths)]
    for first in range(0, 2 * count, size):
        index = np.minimum(np.arange(first, first + size), 2 * count - 1)
        which, play = index // count, index % count
        deviates = (which == 0)[:, None, None]
        probs = np.where(deviates, *(x[:, play] for x in tables))
        watched = Watched(place[play], np.ones(size, bool), probs)
        played = setting.simulate(key, paths[play], watched)
        real = slice(0, 2 * count - first)
        kept.append((np.asarray(played.watched)[:, real], np.asarray(played.totals)[..., real]))
    pairs, totals = (np.concatenate(x, -1) for x in zip(*kept, strict=True))
    three = (3, count)
    return _Kept(
        pairs.astype(np.int32).reshape(*pairs.shape[:-1], *three),
        totals.reshape(*totals.shape[:-1], *three),
    )


def _undisturbed(
    setting: Setting, place: np.ndarray, key: PRNGKeyArray, paths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The deviators' pairs [H,P] and the totals [H,K,P] where nobody deviates.

    Plays of several deviators on one path share it.
    """
    numbers, path = np.unique(paths, return_inverse=True)
    places, column = np.unique(place, return_inverse=True)
    size, pairs, totals = setting.paths_at_once, [], []
    for first in range(0, len(numbers), size):
        index = np.minimum(np.arange(first, first + size), len(numbers) - 1)
        played = setting.simulate(key, numbers[index])
        everybody = np.asarray(played.pairs).reshape(setting.game.horizon, size, -1)
        pairs.append(everybody[..., places])
        totals.append(np.asarray(played.totals))
    return np.concatenate(pairs, 1)[:, path, column], np.concatenate(totals, -1)[..., path]


@eqx.filter_jit
def _judge(
    game: PopulationGame,
    agents: Int[Array, " P"],
    probs: Float[Array, "H X 2 P"],
    pairs: Int[Array, "H 3 P"],
    totals: Array,
) -> Float[Array, "2 2 P"]:
    """Values along the frozen path, and what the deviation and the policy anew change of R + P V.

    Both of the two policies: the values V, and the sum over h of what the path with the deviator
    changes at the pairs that it comes through.
    """
    records = jax.tree_util.tree_map(lambda x: x[agents], game.agents)

    def back(carry: tuple, now: tuple) -> tuple[tuple, None]:
        values, changes = carry  # [S,2,P], [2,P]
        policies, pair, total, step = now
        own = contributions(game, records, pair // game.num_actions, pair % game.num_actions)
        # One population a play: there is no axis of agents here.
        flat = aggregates_of_others(
            total.reshape(len(total), -1), own.reshape(len(own), -1), game.num_agents
        )
        met = flat.reshape(own.shape)
        moves, pays = laws_at(game, records, met, step)
        returns = backup(moves[:, :, :, None], pays[:, :, None], values[:, None])  # [X,3,2,P]
        for k in range(2):
            here = jnp.take_along_axis(returns[:, :, k], pair[None, None, k + 1], 0)[0]
            changes = changes.at[k].add(here[k + 1] - here[0])
        values = expected(policies, returns[:, 0], game.num_actions)
        return (values, changes), None

    zero = jnp.zeros((game.num_states, 2, len(agents)), jnp.float32)
    steps = jnp.arange(game.horizon, dtype=jnp.int32)
    over = (probs, pairs, totals, steps)
    (values, changes), _ = jax.lax.scan(back, (zero, zero[0]), over, reverse=True)
    return jnp.stack([mean_at_start(start_of(game, agents), values), changes])
