"""The Kirszbraun extension: interpolation, modulus, hull, optimality, and bad input."""

import itertools

import numpy as np
import pytest

from crowdnash.mean_field.kirszbraun import (
    KirszbraunExtension,
    kirszbraun_extension,
    lipschitz_modulus,
)


def grid(num_pairs: int, total: int) -> np.ndarray:
    every = itertools.product(range(total + 1), repeat=num_pairs)
    return np.array([c for c in every if sum(c) == total]) / total


def data(kind: str, points: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Values [n,size]; all but `smooth` and `crowd` are distributions over `size` outcomes."""
    rng = np.random.default_rng(seed)
    if kind == "random":
        return rng.dirichlet(np.ones(size), len(points))
    if kind == "affine":  # tight along whole lines
        return points @ rng.dirichlet(np.ones(size), points.shape[1])
    if kind == "smooth":
        return 100.0 * np.sin(3.0 * points @ rng.normal(size=(points.shape[1], size)))
    if kind == "kink":  # |x_0 - 1/2|, tight on both sides
        return np.abs(points[:, :1] - 0.5) * np.ones(size)
    return np.eye(size)[(points[:, 0] > 0.5).astype(int)]  # a jump


KINDS = ("random", "affine", "smooth", "kink", "jump")
SHAPES = ((4, 3, 2), (2, 9, 2), (6, 2, 3), (4, 4, 2))
CASES = [(*shape, kind) for shape in SHAPES for kind in KINDS]


@pytest.mark.parametrize(("num_pairs", "total", "size", "kind"), CASES)
def test_it_interpolates(num_pairs, total, size, kind):
    points = grid(num_pairs, total)
    values = data(kind, points, size, seed=1)
    image = kirszbraun_extension(points, values)(points)
    np.testing.assert_allclose(image, values, atol=1e-6 * max(1.0, np.abs(values).max()))


@pytest.mark.parametrize(("num_pairs", "total", "size", "kind"), CASES)
def test_modulus_is_never_exceeded_and_values_stay_in_the_hull(num_pairs, total, size, kind):
    """250 pairs a case, 5000 in all: far apart, close together, at data points and outside."""
    rng = np.random.default_rng(2)
    points = grid(num_pairs, total)
    values = data(kind, points, size, seed=3)
    extension = kirszbraun_extension(points, values)
    left = rng.dirichlet(0.5 * np.ones(num_pairs), 250)
    right = rng.dirichlet(np.ones(num_pairs), 250)
    right[:100] = left[:100] + 1e-3 * (right[:100] - left[:100])
    left[100:150] = points[rng.integers(len(points), size=50)]
    right[150:200] += rng.normal(size=(50, num_pairs))
    f_left, f_right = extension(left), extension(right)
    rise = np.linalg.norm(f_left - f_right, axis=1)
    run = np.linalg.norm(left - right, axis=1)
    scale = max(1.0, np.abs(values).max())
    assert (rise <= extension.lipschitz * run * (1 + 1e-9) + 1e-9 * scale).all()
    for image in (f_left, f_right):
        assert (image >= values.min(0) - 1e-12 * scale).all()
        assert (image <= values.max(0) + 1e-12 * scale).all()
        if kind in ("random", "affine", "jump"):
            np.testing.assert_allclose(image.sum(1), 1.0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1.0, 1.7])
def test_weights_solve_the_quadratic_program_of_the_paper(kind, factor):
    """Optimality over the simplex: the gradient is smallest exactly where the weight is.

    Written with the program as in Azagra, Le Gruyer and Mudarra's formula, not as the library has.
    """
    rng = np.random.default_rng(4)
    x, f = grid(4, 3), data(kind, grid(4, 3), 2, seed=5)
    extension = kirszbraun_extension(x, f, factor * lipschitz_modulus(x, f))
    lipschitz = extension.lipschitz
    quadratic = lipschitz / 2 * x @ x.T + f @ f.T / (2 * lipschitz)
    for at in np.vstack([rng.dirichlet(np.ones(4), 40), x[:5], rng.normal(size=(5, 4))]):
        linear = -lipschitz * x @ at + lipschitz / 4 * (x**2).sum(1)
        linear -= (f**2).sum(1) / (4 * lipschitz)
        weights = extension.weights(at)
        gradient = linear + quadratic @ weights
        assert weights.min() >= 0.0
        assert weights.sum() == pytest.approx(1.0, abs=1e-12)
        # Frank-Wolfe gap: how far the objective can be above its minimum
        gap = weights @ gradient - gradient.min()
        assert gap <= 1e-9 * max(1.0, lipschitz)


def test_two_points_by_hand():
    """Data 0 -> 0, 1 -> 1 and L = 2: lambda = (4x - 3/4) / (5/2), clipped to [0,1]."""
    extension = kirszbraun_extension([[0.0], [1.0]], [0.0, 1.0], 2.0)
    image = extension([[0.3], [0.5], [0.1], [0.95]])
    np.testing.assert_allclose(image, [0.18, 0.5, 0.0, 1.0], atol=1e-9)
    tight = kirszbraun_extension([[0.0], [1.0]], [0.0, 1.0])
    np.testing.assert_allclose(tight([[0.3], [-1.0], [5.0]]), [0.3, 0.0, 1.0], atol=1e-9)


def test_an_isometry_is_extended_to_its_hull_by_itself():
    rng = np.random.default_rng(6)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    points = rng.normal(size=(12, 3))
    extension = kirszbraun_extension(points, points @ rotation)
    assert extension.lipschitz == pytest.approx(1.0)
    inside = rng.dirichlet(np.ones(12), 20) @ points
    np.testing.assert_allclose(extension(inside), inside @ rotation, atol=1e-6)


def test_constant_maps_single_points_and_repeated_points():
    constant = kirszbraun_extension(grid(3, 2), np.full((6, 2), 0.5), 0.0)
    np.testing.assert_array_equal(constant([[5.0, -1.0, 2.0]]), [[0.5, 0.5]])
    assert kirszbraun_extension(grid(3, 2), np.full(6, 0.5)).lipschitz == 0.0
    single = kirszbraun_extension([[1.0, 2.0]], [3.0], 4.0)
    assert single([9.0, 9.0]) == 3.0
    twice = kirszbraun_extension([[0.0], [1.0], [0.0]], [0.0, 1.0, 0.0])
    assert twice.points.shape == (2, 1)
    np.testing.assert_allclose(twice([[0.0], [0.25]]), [0.0, 0.25], atol=1e-9)


def test_batches_of_any_shape():
    points, rng = grid(3, 4), np.random.default_rng(7)
    scalar = kirszbraun_extension(points, rng.normal(size=len(points)))
    vector = kirszbraun_extension(points, rng.normal(size=(len(points), 2)))
    at = rng.dirichlet(np.ones(3), (2, 5))
    assert isinstance(scalar, KirszbraunExtension)
    assert scalar(at).shape == (2, 5)
    assert vector(at).shape == (2, 5, 2)
    assert vector(at[0, 0]).shape == (2,)
    assert scalar(at[0, 0]).shape == ()
    assert vector(np.zeros((0, 3))).shape == (0, 2)
    np.testing.assert_allclose(vector(at)[1, 3], vector(at[1, 3]), atol=1e-9)


def test_modulus_by_hand_and_in_blocks():
    assert lipschitz_modulus([[0.0], [1.0], [3.0]], [0.0, 1.0, 5.0]) == 2.0
    assert lipschitz_modulus([[0.0, 0.0], [3.0, 4.0]], [[0.0, 0.0], [6.0, 8.0]]) == 2.0
    rng = np.random.default_rng(8)
    points, values = rng.normal(size=(1100, 3)), rng.normal(size=(1100, 2))
    apart = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(1100, np.inf))
    differ = np.linalg.norm(values[:, None] - values, axis=2)
    assert lipschitz_modulus(points, values) == pytest.approx((differ / apart).max())


LINE = [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LINE, [0.0, 3.0], 2.5), "lipschitz must be at least the modulus of the data, 3, not 2.5"),
        ((LINE, [0.0, 3.0], 0.0), "lipschitz must be at least the modulus of the data, 3, not 0"),
        ((LINE, [0.0, 3.0], -1.0), "lipschitz must be finite and at least 0, not -1.0"),
        ((LINE, [0.0, 3.0], float("nan")), "lipschitz must be finite and at least 0, not nan"),
        (([[0.0], [1.0], [0.0]], [0.0, 1.0, 2.0]), r"twice .* points\[0\] and points\[2\]"),
        ((LINE, [0.0, 1.0, 2.0]), r"values must have shape \[2\] or \[2,D\], not \[3\]"),
        (([0.0, 1.0], [0.0, 1.0]), r"points must have shape \[n,d\]"),
        ((np.zeros((0, 2)), np.zeros(0)), r"points must have shape \[n,d\] with n, d >= 1"),
        ((LINE, [0.0, float("nan")]), "values must be finite"),
        (([[0.0], [float("inf")]], [0.0, 1.0]), "points must be finite"),
    ],
)
def test_bad_data(arguments, message):
    with pytest.raises(ValueError, match=message):
        kirszbraun_extension(*arguments)


def test_bad_points_to_evaluate_at():
    extension = kirszbraun_extension(LINE, [0.0, 1.0])
    with pytest.raises(ValueError, match=r"at must have shape \[...,1\], not \[3, 2\]"):
        extension(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"at must have shape \[...,1\], not \[\]"):
        extension(0.5)
    with pytest.raises(ValueError, match="at must be finite"):
        extension([[float("nan")]])
