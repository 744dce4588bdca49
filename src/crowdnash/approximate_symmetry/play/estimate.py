"""alpha, beta (Def. 7) and Lipschitz moduli (Lemma 9) from trajectories of a bare simulator.

With bins k of the populations of a cell (s,a), or all of them together, and d_i(s,a,k) how
far agent i's law is there, on average over its visits, from the mean over its group,

    alpha >= max over (i,s,a,k) of |d_i(s,a,k)|_1,

because an average is no farther than its farthest term. The largest *noisy* distance of many
would be far too large (two numbers for each of 1000 agents always differ somewhere). So the worst
(i,s,a,k) and the signs of its difference are chosen on one half of the trajectories (those at even
places) and evaluated on the other: unbiased for a quantity that is at most alpha. The upper end is
a union bound, by the normal approximation, over all (i,s,a,k) seen. Populations within a bin differ
from visit to visit; the group's law, affine in the population, is taken out of every visit first.

What play cannot show: populations that were not met, cells an agent was not in (`seen`), deviations
that average out within a bin. What is assumed: laws that do not read the step (unless
`time_dependent`), and within a bin agents that meet populations alike but for what an affine law
of the group explains. The moduli assume that the groups' laws are affine.

Axes: M trajectories, H steps, N agents, G groups, S states, A actions, X = S*A pairs, K bins.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int

from crowdnash.approximate_symmetry.moduli import LipschitzModuli
from crowdnash.approximate_symmetry.play.cells import Part, PlayedCell, Sizes, law_of, played_cells
from crowdnash.approximate_symmetry.play.laws import deviations
from crowdnash.approximate_symmetry.play.moduli import CellLaw, PlayedModuli, played_moduli
from crowdnash.checks import check_count, check_flag, check_number
from crowdnash.games.grouping import check_group_map
from crowdnash.interval import Interval
from crowdnash.mean_field.estimation import checked_play

_LEAST_TRAJECTORIES = 16
_TINY = 1e-300


class PlayedDeviation(NamedTuple):
    """How far some agent's law is from its group's mean, as far as play shows.

    - `estimate`: unbiased for a lower bound (L1 for transitions, in [0,2]; reward per step), and
      below 0 by chance where there is nothing; `standard_error` is its own.
    - `interval`: from the lower end of a one-sided interval for it (never below 0) to a union
      bound over everything observed, each at half of 1 - confidence.
    - `agent`, `state`, `action`, `step` (-1: all steps), and the mean population `mu` [S,A] of the
      bin: where the estimate was taken. None of it if nothing was seen (estimate NaN).
    - `compared`: the share of the group's agents that were there; the mean is over those.
    """

    estimate: float
    standard_error: float
    interval: Interval
    agent: int = -1
    state: int = -1
    action: int = -1
    step: int = -1
    mu: Float[np.ndarray, "S A"] | None = None
    compared: float = 0.0


@dataclass(frozen=True)
class SymmetryFromPlay:
    """What trajectories show of a game's symmetry; see this module's docstring for the limits.

    - `alpha`, `beta`: the largest over groups; `group_alpha`, `group_beta`: each group's.
    - `moduli`: with standard errors; `lipschitz` the same as `nash_bound` reads them (not exact).
    - `seen` [N,S,A]: whether an agent was often enough in a cell to be compared (`min_visits` in
      the first half of the trajectories); `visits` [N,S,A]: how often it was there at all.
    - `reward_range`: of the rewards paid; `groups` [N]; `confidence` of the intervals.
    """

    alpha: PlayedDeviation
    beta: PlayedDeviation
    group_alpha: tuple[PlayedDeviation, ...]
    group_beta: tuple[PlayedDeviation, ...]
    moduli: PlayedModuli
    seen: Bool[np.ndarray, "N S A"]
    visits: Int[np.ndarray, "N S A"]
    reward_range: Interval
    groups: Int[np.ndarray, " N"]
    confidence: float
    num_trajectories: int

    @property
    def lipschitz(self) -> LipschitzModuli:
        """The estimates of the moduli, those below 0 as 0."""
        return self.moduli.as_lipschitz()

    @property
    def unseen_share(self) -> float:
        """Share of all (agent, state, action) of which play showed too little."""
        return float(1 - self.seen.mean())


class _Choice(NamedTuple):
    """The worst (agent, cell, bin) of a half, with the signs of the difference."""

    score: tuple[float, float]
    cell: PlayedCell
    fresh: Part
    place: int
    member: int
    signs: Float[np.ndarray, " D"]


def symmetry_from_trajectories(
    trajectories: Any,
    *,
    num_states: int,
    num_actions: int,
    groups: Any = None,
    num_bins: int = 4,
    min_visits: int = 20,
    time_dependent: bool = False,
    confidence: float = 0.95,
) -> SymmetryFromPlay:
    """Estimate alpha, beta (Def. 7) and the moduli (Lemma 9) from play; needs no model.

    Args:
        trajectories: With `.states`, `.actions`, `.rewards`, each [M,H,N], M >= 16, H >= 2,
            independent of each other, from `simulate` or any simulator (arrays will do); best of
            several policies that play every action, each with as many even as odd places along M.
            With `.alive`, bool, if agents leave: only what is done alive counts, leaving is an
            outcome like any state, and populations are those of the agents that are there.
        num_states: S.
        num_actions: A.
        groups: [N] -> 0..G-1, default one group.
        num_bins: >= 1, of populations in each cell.
        min_visits: >= 2 to a bin that an agent needs in the first half of the trajectories.
        time_dependent: Whether to compare each step by itself.
        confidence: In (0,1), of the intervals.

    Raises:
        ValueError: Names the argument, the rule and the value.
    """
    check_flag("time_dependent", time_dependent)
    play = checked_play(trajectories, num_states, num_actions, may_leave=True)
    num_trajectories, horizon, num_agents = play.pairs.shape
    _check(num_trajectories, num_bins, min_visits, confidence)
    index = np.zeros(num_agents, np.int32)
    if groups is not None:
        index = check_group_map(groups, num_agents)
    windows = [(h, slice(h, h + 1)) for h in range(horizon)] if time_dependent else [(-1, _ALL)]
    num_pairs, num_groups = num_states * num_actions, int(index.max()) + 1
    seen = np.zeros((num_agents, num_pairs), bool)
    choices: dict[tuple[str, int], _Choice] = {}
    noise: dict[tuple[str, int], list[np.ndarray]] = {}
    laws: list[CellLaw] = []
    sizes = Sizes(num_states, num_actions, play.num_outcomes, num_bins, min_visits)
    reach = (2 * np.log(num_agents * num_pairs * len(windows) * (num_bins + 1))) ** 0.5
    for step, window in windows:
        for cell in played_cells(play, index, step, window, sizes):
            halves = cell.half(0), cell.half(1)
            laws.append(law_of(cell, halves[0].law, halves[1].law))
            seen[cell.members, cell.pair] |= cell.seen.any(0)
            if cell.seen.any():
                _choose(cell, *halves, choices, reach)
                value, error = _apart(cell, cell.all())
                both = [np.abs(value).sum(0)[cell.seen], error.sum(0)[cell.seen]]
                noise.setdefault((cell.law, cell.group), []).append(np.stack(both))
    results = {
        law: tuple(_judge(law, g, choices, noise, confidence, sizes) for g in range(num_groups))
        for law in ("transition", "reward")
    }
    shape = (num_agents, num_states, num_actions)
    here = play.pairs < num_pairs
    flat = (np.arange(num_agents) * num_pairs + play.pairs)[here]
    visits = np.bincount(flat, minlength=num_agents * num_pairs)
    return SymmetryFromPlay(
        alpha=_largest("transition", results["transition"], choices),
        beta=_largest("reward", results["reward"], choices),
        group_alpha=results["transition"],
        group_beta=results["reward"],
        moduli=played_moduli(laws, num_actions, num_bins),
        seen=seen.reshape(shape),
        visits=visits.reshape(shape),
        reward_range=Interval(float(play.rewards[here].min()), float(play.rewards[here].max())),
        groups=index,
        confidence=confidence,
        num_trajectories=num_trajectories,
    )


_ALL = slice(None)


def _check(num_trajectories: int, num_bins: int, min_visits: int, confidence: float) -> None:
    check_count("the number of trajectories", num_trajectories, _LEAST_TRAJECTORIES)
    check_count("num_bins", num_bins, 1)
    check_count("min_visits", min_visits, 2)
    check_number("confidence", confidence, above=0, below=1)


def _apart(cell: PlayedCell, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Differences of every agent and their errors, both [D,R,n]."""
    columns = [
        deviations(part.visits, column, cell.seen, part.num_trajectories, cell.scale)
        for column in part.residuals().T
    ]
    return np.array([f.value for f in columns]), np.array([f.standard_error for f in columns])


def _choose(
    cell: PlayedCell,
    first: Part,
    second: Part,
    choices: dict[tuple[str, int], _Choice],
    reach: float,
) -> None:
    """Keep the worst agent and bin of the first half.

    The worst once `reach` standard errors are taken off, what the largest of so many reaches by
    chance; or the agent with the fewest visits would win. If nothing stands out so far, by
    empirical Bayes: a difference shrunk by how much agents differ there against its own error.
    """
    value, error = _apart(cell, first)
    number = np.maximum(cell.seen.sum(-1), 1)
    differ = np.maximum(((value**2 - error**2).sum(-1) / number)[..., None], 0.0)
    kept = differ / np.maximum(differ + error**2, _TINY)
    certain = np.where(cell.seen, (np.abs(value) - reach * error).sum(0), 0.0)
    likely = np.where(cell.seen, (np.abs(value) * kept).sum(0), -np.inf)
    by = certain if certain.max() > 0 else likely
    place, member = (int(k) for k in np.unravel_index(int(by.argmax()), by.shape))
    score, key = (max(float(certain.max()), 0.0), float(likely.max())), (cell.law, cell.group)
    if key not in choices or score > choices[key].score:
        signs = np.where(value[:, place, member] >= 0, 1.0, -1.0)
        choices[key] = _Choice(score, cell, second, place, member, signs)


def _judge(
    law: str,
    group: int,
    choices: dict[tuple[str, int], _Choice],
    noise: dict[tuple[str, int], list[np.ndarray]],
    confidence: float,
    sizes: Sizes,
) -> PlayedDeviation:
    """Evaluate a group's choice on the second half; union bound over all groups."""
    if (law, group) not in choices:
        return PlayedDeviation(np.nan, np.nan, Interval(0.0, np.inf))
    choice = choices[law, group]
    cell, fresh, half = choice.cell, choice.fresh, choice.fresh.num_trajectories
    left = fresh.residuals() @ choice.signs
    size = cell.scale * len(choice.signs)
    fresh_gap = deviations(fresh.visits, left, cell.seen, half, size)
    at = (choice.place, choice.member)
    estimate, error = float(fresh_gap.value[at]), float(fresh_gap.standard_error[at])
    tail = (1 - confidence) / 2
    lower = estimate - float(scipy.stats.t.ppf(1 - tail, half - 1)) * error
    columns = 1 if law == "reward" else sizes.num_outcomes
    many = sum(part.shape[1] for (name, _), parts in noise.items() if name == law for part in parts)
    reach = float(scipy.stats.norm.ppf(1 - tail / (2 * columns * many)))
    upper = max(float((apart + reach * se).max()) for apart, se in noise[law, group])
    if law == "transition":
        upper = min(upper, 2.0)
    here = (cell.visits.place == choice.place) | (choice.place == sizes.num_bins)
    mu = cell.visits.populations[cell.visits.row[here]].mean(0)
    state, action = divmod(cell.pair, sizes.num_actions)
    return PlayedDeviation(
        estimate=estimate,
        standard_error=error,
        interval=Interval(max(lower, 0.0), max(upper, lower, 0.0)),
        agent=int(cell.members[choice.member]),
        state=state,
        action=action,
        step=cell.step,
        mu=mu.reshape(sizes.num_states, sizes.num_actions),
        compared=len(np.unique(cell.visits.agent[here])) / len(cell.members),
    )


def _largest(
    law: str, groups: tuple[PlayedDeviation, ...], choices: dict[tuple[str, int], _Choice]
) -> PlayedDeviation:
    """The group that looked worst on the first half; the upper end is that of all."""
    known = [g for g in range(len(groups)) if (law, g) in choices]
    if not known:
        return groups[0]
    worst = groups[max(known, key=lambda g: choices[law, g].score)]
    upper = max(one.interval.upper for one in groups)
    return worst._replace(interval=Interval(worst.interval.lower, upper))
