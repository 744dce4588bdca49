"""Monotonicity of a mean-field game (Def. 10), in the paper's two senses.

    sum_g w_g sum_{s,a} (R_g(s,a,mu) - R_g(s,a,mu')) (mu^g(s,a) - mu'^g(s,a)) <= 0

for all populations mu, mu' ("everywhere"; Def. 10 as written), or summed over h for the flows of
any two policies ("along flows"; what the paper's proofs use). P must not depend on mu. w_g are
the shares of the groups; the paper has one, w = 1.

With slopes B_{h,g} = dR_{h,g}/d nu at the population nu = sum_k meeting[g,k] mu^k that group g
meets, the sum is a quadratic form with blocks w_g meeting[g,k] B_{h,g}. Everywhere means that its
symmetric part has no positive eigenvalue where every group's mass sums to zero; along flows, that
the block diagonal over h has none on differences of flows. For affine rewards both are exact.

Several groups of an induced game leave an agent's own share out of what it meets: meeting[g,k] =
(N w_k - 1[k=g])/(N-1). Then the form is N/(N-1) (D' B D - (1/N) sum_g w_g d_g' B d_g), with
D = sum_g w_g d_g, if all groups have the same slopes B: two groups that move in opposite ways
break monotonicity by the second term, of order 1/N. `Monotonicity.whole_population` tells that
from a game that is not monotone for a better reason.

Axes: G groups, H steps, S states, A actions, X = S*A pairs, Z points where slopes were taken.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

Status = Literal["monotone", "not monotone", "unknown"]
Rewards = Callable[[np.ndarray, int], np.ndarray]
"""R_g [G,X] at the populations nu [G,X] that the groups meet, and a step."""

TOLERANCE = 1e-7
"""Eigenvalues up to this share of the largest slope count as zero (float32 parameters)."""

_MAX_DIRECTIONS = 1500


class PopulationPair(NamedTuple):
    """Two populations [S,A] ([G,S,A] for several groups) at one step.

    `violation` > 0 is the sum that should be <= 0.
    """

    mu: Float[np.ndarray, "*G S A"]
    other: Float[np.ndarray, "*G S A"]
    step: int
    violation: float


class PolicyPair(NamedTuple):
    """Two policies [H,S,A] ([G,H,S,A]); `violation` > 0 is the sum over h that should be <= 0."""

    policy: Float[np.ndarray, "*G H S A"]
    other: Float[np.ndarray, "*G H S A"]
    violation: float


@dataclass(frozen=True)
class Verdict:
    """Whether a game is monotone in one of the two senses, and why.

    `eigenvalue` is the largest computed (<= 0 up to rounding if monotone), in reward per
    unit of mass (a group's mass counts with its share); None if none was computed.
    `counterexample` is there if not monotone.
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
    """Def. 10: `everywhere` for all mu, mu' as written; `along_flows` as the proofs use it.

    `whole_population`: for several groups, the same of the game whose agents meet the whole
    population sum_k w_k mu^k, their own share included, to which the induced game tends as N
    grows. None for one group, where the two are the same.
    """

    everywhere: Verdict
    along_flows: Verdict
    whole_population: "Monotonicity | None" = None


class RewardModel(NamedTuple):
    """What the checks need: `slopes` (row: own pair) and the rewards themselves.

    `points` [Z,X] are populations, the same for all groups, where slopes were taken; one is
    enough if `affine`. T is H, or 1 if the step does not matter.
    """

    rewards: Rewards
    slopes: Float[np.ndarray, "Z T G X X"]
    points: Float[np.ndarray, "Z X"]
    shares: Float[np.ndarray, " G"]
    meeting: Float[np.ndarray, "G G"]
    affine: bool

    @property
    def scale(self) -> float:
        """The largest slope."""
        return float(np.abs(self.slopes).max())

    def forms(self) -> Float[np.ndarray, "Z T GX GX"]:
        """The quadratic form in sqrt(w_g) d_g, symmetrised."""
        root = np.sqrt(self.shares)
        weights = root[:, None] * self.meeting / root  # [G,G]
        blocks = np.einsum("gk,ztgxy->ztgxky", weights, self.slopes)
        size = self.slopes.shape[2] * self.slopes.shape[3]
        form = blocks.reshape(*self.slopes.shape[:2], size, size)
        return (form + np.swapaxes(form, -1, -2)) / 2

    def total(self, mu: Float[np.ndarray, "G X"], other: np.ndarray, step: int) -> float:
        """The sum of Def. 10 for two populations at one step."""
        change = self.rewards(self.meeting @ mu, step) - self.rewards(self.meeting @ other, step)
        return float(self.shares @ (change * (mu - other)).sum(1))


def moving_population(pair: tuple[np.ndarray, np.ndarray, int, float]) -> Monotonicity:
    """The verdict on a game whose transitions depend on the population: Def. 10 excludes it."""
    mu, other, step, apart = pair
    reason = (
        f"P depends on the population (by {apart:.3g} in L1 at step {step} between the two "
        "populations), which Def. 10 excludes"
    )
    both = Verdict("not monotone", reason, None, PopulationPair(mu, other, step, 0.0))
    if mu.ndim == 2:
        return Monotonicity(both, both)
    return Monotonicity(both, both, Monotonicity(both, both))


def check_monotone(
    model: RewardModel,
    transition: Float[np.ndarray, "H G S A S"],
    initial: Float[np.ndarray, " S"],
) -> Monotonicity:
    """Both verdicts for a game whose transitions are free of the population."""
    induced = _both_senses(model, transition, initial)
    if len(model.shares) == 1:
        return induced
    whole = model._replace(meeting=np.broadcast_to(model.shares, model.meeting.shape))
    limit = _both_senses(whole, transition, initial)
    senses = [
        replace(one, reason=f"{one.reason}, which vanishes if agents meet their own share too")
        if one.status == "not monotone" and other.status == "monotone"
        else one
        for one, other in (
            (induced.everywhere, limit.everywhere),
            (induced.along_flows, limit.along_flows),
        )
    ]
    return Monotonicity(*senses, whole_population=limit)


def _both_senses(model: RewardModel, transition: np.ndarray, initial: np.ndarray) -> Monotonicity:
    everywhere = _everywhere(model, transition.shape[2:4])
    if everywhere.status == "monotone":
        reason = "monotone for all populations, so along flows"
        return Monotonicity(everywhere, Verdict("monotone", reason, everywhere.eigenvalue))
    return Monotonicity(everywhere, _along_flows(model, transition, initial))


def _everywhere(model: RewardModel, shape: tuple[int, ...]) -> Verdict:
    groups, size = model.slopes.shape[2:4]
    if size == 1:
        return Verdict("monotone", "there is only one population", 0.0)
    if groups * (size - 1) > _MAX_DIRECTIONS:
        return Verdict("unknown", "too many populations to decide (groups x states x actions)")
    zero_sum = np.kron(np.eye(groups), scipy.linalg.helmert(size).T)  # orthonormal columns
    forms = zero_sum.T @ model.forms() @ zero_sum
    places = list(np.ndindex(forms.shape[:2]))
    tops = [_largest_eigenvalue(forms[place]) for place in places]
    first = int(np.argmax([value for value, _ in tops]))
    (point, step), (largest, vector) = places[first], tops[first]
    if largest <= TOLERANCE * model.scale:
        if model.affine:
            return Verdict("monotone", "no positive eigenvalue on zero-sum directions", largest)
        return Verdict("unknown", "no counterexample found by search", largest)
    direction = (zero_sum @ vector).reshape(groups, size)
    direction = direction / np.sqrt(model.shares)[:, None]
    middle = np.full(size, 1 / size) if model.affine else model.points[point]
    pair = _pair_along(model, np.tile(middle, (groups, 1)), direction, step)
    if pair is None:
        return Verdict("unknown", "a slope is positive, but no pair of populations shows it")
    mu, other, violation = pair
    shape = shape if groups == 1 else (groups, *shape)
    pair = PopulationPair(mu.reshape(shape), other.reshape(shape), step, violation)
    return Verdict("not monotone", "positive eigenvalue", largest, pair)


def _largest_eigenvalue(form: np.ndarray) -> tuple[float, np.ndarray]:
    """The largest eigenvalue of a symmetric matrix, and its vector."""
    last = len(form) - 1
    values, vectors = scipy.linalg.eigh(form, subset_by_index=[last, last])
    return float(values[0]), vectors[:, 0]


def _pair_along(
    model: RewardModel, middle: np.ndarray, direction: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Two populations on both sides of `middle` that violate the inequality, if there are."""
    middle = 0.9 * middle + 0.1 / middle.shape[1]
    reach = float((middle / np.maximum(np.abs(direction), 1e-300)).min())
    for share in (0.99, 0.3, 0.1, 0.03):
        mu, other = middle + share * reach * direction, middle - share * reach * direction
        violation = model.total(mu, other, step)
        if violation > 0:
            return mu, other, violation
    return None


def _along_flows(model: RewardModel, transition: np.ndarray, initial: np.ndarray) -> Verdict:
    horizon, groups, num_states, num_actions = transition.shape[:4]
    uniform = np.full((groups, horizon, num_states, num_actions), 1 / num_actions)
    each = range(groups)
    flow = np.array([_flow(uniform[g], transition[:, g], initial) for g in each])  # [G,H,S,A]
    if int((flow.sum(-1) > 0).sum()) * (num_actions - 1) > _MAX_DIRECTIONS:
        return Verdict("unknown", "too many flows to decide (groups x steps x states x actions)")
    directions = [_flow_directions(flow[g], transition[:, g]) for g in each]
    if sum(d.shape[1] for d in directions) == 0:
        return Verdict("monotone", "all policies have the same flow", 0.0)
    size = num_states * num_actions
    basis = np.asarray(scipy.linalg.block_diag(*directions))  # [G*H*X,M]
    blocks = np.moveaxis(basis.reshape(groups, horizon, size, -1), 1, 0)
    blocks = blocks.reshape(horizon, groups * size, -1)
    best = None
    for forms in model.forms():  # [T,G*X,G*X]
        bent = np.broadcast_to(forms, (horizon, *forms.shape[1:])) @ blocks
        form = np.tensordot(blocks, bent, ((0, 1), (0, 1)))
        value, vector = _largest_eigenvalue((form + form.T) / 2)
        if best is None or value > best[0]:
            best = (value, basis @ vector)
    assert best is not None
    largest, direction = best
    if largest <= TOLERANCE * model.scale:
        if model.affine:
            return Verdict("monotone", "no positive eigenvalue on differences of flows", largest)
        return Verdict("unknown", "no counterexample found by search", largest)
    direction = direction.reshape(flow.shape) / np.sqrt(model.shares).reshape(-1, 1, 1, 1)
    pair = _policies_along(model, flow, direction)
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


def _flow_directions(flow: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """Orthonormal basis [H*X,M] of the differences of flows.

    A policy may shift mass between the actions of any state that is reached at any step; what
    follows moves on with the transitions and spreads evenly over actions.
    """
    horizon, num_states, num_actions = flow.shape
    reached = flow.sum(-1) > 0
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


def _policies_along(
    model: RewardModel, flow: Float[np.ndarray, "G H S A"], direction: np.ndarray
) -> PolicyPair | None:
    """Two policies whose flows lie on both sides of `flow` and violate the inequality."""
    used = np.abs(direction) > 1e-12 * np.abs(direction).max()
    reach = float((flow[used] / np.abs(direction[used])).min())
    groups, horizon = flow.shape[:2]
    for share in (0.99, 0.3, 0.1, 0.03):
        pair = [np.maximum(flow + side * share * reach * direction, 0.0) for side in (1, -1)]
        mu, other = (x.reshape(groups, horizon, -1) for x in pair)
        violation = sum(model.total(mu[:, h], other[:, h], h) for h in range(horizon))
        if violation > 0:
            policy, second = (_policy_of(x[0] if groups == 1 else x) for x in pair)
            return PolicyPair(policy, second, violation)
    return None


def _policy_of(flow: np.ndarray) -> np.ndarray:
    """A policy with this flow, of the same shape; uniform where nobody comes."""
    mass = flow.sum(-1, keepdims=True)
    return np.where(mass > 0, flow / np.where(mass > 0, mass, 1.0), 1 / flow.shape[-1])
