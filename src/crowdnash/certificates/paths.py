"""The sampled certificate of any `PopulationGame` (Def. 2).

Population paths are simulated under the policy, and against each path all agents' best responses
are computed exactly. What such frozen paths leave out, the others' answer to a deviation, is added
to the upper ends and really played for the lower ends.

Axes: n agents examined, K population paths, m agents whose deviations are played, P plays of each.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from crowdnash.certificates.deviations import (
    choose_deviations,
    number_of_plays,
    play,
    play_once,
)
from crowdnash.certificates.intervals import (
    Estimate,
    lower_end,
    mean_interval,
    of_best_deviations,
    upper_ends,
)
from crowdnash.certificates.judging import (
    CLAIRVOYANT,
    DEVIATION,
    PLANNED,
    PRICED,
    PRICED_UPPER,
    RETURN,
    UPPER,
    VALUE,
    Along,
    Judged,
    UpperEnds,
    gains_along,
    judge,
)
from crowdnash.certificates.planning import (
    Prepared,
    Setting,
    mean_model,
    merged,
    prepare,
    response_of,
    response_sample,
)
from crowdnash.certificates.played import Played
from crowdnash.certificates.result import (
    Exploitability,
    FrozenGains,
    Influence,
    OwnInfluence,
)
from crowdnash.games.base import PopulationGame
from crowdnash.policies.base import Policy

_AGENTS_AT_ONCE = 65_536
_MOST_KEPT = 1_000_000
"""Gains along paths are kept, not computed again, if there are at most so many (32 bytes each)."""


class _Agents(NamedTuple):
    """All agents examined: plans' figures [n] (see `Prepared`), upper ends, and measurements."""

    planned_gain: np.ndarray
    gain: np.ndarray
    influence: np.ndarray
    largest: np.ndarray
    share: np.ndarray
    first_order: np.ndarray
    kind: np.ndarray
    judged: Judged


class _Plays(NamedTuple):
    """Deviations really played: of the m most promising `agents`, and of random ones.

    Their deviations are `probs`, `gain` [m] is what planning promises, `own` [m,P] the plays, and
    `frozen` [m,P] those of their best responses to frozen paths. `anybody` [P] is the influence of
    randomly drawn agents' deviations, one a path, or None if all agents are played; they play the
    best response to frozen paths and not the influence-aware one if `row` (of `Judged`) says so.
    """

    agents: Prepared
    columns: Int[np.ndarray, " m"]
    probs: Float[np.ndarray, "H X m"]
    gain: Float[np.ndarray, " m"]
    own: Played
    frozen: Played
    anybody: Float[np.ndarray, " P"] | None
    row: int


def exploitability_on_paths(
    game: PopulationGame,
    policy: Policy,
    key: PRNGKeyArray,
    num_paths: int,
    agents: Int[np.ndarray, " n"],
    confidence: float,
    own_influence_agents: int,
    counted: Bool[np.ndarray, " n"] | None = None,
    mesh: Any = None,
) -> Exploitability:
    """The certificate by method "paths"; see `certificate.exploitability`.

    `mean` is about all agents examined, with deviations of random ones played, or about those that
    are `counted`, with lower ends as predicted.
    """
    setting = Setting.of(game, policy, key, num_paths, counted, mesh)
    blocks = _blocks(setting, agents)
    if num_paths * len(agents) <= _MOST_KEPT:
        # If play refutes first order, only what is made of this changes.
        blocks = [block._replace(along=list(block.along)) for block in blocks]
    examined, plays, growth = _examine(setting, agents, blocks, own_influence_agents)
    if plays is not None and not _first_order_holds(examined, plays):
        setting = setting._replace(first_order=False)
        if not isinstance(blocks, list):
            blocks = _blocks(setting, agents)
        examined, plays, growth = _examine(setting, agents, blocks, own_influence_agents)
    return _certificate(setting, agents, examined, plays, growth, confidence)


class _Block(NamedTuple):
    """Agents `first`, `first` + 1, .. of those examined: their plans, and gains along all paths.

    `growth`: how many others one displaced agent displaces at most.
    """

    first: int
    prepared: Prepared
    along: Iterable[Along]
    growth: float


def _blocks(setting: Setting, agents: Int[np.ndarray, " n"]) -> Iterator[_Block]:
    """Plan, block by block."""
    response, sample = None, response_sample(setting, agents)
    for first in range(0, len(agents), _AGENTS_AT_ONCE):
        block = agents[first : first + _AGENTS_AT_ONCE]
        # Agents whom only the response needs are modelled on the same paths.
        besides = sample if first == 0 and sample is not None else block[:0]
        model, totals = mean_model(setting, np.concatenate([block, besides]))
        if first == 0:
            some = slice(0 if sample is None else len(block), None)
            whose = block if sample is None else sample
            response = response_of(setting, model.at(some), whose, totals)
        own = model.at(slice(0, len(block)))
        prepared = prepare(setting, block, own, totals, response)
        growth = 0.0 if response is None else float(np.max(response.displaced))
        yield _Block(first, prepared, gains_along(setting, prepared), growth)


def _examine(
    setting: Setting, agents: Int[np.ndarray, " n"], blocks: Iterable[_Block], num_played: int
) -> tuple[_Agents, _Plays | None, float]:
    """Judge and play; and how many others one displaced agent displaces at most."""
    num_played = min(num_played, len(agents))
    seed = np.asarray(jax.random.key_data(setting.planning_key)).ravel()
    drawn = np.random.default_rng(seed).integers(len(agents), size=setting.num_paths)
    growth, columns, judged, best, somebody = 0.0, [], [], [], []
    for first, prepared, along, displaced in blocks:
        growth = displaced
        relied = prepared.first_order & setting.first_order
        prepared = prepared._replace(first_order=relied)
        uppers = UpperEnds.of(setting, prepared)
        counted = setting.counted
        if counted is not None:
            counted = counted[first : first + len(relied)]
        judged.append(judge(along, prepared, uppers, counted))
        columns.append([*(getattr(prepared, x) for x in _Agents._fields[:6]), uppers.kind])
        top = np.argsort(-prepared.gain, kind="stable")[:num_played]
        best.append((first + top, prepared.at(top)))
        here = drawn[(drawn >= first) & (drawn < first + len(relied))] - first
        somebody.append(prepared.at(here))
    mean, variance = (np.concatenate([x[k] for x in judged], axis=1) for k in range(2))
    all_judged = Judged(mean, variance, np.sum([x.sums for x in judged], axis=0))
    figures = dict(
        zip(_Agents._fields, (np.concatenate(x) for x in zip(*columns, strict=True)), strict=False)
    )
    examined = _Agents(**figures, judged=all_judged)
    if not num_played:
        return examined, None, growth
    top, promising = np.concatenate([x[0] for x in best]), merged([x[1] for x in best])
    order = np.argsort(-promising.gain, kind="stable")[:num_played]
    return (
        examined,
        _play(setting, examined, promising.at(order), top[order], merged(somebody)),
        growth,
    )


def _play(
    setting: Setting,
    examined: _Agents,
    agents: Prepared,
    columns: Int[np.ndarray, " m"],
    somebody: Prepared,
) -> _Plays:
    chosen = choose_deviations(setting, agents)
    every, count = np.arange(len(columns)), number_of_plays(setting, agents)
    own = play(setting, agents, chosen.probs, every, count)
    planned = np.asarray(agents.players.planned)
    same = np.array_equal(chosen.probs, planned)
    frozen = own if same else play(setting, agents, planned, every, count)
    row, anybody = DEVIATION, None
    if len(columns) < len(examined.gain) and setting.counted is None:
        row = _what_anybody_plays(setting, examined, somebody)
        players = somebody.players
        probs = np.asarray(players.deviation if row == DEVIATION else players.planned)
        paths = np.arange(len(somebody.agents), dtype=np.uint32)
        anybody = play_once(setting, somebody, probs, paths.astype(int), paths).influence
    return _Plays(agents, columns, chosen.probs, chosen.gain, own, frozen, anybody, row)


def _what_anybody_plays(setting: Setting, examined: _Agents, somebody: Prepared) -> int:
    """The deviation that gains more on average, as planning paths have it."""
    if examined.first_order.all():
        return DEVIATION
    paths = np.arange(min(setting.num_paths, len(somebody.agents)), dtype=np.uint32)
    aware, planned = (
        play_once(
            setting,
            somebody,
            np.asarray(probs)[..., : len(paths)],
            paths.astype(int),
            paths,
            planning=True,
        ).influence.mean()
        for probs in (somebody.players.deviation, somebody.players.planned)
    )
    aware += (examined.gain - examined.influence).mean()
    return DEVIATION if aware > planned + examined.planned_gain.mean() else PLANNED


def _first_order_holds(examined: _Agents, plays: _Plays) -> bool:
    """Whether real play agrees with what first order predicts, wherever that is relied on."""
    relied = plays.agents.first_order
    if not relied.any():
        return True
    measured, error = _mean_and_error(plays.own.influence)
    slack = 4 * error + plays.agents.largest / 2 + 1e-4
    return bool((np.abs(measured - plays.agents.influence) <= slack)[relied].all())


def _mean_and_error(samples: Float[np.ndarray, "m P"]) -> tuple[np.ndarray, np.ndarray]:
    return samples.mean(1), samples.std(1, ddof=1) / np.sqrt(samples.shape[1])


def _certificate(
    setting: Setting,
    agents: Int[np.ndarray, " n"],
    examined: _Agents,
    plays: _Plays | None,
    growth: float,
    confidence: float,
) -> Exploitability:
    mean, error = examined.judged.mean, np.sqrt(examined.judged.variance / setting.num_paths)
    lower = np.where(examined.first_order, mean[DEVIATION] + examined.influence, 0.0)
    lower_error = np.where(examined.first_order, error[DEVIATION], 0.0)
    lower_kind = np.where(examined.first_order, "predicted", "none").astype("<U9")
    own = None
    game = setting.game
    shape = (game.horizon, game.num_states, game.num_actions)
    measured = (np.zeros(0, np.int32), np.zeros(0), np.zeros(0), np.zeros((0, *shape)), 2)
    if plays is not None:
        index = agents[plays.columns]
        own = OwnInfluence(index, *_mean_and_error(plays.frozen.influence))
        probs = np.moveaxis(plays.probs, -1, 0).reshape(-1, *shape)
        num_plays = plays.own.influence.shape[1]
        measured = (index, *_mean_and_error(plays.own.influence), probs, num_plays)
        lower[plays.columns], lower_error[plays.columns] = _played_gain(setting, examined, plays)
        lower_kind[plays.columns] = "played"
    lowest = _lower_ends(setting, examined, plays, lower, lower_error, confidence)
    ends = upper_ends(_estimates(setting, examined, UPPER, PRICED_UPPER), confidence)
    return Exploitability(
        agents=agents,
        value=mean[RETURN],
        lower=lower,
        upper=ends.mean,
        standard_error=lower_error,
        upper_standard_error=ends.error,
        maximum=of_best_deviations(lowest[0], ends.largest),
        mean=of_best_deviations(lowest[1], ends.average),
        confidence=confidence,
        method="paths",
        num_trajectories=setting.num_paths,
        own_influence=own,
        lower_kind=lower_kind,
        upper_kind=examined.kind,
        frozen=_frozen(setting, examined, confidence),
        influence=Influence(
            examined.influence, examined.largest, examined.share, growth, *measured
        ),
    )


def _played_gain(
    setting: Setting, examined: _Agents, plays: _Plays
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Gain and standard error of the deviations that were really played."""
    if plays.own.influence.shape[1] == setting.num_paths:
        return _mean_and_error(plays.own.frozen + plays.own.influence)
    # Few plays, as influence is small: its frozen part is known from all paths. The two errors
    # are not independent, so they are added.
    judged, columns = examined.judged, plays.columns
    influence, noise = _mean_and_error(plays.own.influence)
    error = np.sqrt(judged.variance[DEVIATION][columns] / setting.num_paths)
    return judged.mean[DEVIATION][columns] + influence, error + noise


def _lower_ends(
    setting: Setting,
    examined: _Agents,
    plays: _Plays | None,
    lower: np.ndarray,
    lower_error: np.ndarray,
    confidence: float,
) -> tuple[float, float]:
    """Lower ends of the largest and the mean gain."""
    sums = setting.means(examined.judged.sums, len(lower))
    if plays is None:
        relied = np.where(examined.first_order, examined.gain, -np.inf)
        pick, count = int(np.argmax(relied)), setting.num_paths
        by_path = sums[RETURN]  # the predicted lower ends
    else:
        pick, count = plays.columns[int(np.argmax(plays.gain))], plays.own.influence.shape[1]
        by_path = sums[RETURN]
        if setting.counted is None:
            by_path = _played_means(examined, plays, sums)
    one = lower_end(lower[pick], lower_error[pick], confidence, count)
    return one, mean_interval(by_path, confidence).lower


def _played_means(
    examined: _Agents, plays: _Plays, sums: Float[np.ndarray, "8 K"]
) -> Float[np.ndarray, " K"]:
    """Mean gain over all agents, on every path."""
    if plays.anybody is not None:
        return sums[plays.row] + plays.anybody
    if plays.own.influence.shape[1] == sums.shape[1]:
        return (plays.own.frozen + plays.own.influence).mean(0)
    return sums[DEVIATION] + plays.own.influence.mean()


def _frozen(setting: Setting, examined: _Agents, confidence: float) -> FrozenGains:
    """All against frozen paths."""
    mean, variance, sums = examined.judged
    error = np.sqrt(variance / setting.num_paths)
    sums = setting.means(sums, len(examined.gain))
    ends = upper_ends(_estimates(setting, examined, CLAIRVOYANT, PRICED), confidence)
    pick = int(np.argmax(examined.planned_gain))
    largest = lower_end(mean[PLANNED, pick], error[PLANNED, pick], confidence, setting.num_paths)
    average = mean_interval(sums[PLANNED], confidence)
    return FrozenGains(
        value=mean[VALUE],
        lower=mean[PLANNED],
        upper=ends.mean,
        standard_error=error[PLANNED],
        upper_standard_error=ends.error,
        maximum=of_best_deviations(largest, ends.largest),
        mean=of_best_deviations(average.lower, ends.average),
    )


def _estimates(setting: Setting, examined: _Agents, *rows: int) -> list[Estimate]:
    """Upper ends by a player who foresees the path, and by one who pays for that."""
    judged = examined.judged
    return [
        Estimate(
            judged.mean[row],
            np.sqrt(judged.variance[row] / setting.num_paths),
            setting.means(judged.sums[row], len(examined.gain)),
        )
        for row in (rows if setting.prices_foresight else rows[:1])
    ]
