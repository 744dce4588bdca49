"""Monotonicity of a mean-field game (Def. 10), in the paper's two senses.

    sum_{s,a} (R(s,a,mu) - R(s,a,mu')) (mu(s,a) - mu'(s,a)) <= 0

for all populations mu, mu' ("everywhere"; Def. 10 as written), or summed over h for the flows of
any two policies ("along flows"; what the paper's proofs use). P must not depend on mu.

Rewards with slopes B_h = dR_h/dmu: everywhere means that the symmetric part of every B_h has no
positive eigenvalue on vectors that sum to zero; along flows, that the symmetric part of the block
diagonal B has none on differences of flows. For affine rewards both are exact.

Axes: H steps, S states, A actions, X = S*A pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

Status = Literal["monotone", "not monotone", "unknown"]
Rewards = Callable[[np.ndarray, int], np.ndarray]
"""R(., ., mu) [X] at a population mu [X] and a step."""

TOLERANCE = 1e-7
"""Eigenvalues up to this share of the largest slope count as zero (float32 parameters)."""

_MAX_FLOW_DIRECTIONS = 1500


class PopulationPair(NamedTuple):
    """Two populations [S,A] at one step; `violation` > 0 is the sum that should be <= 0."""

    mu: Float[np.ndarray, "S A"]
    other: Float[np.ndarray, "S A"]
    step: int
    violation: float


class PolicyPair(NamedTuple):
    """Two policies [H,S,A]; `violation` > 0 is the sum over h that should be <= 0."""

    policy: Float[np.ndarray, "H S A"]
    other: Float[np.ndarray, "H S A"]
    violation: float


@dataclass(frozen=True)
class Verdict:
    """Whether a game is monotone in one of the two senses, and why.

    `eigenvalue` is the largest that was found (<= 0 up to rounding if monotone), in reward per
    unit of mass; None if none was computed. `counterexample` is there if not monotone.
    """

    status: Status
    reason: str
    eigenvalue: float | None = None
    counterexample: PopulationPair | PolicyPair | None = None

    def __bool__(self) -> bool:
        """True only if shown to be monotone."""
        return self.status == "monotone"


@dataclass(frozen=True)
class Monotonicity:
    """Def. 10: `everywhere` for all mu, mu' as written; `along_flows` as the proofs use it."""

    everywhere: Verdict
    along_flows: Verdict


class RewardModel(NamedTuple):
    """What the checks need: `slopes` [H,X,X] (row: own pair) and the rewards themselves.

    `points` [Z,X] are where slopes were taken, [Z,H,X,X]; one point is enough if `affine`.
    """

    rewards: Rewards
    slopes: Float[np.ndarray, "Z H X X"]
    points: Float[np.ndarray, "Z X"]
    affine: bool


def moving_population(pair: tuple[np.ndarray, np.ndarray, int, float]) -> Monotonicity:
    """The verdict on a game whose transitions depend on the population: Def. 10 excludes it."""
    mu, other, step, apart = pair
    reason = (
        f"P depends on the population (by {apart:.3g} in L1 at step {step} between the two "
        "populations given), which Def. 10 excludes"
    )
    both = Verdict("not monotone", reason, None, PopulationPair(mu, other, step, 0.0))
    return Monotonicity(both, both)


def check_monotone(
    model: RewardModel,
    transition: Float[np.ndarray, "H S A S"],
    initial: Float[np.ndarray, " S"],
) -> Monotonicity:
    """Both verdicts for a game whose transitions are free of the population."""
    everywhere = _everywhere(model, transition.shape[1:3])
    if everywhere.status == "monotone":
        reason = "monotone for all populations, so along flows"
        return Monotonicity(everywhere, Verdict("monotone", reason, everywhere.eigenvalue))
    return Monotonicity(everywhere, _along_flows(model, transition, initial))


def _everywhere(model: RewardModel, shape: tuple[int, ...]) -> Verdict:
    size = model.slopes.shape[-1]
    if size == 1:
        return Verdict("monotone", "there is only one population", 0.0)
    zero_sum = scipy.linalg.helmert(size).T  # [X,X-1], orthonormal columns
    symmetric = (model.slopes + np.swapaxes(model.slopes, -1, -2)) / 2
    values, vectors = np.linalg.eigh(zero_sum.T @ symmetric @ zero_sum)
    point, step = (int(k) for k in np.unravel_index(values[..., -1].argmax(), values.shape[:2]))
    largest = float(values[point, step, -1])
    limit = TOLERANCE * float(np.abs(model.slopes).max())
    if largest <= limit:
        if model.affine:
            return Verdict("monotone", "no positive eigenvalue on zero-sum directions", largest)
        return Verdict("unknown", "no counterexample found by search", largest)
    direction = zero_sum @ vectors[point, step, :, -1]
    middle = np.full(size, 1 / size) if model.affine else model.points[point]
    found = _pair_along(model.rewards, middle, direction, step)
    if found is None:
        return Verdict("unknown", "a slope is positive, but no pair of populations shows it")
    mu, other, violation = found
    pair = PopulationPair(mu.reshape(shape), other.reshape(shape), step, violation)
    return Verdict("not monotone", "positive eigenvalue", largest, pair)


def _pair_along(
    rewards: Rewards, middle: np.ndarray, direction: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Two populations on both sides of `middle` that violate the inequality, if there are."""
    middle = 0.9 * middle + 0.1 / len(middle)
    reach = float((middle / np.maximum(np.abs(direction), 1e-300)).min())
    for share in (0.99, 0.3, 0.1, 0.03):
        mu, other = middle + share * reach * direction, middle - share * reach * direction
        violation = float((rewards(mu, step) - rewards(other, step)) @ (mu - other))
        if violation > 0:
            return mu, other, violation
    return None


def _along_flows(model: RewardModel, transition: np.ndarray, initial: np.ndarray) -> Verdict:
    horizon, num_states, num_actions = transition.shape[:3]
    uniform = np.full((horizon, num_states, num_actions), 1 / num_actions)
    flow = _flow(uniform, transition, initial)
    directions = _flow_directions(flow, transition)
    if directions is None:
        return Verdict("unknown", "too many flows to decide (steps x states x actions)")
    if directions.shape[1] == 0:
        return Verdict("monotone", "all policies have the same flow", 0.0)
    size = num_states * num_actions
    best = None
    for slopes in model.slopes:
        blocks = directions.reshape(horizon, size, -1)
        symmetric = (slopes + np.swapaxes(slopes, -1, -2)) / 2
        form = np.einsum("hxm,hxy,hyn->mn", blocks, symmetric, blocks, optimize=True)
        values, vectors = np.linalg.eigh((form + form.T) / 2)
        if best is None or values[-1] > best[0]:
            best = (float(values[-1]), directions @ vectors[:, -1])
    assert best is not None
    largest, direction = best
    if largest <= TOLERANCE * float(np.abs(model.slopes).max()):
        if model.affine:
            return Verdict("monotone", "no positive eigenvalue on differences of flows", largest)
        return Verdict("unknown", "no counterexample found by search", largest)
    pair = _policies_along(model.rewards, flow, direction.reshape(flow.shape))
    if pair is None:
        return Verdict("unknown", "a slope is positive, but no pair of policies shows it")
    return Verdict("not monotone", "positive eigenvalue", largest, pair)


def _flow(policy: np.ndarray, transition: np.ndarray, initial: np.ndarray) -> np.ndarray:
    """Population flow [H,S,A] of a policy where transitions are free of the population."""
    flow, here = [], initial
    for probs, moves in zip(policy, transition, strict=True):
        flow.append(here[:, None] * probs)
        here = np.einsum("sa,sat->t", flow[-1], moves)
    return np.array(flow)


def _flow_directions(flow: np.ndarray, transition: np.ndarray) -> np.ndarray | None:
    """Orthonormal basis [H*X,M] of the differences of flows, or None if M is too large.

    A policy may shift mass between the actions of any state that is reached at any step; what
    follows moves on with the transitions and spreads evenly over actions.
    """
    horizon, num_states, num_actions = flow.shape
    reached = flow.sum(-1) > 0
    if int(reached.sum()) * (num_actions - 1) > _MAX_FLOW_DIRECTIONS:
        return None
    columns = []
    for step, state in np.argwhere(reached):
        shift = np.zeros((horizon, num_states, num_actions, num_actions - 1))
        shift[step, state, :-1] = np.eye(num_actions - 1)
        shift[step, state, -1] = -1.0
        for later in range(step, horizon - 1):
            mass = np.einsum("sam,sat->tm", shift[later], transition[later])
            shift[later + 1] += mass[:, None, :] / num_actions
        columns.append(shift.reshape(flow.size, -1))
    if not columns or num_actions == 1:
        return np.zeros((flow.size, 0))
    return np.linalg.qr(np.concatenate(columns, axis=1))[0]


def _policies_along(rewards: Rewards, flow: np.ndarray, direction: np.ndarray) -> PolicyPair | None:
    """Two policies whose flows lie on both sides of `flow` and violate the inequality."""
    used = np.abs(direction) > 1e-12 * np.abs(direction).max()
    reach = float((flow[used] / np.abs(direction[used])).min())
    size = flow[0].size
    for share in (0.99, 0.3, 0.1, 0.03):
        pair = [np.maximum(flow + side * share * reach * direction, 0.0) for side in (1, -1)]
        violation = sum(
            float(
                (rewards(mu.reshape(size), h) - rewards(other.reshape(size), h))
                @ (mu - other).reshape(size)
            )
            for h, (mu, other) in enumerate(zip(*pair, strict=True))
        )
        if violation > 0:
            policy, other = (_policy_of(x) for x in pair)
            return PolicyPair(policy, other, violation)
    return None


def _policy_of(flow: np.ndarray) -> np.ndarray:
    """A policy [H,S,A] with the given flow; uniform where nobody comes."""
    mass = flow.sum(-1, keepdims=True)
    return np.where(mass > 0, flow / np.where(mass > 0, mass, 1.0), 1 / flow.shape[-1])
