"""Actions drawn in NumPy, among the legal ones if others are not. Axes: A actions, n agents."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int


def draw_legal(
    probs: Float[np.ndarray, "*lead A"],
    numbers: Float[np.ndarray, "*lead"],
    legal: Bool[np.ndarray, "*lead A"] | None,
) -> Int[np.ndarray, "*lead"]:
    """Actions by inverting distribution functions at uniform `numbers`, among the legal ones."""
    below = legal_share(probs, legal).cumsum(-1, dtype=np.float64)
    return (numbers[..., None] * below[..., -1:] >= below[..., :-1]).sum(-1)


def legal_share(
    probs: Float[np.ndarray, "*lead A"], legal: Bool[np.ndarray, "*lead A"] | None
) -> Float[np.ndarray, "*lead A"]:
    """Probabilities of the legal actions, not divided by their sum; all alike where that is 0."""
    if legal is None:
        return probs
    masked = np.where(legal, probs, 0.0)
    return np.where(masked.sum(-1, keepdims=True) > 0, masked, legal.astype(masked.dtype))


def draw_actions(
    probs: Float[np.ndarray, "n A"],
    generator: np.random.Generator,
    legal: Bool[np.ndarray, "n A"] | None = None,
) -> Int[np.ndarray, " n"]:
    """An action for every row, none of probability 0; advances the generator."""
    return draw_legal(probs, generator.random(len(probs)), legal)
