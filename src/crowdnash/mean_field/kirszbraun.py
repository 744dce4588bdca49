"""Lipschitz extension without loss of modulus (Lemma 1, Kirszbraun-Valentine), explicitly.

For data (x_j, f_j), j = 1..n, that are L-Lipschitz in Euclidean norms, the extension at x is
F(x) = sum_j lambda_j f_j, where lambda minimises over the simplex, with g = f/L and E the mean
under lambda,

    E|x_j - x|^2 + |E x_j - x|^2 - E|g_j - E g|^2 .

Apart from a constant and a factor this is the convex quadratic program of Azagra, Le Gruyer and
Mudarra's explicit formula ("Kirszbraun's theorem via an explicit formula"); the form above does
not change when points or values are shifted. F interpolates the data, is L-Lipschitz everywhere,
and lies in the convex hull of the values (probabilities stay probabilities).

All work is NumPy float64 on the host; the program is solved by Clarabel.

Axes: n data, d and D the dimensions of points and values, B any batch axes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, final

import clarabel
import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.spatial.distance import cdist

_clarabel: Any = clarabel  # it is compiled and has no type stubs

_SOLVER_TOLERANCE = 1e-12
_MODULUS_TOLERANCE = 1e-9
_SLACK = 1e-9
_POLISHING_ROUNDS = 5
_ROWS_AT_ONCE = 512


def lipschitz_modulus(points: Any, values: Any) -> float:
    """Smallest L with |f_j - f_k| <= L |x_j - x_k| for all pairs of data (Euclidean norms).

    Args:
        points: [n,d], finite.
        values: [n] or [n,D], finite.

    Raises:
        ValueError: A shape is wrong, an entry is not finite, or a point occurs twice with
            different values.
    """
    return _modulus(*_checked_data(points, values))


def kirszbraun_extension(
    points: Any, values: Any, lipschitz: float | None = None
) -> "KirszbraunExtension":
    """The extension of data to all of R^d with modulus `lipschitz` (Lemma 1).

    Args:
        points: [n,d].
        values: [n] or [n,D].
        lipschitz: L >= 0 in units of values per unit of points; 0 is a constant map. Default: the
            modulus of the data, the smallest that is possible.

    Raises:
        ValueError: As `lipschitz_modulus`, or L is negative, not finite or smaller than the
            modulus of the data.
    """
    checked = _checked_data(points, values)
    modulus = _modulus(*checked)
    if lipschitz is None:
        lipschitz = modulus
    if not (np.isfinite(lipschitz) and lipschitz >= 0.0):
        raise ValueError(f"lipschitz must be finite and at least 0, not {lipschitz}")
    if lipschitz < modulus * (1.0 - _MODULUS_TOLERANCE):
        raise ValueError(
            f"lipschitz must be at least the modulus of the data, {modulus:.9g}, "
            f"not {lipschitz:.9g}"
        )
    kept = np.unique(checked.points, axis=0, return_index=True)[1]
    kept.sort()
    return KirszbraunExtension(
        checked.points[kept], checked.values[kept], float(lipschitz), np.ndim(values) == 1
    )


class _Data(NamedTuple):
    points: Float[np.ndarray, "n d"]
    values: Float[np.ndarray, "n D"]


class _Program(NamedTuple):
    """min q.lambda + |w|^2/2 over the simplex, w = Z^T lambda, in Clarabel's standard form.

    `features` Z [n,d+D] are centred points and values / L side by side; `cost` [n] is the part of
    q that does not depend on x; `centre` [d] was subtracted from the points.
    """

    features: np.ndarray
    cost: np.ndarray
    centre: np.ndarray
    quadratic: Any
    constraints: Any
    bounds: np.ndarray
    cones: list


@final
@dataclass(frozen=True, eq=False)
class KirszbraunExtension:
    """An L-Lipschitz map R^d -> R^D through data; make one by `kirszbraun_extension`.

    `points` [n,d], `values` [n,D], `lipschitz` L; `scalar`: whether D is dropped from results.
    """

    points: Float[np.ndarray, "n d"]
    values: Float[np.ndarray, "n D"]
    lipschitz: float
    scalar: bool

    def __call__(self, at: Any) -> Float[np.ndarray, "..."]:
        """F at a batch of points [*B,d]: [*B,D], or [*B] if the values were of shape [n].

        Raises:
            ValueError: The last axis is not d or a coordinate is not finite.
            RuntimeError: The solver fails.
        """
        weights = self.weights(at)
        result = weights @ self.values
        return result[..., 0] if self.scalar else result

    def weights(self, at: Any) -> Float[np.ndarray, "*B n"]:
        """The lambda [*B,n] whose mean of the data is F: at least 0, sum 1.

        Raises as a call does.
        """
        batch = np.asarray(at, np.float64)
        dimension = self.points.shape[1]
        if batch.ndim == 0 or batch.shape[-1] != dimension:
            raise ValueError(f"at must have shape [...,{dimension}], not {list(batch.shape)}")
        if not np.isfinite(batch).all():
            raise ValueError("at must be finite; it holds NaN or infinity")
        flat = batch.reshape(-1, dimension)
        result = np.zeros((len(flat), len(self.points)))
        if self.lipschitz == 0.0 or len(self.points) == 1:
            result[:, 0] = 1.0  # a constant map
        elif len(flat):
            self._solve(flat, result)
        return result.reshape(*batch.shape[:-1], len(self.points))

    def _solve(self, flat: np.ndarray, result: np.ndarray) -> None:
        program = self._program
        size = len(program.features)
        free = np.zeros(program.features.shape[1])
        solver = None
        for row, x in zip(result, flat, strict=True):
            cost = program.cost - 2.0 * program.features[:, : len(x)] @ (x - program.centre)
            linear = np.concatenate([cost, free])
            if solver is None:
                solver = _solver(program, linear)
            else:
                solver.update(q=linear)
            solution = solver.solve()
            if solution.status not in _SOLVED:
                raise RuntimeError(f"the quadratic program was not solved: {solution.status}")
            rough = np.maximum(np.asarray(solution.x)[:size], 0.0)  # -1e-12 is the solver's zero
            slack = np.asarray(solution.z)[-size:]
            row[:] = _polished(program.features, cost, rough / rough.sum(), slack)

    @cached_property
    def _program(self) -> _Program:
        centre = self.points.mean(0)
        points = self.points - centre
        scaled = (self.values - self.values.mean(0)) / self.lipschitz
        features = np.hstack([points, scaled])
        n, k = features.shape
        # w is a variable of its own, so that the solver sees n k entries and not n^2.
        quadratic = sparse.diags(np.repeat([0.0, 1.0], [n, k]), format="csc")
        constraints = sparse.bmat(
            [
                [sparse.csc_matrix(features.T), -sparse.eye(k)],
                [np.ones((1, n)), None],
                [-sparse.eye(n), None],
            ],
            format="csc",
        )
        return _Program(
            features=features,
            cost=0.5 * (points**2).sum(1) - 0.5 * (scaled**2).sum(1),
            centre=centre,
            quadratic=quadratic,
            constraints=constraints,
            bounds=np.concatenate([np.zeros(k), [1.0], np.zeros(n)]),
            cones=[_clarabel.ZeroConeT(k + 1), _clarabel.NonnegativeConeT(n)],
        )


_SOLVED = (_clarabel.SolverStatus.Solved, _clarabel.SolverStatus.AlmostSolved)


def _solver(program: _Program, linear: np.ndarray) -> Any:
    settings = _clarabel.DefaultSettings()
    settings.verbose = False
    settings.presolve_enable = False  # it would forbid updates of q
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = _SOLVER_TOLERANCE
    return _clarabel.DefaultSolver(
        program.quadratic, linear, program.constraints, program.bounds, program.cones, settings
    )


def _polished(
    features: np.ndarray, cost: np.ndarray, weights: np.ndarray, slack: np.ndarray
) -> np.ndarray:
    """The exact minimiser on the support that an interior-point solution suggests, or that itself.

    Where the data are tight (at a data point, say) F is off by the root of the duality gap, 1e-6.
    On the right support S the optimality conditions are linear: equal reduced costs over S.
    """
    support = weights > slack
    for _ in range(_POLISHING_ROUNDS):
        if not support.any():
            break
        z, q, rough = features[support], cost[support], weights[support]
        middle = z.mean(0)
        spread = z - middle
        step = np.linalg.lstsq(spread, q.mean() - q - spread @ middle, rcond=1e-12)[0]
        optimum = middle + step
        lifted = np.vstack([z.T, np.ones(len(z))])
        gap = np.append(optimum, 1.0) - lifted @ rough
        exact = rough + np.linalg.lstsq(lifted, gap, rcond=1e-12)[0]
        if exact.min() >= -_SLACK:
            reduced = cost + features @ optimum
            if reduced.min() < reduced[support].mean() - _SLACK:
                break  # a point outside the support would do better
            exact = np.maximum(exact, 0.0)  # rounding
            result = np.zeros_like(weights)
            result[support] = exact / exact.sum()
            return result
        support[np.flatnonzero(support)[exact < -_SLACK]] = False
    return weights


def _checked_data(points: Any, values: Any) -> _Data:
    x, f = np.asarray(points, np.float64), np.asarray(values, np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"points must have shape [n,d] with n, d >= 1, not {list(x.shape)}")
    if f.ndim not in (1, 2) or f.shape[0] != x.shape[0] or f.size == 0:
        raise ValueError(
            f"values must have shape [{x.shape[0]}] or [{x.shape[0]},D], not {list(f.shape)}"
        )
    for argument, array in (("points", x), ("values", f)):
        if not np.isfinite(array).all():
            raise ValueError(f"{argument} must be finite; it holds NaN or infinity")
    return _Data(x, f.reshape(len(f), -1))


def _modulus(points: np.ndarray, values: np.ndarray) -> float:
    """Largest ratio over all pairs, a block of rows at a time."""
    largest = 0.0
    for start in range(0, len(points), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        apart = cdist(points[rows], points[start:])
        differ = cdist(values[rows], values[start:])
        twice = (apart == 0.0) & (differ > 0.0)
        if twice.any():
            j, k = np.argwhere(twice)[0] + start
            raise ValueError(
                f"points must not occur twice with different values, as points[{j}] and points[{k}]"
                f" do: {values[j].tolist()} and {values[k].tolist()}"
            )
        largest = max(largest, float((differ / np.where(apart == 0.0, np.inf, apart)).max()))
    return largest
