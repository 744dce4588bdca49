"""The model-based route of section 2.4: estimate the induced game from simulated play, then solve.

Every agent that is in the pair (s,a) of one joint state-action meets the same population, that of
the others, sigma(rho^-i). So each cell (s,a) is a regression problem of its own: next states and
rewards of the agents that were there, on the population they met. Averaging over agents is what
Def. 6 does, so nothing is assumed about how agents differ within a group. What is assumed: the
averaged laws are affine in sigma(rho^-i), the same at all steps (unless `time_dependent`), and
agents in a cell are a fair sample of their group (else the estimate is weighted by who is there).

Axes: M trajectories, H steps, N agents, G groups, S states, A actions, X = S*A pairs, P observed
populations of a cell (one for each trajectory and step).
"""

from typing import Any, NamedTuple

import clarabel
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from crowdnash.checks import as_array, check_count, check_flag, check_number, shown
from crowdnash.games.grouping import check_group_map
from crowdnash.mean_field.meeting import OthersOfGroups
from crowdnash.mean_field.tables import TabularMeanFieldGame

_clarabel: Any = clarabel  # it is compiled and has no type stubs
_QP_TOLERANCE = 1e-10


class Play(NamedTuple):
    """Checked trajectories as pairs s*A + a, with the populations as counts.

    `num_outcomes` of a move is S, or S + 1 where agents leave (see `checked_play`).
    """

    pairs: Int[np.ndarray, "M H N"]
    next_states: Int[np.ndarray, "M H N"]
    rewards: Float[np.ndarray, "M H N"]
    counts: Float[np.ndarray, "M H X"]
    num_outcomes: int


def estimate_mean_field_game(
    trajectories: Any,
    *,
    num_states: int,
    num_actions: int,
    initial_distribution: Any = None,
    groups: Any = None,
    time_dependent: bool = False,
    shrinkage: float = 1.0,
) -> TabularMeanFieldGame:
    """Estimate the induced mean-field game from play of the N-player game; needs no model.

    The first half of the model-based route of Section 2.4; `solve` is the second.

    Affine least squares in every cell (s,a), under the constraint that P is a distribution at
    every population (a quadratic programme where the plain solution breaks it; nothing is cut off
    afterwards):

        min_V sum_p sum_i |1[s'_i = .] - sigma_p V|^2 + shrinkage sum_x |V_x - mean of 1[s'_i]|^2

    over the values V_x of the law where all others hold pair x; rewards likewise, without the
    constraint. How the laws bend is only seen where populations differ: simulate several
    policies that play every action and join their trajectories along M. Where they do not
    differ, `shrinkage` keeps the law at the cell's mean, as if so many further visits for each
    vertex had shown no dependence on the population.

    Args:
        trajectories: With `.states`, `.actions`, `.rewards`, each [M,H,N], H >= 2 (as `simulate`
            returns).
        num_states: S.
        num_actions: A.
        initial_distribution: [S]; by default the observed frequencies at h = 0.
        groups: [N] -> 0..G-1 for one population a group.
        time_dependent: Whether to fit each step by itself (P of the last step is never observed
            and never used: uniform).
        shrinkage: > 0, in visits.

    Raises:
        ValueError: Shapes or values are wrong, or a cell was never visited.
    """
    check_number("shrinkage", shrinkage, above=0)
    check_flag("time_dependent", time_dependent)
    play = checked_play(trajectories, num_states, num_actions)
    num_agents, horizon = play.pairs.shape[2], play.pairs.shape[1]
    index = np.zeros(num_agents, np.int32)
    if groups is not None:
        index = check_group_map(groups, num_agents)
    if initial_distribution is None:
        first = play.pairs[:, 0].ravel() // num_actions
        initial_distribution = np.bincount(first, minlength=num_states) / first.size
    sizes = np.bincount(index)
    windows = [slice(h, h + 1) for h in range(horizon)] if time_dependent else [slice(None)]
    fits = [
        [_fit_group(play, index == g, w, num_states, num_actions, shrinkage) for w in windows]
        for g in range(sizes.shape[0])
    ]
    moves, pays = (np.asarray([[fit[k] for fit in row] for row in fits]) for k in (0, 1))
    # [G,T,X,S,A,..] -> the constructor's [T,G,S,A,..,S,A], without axes of length 1
    moves, pays = (np.moveaxis(x.swapaxes(0, 1), 2, -1) for x in (moves, pays))
    moves = moves.reshape(*moves.shape[:-1], num_states, num_actions)
    pays = pays.reshape(*pays.shape[:-1], num_states, num_actions)
    drop = tuple(k for k, n in enumerate((len(windows), sizes.shape[0])) if n == 1)
    moves, pays = (np.squeeze(x, drop) for x in (moves, pays))
    return TabularMeanFieldGame(
        np.zeros(moves.shape[:-2]),
        np.zeros(pays.shape[:-2]),
        initial_distribution,
        horizon,
        transition_slope=moves,
        reward_slope=pays,
        group_weights=None if sizes.shape[0] == 1 else sizes / num_agents,
        meeting=OthersOfGroups(sizes.astype(np.float64)),
    )


def checked_play(
    trajectories: Any, num_states: int, num_actions: int, *, may_leave: bool = False
) -> Play:
    """Trajectories of any simulator as arrays of one shape.

    Args:
        trajectories: with `.states`, `.actions`, `.rewards`, and perhaps `.alive`.
        num_states: S.
        num_actions: A.
        may_leave: whether agents may be out at times: their pair is then X, nobody's, and the
            state after the step at which they left is S.

    Raises:
        ValueError: they are not that.
    """
    check_count("num_states", num_states, 1)
    check_count("num_actions", num_actions, 1)
    names = ("states", "actions", "rewards")
    if not all(hasattr(trajectories, name) for name in names):
        raise ValueError(
            f"trajectories must have .states, .actions and .rewards, not {shown(trajectories)}"
        )
    states, actions, rewards = (
        np.asarray(as_array(f"trajectories.{name}", getattr(trajectories, name))) for name in names
    )
    rewards = rewards.astype(np.float64)
    if states.ndim != 3 or states.shape[1] < 2 or states.shape[2] < 2 or 0 in states.shape:
        raise ValueError(
            f"trajectories.states must be [M,H,N] with H, N >= 2, not {list(states.shape)}"
        )
    alive = _alive(trajectories, states.shape, may_leave)
    for name, array, size in (("states", states, num_states), ("actions", actions, num_actions)):
        if array.shape != states.shape:
            raise ValueError(
                f"trajectories.{name} must have shape {list(states.shape)}, not {array.shape}"
            )
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"trajectories.{name} must be integers, not {array.dtype}")
        seen = array if alive is None else array[alive]
        if seen.min(initial=0) < 0 or seen.max(initial=0) >= size:
            bad = seen.min() if seen.min() < 0 else seen.max()
            raise ValueError(f"trajectories.{name} must lie in 0..{size - 1}: {bad}")
    if rewards.shape != states.shape or not np.isfinite(rewards).all():
        raise ValueError(
            f"trajectories.rewards must be finite, of shape {list(states.shape)}, not "
            f"{list(rewards.shape)}"
        )
    pairs = states.astype(np.int64) * num_actions + actions
    num_pairs = num_states * num_actions
    after = states
    if alive is not None:
        pairs, after = np.where(alive, pairs, num_pairs), np.where(alive, states, num_states)
    where = np.arange(states.shape[0] * states.shape[1]).reshape(*states.shape[:2], 1)
    flat = (where * num_pairs + pairs)[... if alive is None else alive].ravel()
    counts = np.bincount(flat, minlength=where.size * num_pairs)
    return Play(
        pairs,
        np.concatenate([after[:, 1:], np.full_like(after[:, :1], -1)], axis=1),
        rewards,
        counts.reshape(*states.shape[:2], num_pairs).astype(np.float64),
        num_states + (alive is not None),
    )


def _alive(
    trajectories: Any, shape: tuple[int, ...], may_leave: bool
) -> Bool[np.ndarray, "M H N"] | None:
    """Who acts, None where everybody always does."""
    alive = getattr(trajectories, "alive", None)
    if alive is None or np.all(alive):
        return None
    alive = np.asarray(alive)
    if alive.shape != shape or alive.dtype != bool:
        raise ValueError(
            f"trajectories.alive must be bool of shape {list(shape)}, not {alive.dtype} of shape "
            f"{list(alive.shape)}"
        )
    if not may_leave:
        raise ValueError(
            "trajectories must be of agents that are all alive: a mean-field game has no place for "
            f"those that are out, and {int((~alive).sum())} agent-steps are"
        )
    return alive


def _fit_group(
    play: Play,
    members: np.ndarray,
    window: slice,
    num_states: int,
    num_actions: int,
    shrinkage: float,
) -> tuple[np.ndarray, np.ndarray]:
    """P [X,S,A,S] and R [X,S,A] at the vertices, for one group and the steps of `window`."""
    num_pairs = num_states * num_actions
    pairs = play.pairs[:, window][:, :, members]
    after = play.next_states[:, window][:, :, members]
    rewards = play.rewards[:, window][:, :, members]
    counts = play.counts[:, window].reshape(-1, num_pairs)
    row = np.broadcast_to(np.arange(counts.shape[0]).reshape(*pairs.shape[:2], 1), pairs.shape)
    moves = np.full((num_pairs, num_pairs, num_states), 1.0 / num_states)
    pays = np.empty((num_pairs, num_pairs))
    last = window.stop is not None and window.stop == play.pairs.shape[1]
    for x in range(num_pairs):
        here = pairs == x
        mu = counts.copy()
        mu[:, x] -= 1
        mu /= play.pairs.shape[2] - 1
        moving = here & (after >= 0)
        for need, steps in ((here, "a step"), (moving, "a step before the last")):
            if not need.any() and not (need is moving and last):
                raise ValueError(
                    f"trajectories must visit every cell at {steps} of those fitted: none of the "
                    f"{int(members.sum())} agents is in (state, action) = {divmod(x, num_actions)}"
                )
        pays[:, x] = _regress(mu, row[here], rewards[here][:, None], shrinkage)[:, 0]
        if not last:
            outcomes = np.eye(num_states)[after[moving]]
            moves[:, x] = _distributions(mu, row[moving], outcomes, shrinkage)
    shape = (num_pairs, num_states, num_actions)
    return moves.reshape(*shape, num_states), pays.reshape(shape)


def _normal_equations(
    mu: np.ndarray, row: np.ndarray, outcomes: np.ndarray, shrinkage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix [X,X] and right-hand side [X,D] of the shrunk least squares."""
    visits = np.bincount(row, minlength=len(mu)).astype(float)
    totals = np.stack([np.bincount(row, column, len(mu)) for column in outcomes.T], 1)
    gram = (mu * visits[:, None]).T @ mu + shrinkage * np.eye(mu.shape[1])
    return gram, mu.T @ totals + shrinkage * outcomes.mean(0)


def _regress(
    mu: Float[np.ndarray, "P X"], row: np.ndarray, outcomes: np.ndarray, shrinkage: float
) -> Float[np.ndarray, "X D"]:
    """Values at the vertices of the affine function of `mu` that is nearest to the outcomes."""
    return np.linalg.solve(*_normal_equations(mu, row, outcomes, shrinkage))


def _distributions(
    mu: Float[np.ndarray, "P X"], row: np.ndarray, outcomes: np.ndarray, shrinkage: float
) -> Float[np.ndarray, "X S"]:
    """As `_regress`, with a distribution at every vertex.

    Rows of the plain solution sum to 1 by themselves; where an entry is negative, the constraint
    is put to the solver.
    """
    gram, right = _normal_equations(mu, row, outcomes, shrinkage)
    plain = np.linalg.solve(gram, right)
    if plain.min() >= 0:
        return plain
    num_pairs, num_states = right.shape
    size = num_pairs * num_states
    scale = np.trace(gram)
    sums = sparse.kron(sparse.eye(num_pairs), np.ones((1, num_states)))
    settings = _clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = _QP_TOLERANCE
    solution = _clarabel.DefaultSolver(
        sparse.csc_matrix(sparse.triu(sparse.kron(gram / scale, sparse.eye(num_states)))),
        -right.ravel() / scale,
        sparse.csc_matrix(sparse.vstack([sums, -sparse.eye(size)])),
        np.concatenate([np.ones(num_pairs), np.zeros(size)]),
        [_clarabel.ZeroConeT(num_pairs), _clarabel.NonnegativeConeT(size)],
        settings,
    ).solve()
    if solution.status not in (_clarabel.SolverStatus.Solved, _clarabel.SolverStatus.AlmostSolved):
        raise ValueError(
            f"shrinkage={shrinkage} leaves the fit of P ill-conditioned (the quadratic programme "
            f"ended with {solution.status}); use a larger one"
        )
    return np.asarray(solution.x).reshape(num_pairs, num_states)
