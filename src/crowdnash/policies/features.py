"""Policies that are log-linear in functions of the agents' parameters.

    pi_h(a | s, i)  ~  exp( phi_i . W_h(s,a) )

One array of weights serves any number of agents, also agents that were never trained on. phi is a
`FeatureBasis` of `game.agent_features`, standardised and made uncorrelated over the agents that
were trained on, so that regressions on it are well conditioned. Where phi depends on the step (time
left to a departure, a price of the hour), parameters and features have a leading axis H, and every
step has a basis of its own.

Axes: N or n agents, k parameters, d features, H steps, S states, A actions.
"""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from crowdnash.files import read_arrays, write_arrays
from crowdnash.games.base import DynamicGame
from crowdnash.games.legal import LegalActions, legal_arrays, legal_from, legal_logits
from crowdnash.policies.base import Policy, check_sizes
from crowdnash.policies.plain import FEATURES, Arrays
from crowdnash.policies.tabular import TabularPolicy

Features = Literal["linear", "quadratic"] | Callable[[Any], Any]
"""Which functions of the parameters: polynomials, or by hand a function (agents) or (agents, step)
-> [N,d], with `game.agents`."""

MOST_QUADRATIC = 8
"""Parameters up to which "quadratic" means it; with more of them it means "linear"."""

_LEAST_SPREAD = 1e-4
_ROWS = 2**20
"""Agents whose columns are made together, in float64: of all at once they would need more memory
than a whole epoch."""


class FeatureBasis(eqx.Module):
    """Polynomials of standardised parameters, as d uncorrelated features, the first of them 1.

    Attributes:
        degree: 1 or 2; 0: the columns are taken as they are (functions given by hand).
        centre: subtracted from the parameters.
        scale: they are divided by it.
        column_centre: subtracted from the columns made of them.
        rotation: from centred columns to features of mean 0 and variance 1, uncorrelated over the
            agents that it was made of. Columns that depend on others are left out (are 0, where
            steps differ in how many do).

    All arrays have a leading axis H if the parameters depend on the step.
    """

    degree: int = eqx.field(static=True)
    centre: Float[np.ndarray, "*H k"]
    scale: Float[np.ndarray, "*H k"]
    column_centre: Float[np.ndarray, "*H p"]
    rotation: Float[np.ndarray, "*H p e"]

    @classmethod
    def of(cls, parameters: Any, degree: int) -> "FeatureBasis":
        """A basis fitted to the parameters of all agents.

        Args:
            parameters: [N,k], or [H,N,k] if they depend on the step; finite.
            degree: 1, 2, or 0 to take the columns as they are.

        Raises:
            ValueError: `parameters` is no such array, or `degree` none of these.
        """
        raw = _checked_parameters(parameters)
        if degree not in (0, 1, 2):
            raise ValueError(f"degree must be 0, 1 or 2, not {degree!r}")
        if raw.ndim == 3:
            return _stacked([cls.of(at_step, degree) for at_step in raw])
        count = len(raw)
        parts = [slice(k, k + _ROWS) for k in range(0, count, _ROWS)]

        def summed(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
            return np.sum([function(raw[part].astype(np.float64)).sum(0) for part in parts], axis=0)

        centre = summed(lambda x: x) / count
        spread = np.sqrt(summed(lambda x: (x - centre) ** 2) / count)
        varies = spread > 1e-12 * np.maximum(np.abs(raw).max(0, initial=0.0), 1e-300)
        scale = np.where(varies, spread, np.inf)  # a constant says nothing: it becomes 0

        def columns(part: slice) -> Float[np.ndarray, "n p"]:
            return _polynomials((raw[part].astype(np.float64) - centre) / scale, degree)

        column_centre = np.sum([columns(part).sum(0) for part in parts], axis=0) / count
        # Of many agents, the triangular factor of their columns has the same singular values.
        centred = columns(parts[0]) - column_centre
        for part in parts[1:]:
            centred = np.linalg.qr(np.concatenate([centred, columns(part) - column_centre]), "r")
        _, singular, directions = np.linalg.svd(centred, full_matrices=False)
        singular = singular / np.sqrt(count)
        kept = singular > _LEAST_SPREAD * max(singular.max(initial=0.0), 1e-300)
        return cls(degree, centre, scale, column_centre, directions[kept].T / singular[kept])

    @property
    def size(self) -> int:
        """d, the constant counted."""
        return self.rotation.shape[-1] + 1

    @property
    def num_steps(self) -> int | None:
        """H if the parameters depend on the step, else None."""
        return len(self.centre) if self.centre.ndim == 2 else None

    def __call__(self, parameters: Any) -> Float[np.ndarray, "*H n d"]:
        """Features of agents with these parameters, [n,k], or [H,n,k] if they depend on the step.

        Raises:
            ValueError: `parameters` is no finite array of that shape.
        """
        raw = _checked_parameters(parameters)
        if raw.shape[-1] != self.centre.shape[-1]:
            raise ValueError(
                f"features must have {self.centre.shape[-1]} columns, as the agents trained on, "
                f"not {raw.shape[-1]}"
            )
        if raw.shape[:-2] != self.centre.shape[:-1]:
            form = "[n,k]" if self.num_steps is None else f"[{self.num_steps},n,k]"
            raise ValueError(f"features must have shape {form}, not {list(raw.shape)}")
        features = np.ones((*raw.shape[:-1], self.size), np.float32)
        for first in range(0, raw.shape[-2], _ROWS):
            part = np.s_[..., first : first + _ROWS, :]
            centred = raw[part].astype(np.float64) - self.centre[..., None, :]
            columns = _polynomials(centred / self.scale[..., None, :], self.degree)
            columns = columns - self.column_centre[..., None, :]
            features[part][..., 1:] = columns @ self.rotation
        return features


def _stacked(bases: list[FeatureBasis]) -> FeatureBasis:
    """One basis of those of all steps: features that a step lacks are 0 there."""
    most = max(basis.size for basis in bases)
    rotations = [np.pad(b.rotation, ((0, 0), (0, most - b.size))) for b in bases]
    return FeatureBasis(
        bases[0].degree,
        np.stack([basis.centre for basis in bases]),
        np.stack([basis.scale for basis in bases]),
        np.stack([basis.column_centre for basis in bases]),
        np.stack(rotations),
    )


def game_basis(game: DynamicGame, features: Features | str) -> tuple[FeatureBasis, Any]:
    """The basis for a game, and the parameters that it takes, [N,k] or [H,N,k].

    Args:
        game: the game.
        features: "linear"; "quadratic", which means "linear" for more than `MOST_QUADRATIC`
            parameters; or a function -> [N,k] of `game.agents` (of the game, if it has none), or
            of these and the step, 0 to H-1.

    Raises:
        ValueError: `features` is none of these, or the game has no `agent_features`.
    """
    if callable(features):
        parameters = _by_hand(features, game)
        return FeatureBasis.of(parameters, 0), parameters
    check_features(features)
    if game.agent_features is None:
        raise ValueError(
            f"features={features!r} needs game.agent_features; {type(game).__name__} has none"
        )
    parameters = np.asarray(game.agent_features)
    quadratic = features == "quadratic" and parameters.shape[1] <= MOST_QUADRATIC
    return FeatureBasis.of(parameters, 2 if quadratic else 1), parameters


def _by_hand(features: Callable[..., Any], game: DynamicGame) -> Float[np.ndarray, "*H N k"]:
    agents = getattr(game, "agents", game)
    by_step = _takes_steps(features)
    calls = [(agents, step) for step in range(game.horizon)] if by_step else [(agents,)]
    tables = [np.asarray(features(*call), np.float64) for call in calls]
    for table in tables:
        if table.ndim != 2 or len(table) != game.num_agents or table.shape != tables[0].shape:
            raise ValueError(
                f"features(agents{', step' if by_step else ''}) must have shape "
                f"[{game.num_agents},d]{' at all steps' if by_step else ''}, not "
                f"{list(table.shape)}"
            )
    return np.stack(tables) if by_step else tables[0]


def _takes_steps(features: Callable[..., Any]) -> bool:
    """Whether the function has a second argument without a default: the step."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        arguments = inspect.signature(features).parameters.values()
    except (TypeError, ValueError):  # written in C, and silent about it
        return False
    needed = [x for x in arguments if x.kind in positional and x.default is x.empty]
    return len(needed) == 2


def check_features(features: Any) -> None:
    """Raise `ValueError` unless `features` is one of `Features`."""
    names = get_args(get_args(Features)[0])
    if not callable(features) and features not in names:
        raise ValueError(
            f"features must be 'linear', 'quadratic' or a function of the agents, not {features!r}"
        )


class FeaturePolicy(Policy):
    """pi(a|s) ~ exp(phi . W(s,a)) at every step, for the agents whose features it holds.

    Mirror descent (Algorithm 2) from the uniform policy stays in this class where Q is linear in
    phi, whatever N is.

    Attributes:
        weights: W.
        features: phi of the N agents that play it in the game it was learned in; [H,N,d] if phi
            depends on the step.
        basis: makes phi of other agents' parameters.
        legal: the actions that agents have, None for all: of the others, none is played.
    """

    weights: Float[Array, "H S A d"]
    features: Float[Array, "*H N d"]
    basis: FeatureBasis
    legal: LegalActions | None = None

    def __check_init__(self):
        if self.weights.ndim != 4 or self.weights.shape[-1] != self.basis.size:
            raise ValueError(
                f"weights must have shape [H,S,A,{self.basis.size}], not {list(self.weights.shape)}"
            )
        steps, shape = self.basis.num_steps, self.features.shape
        if steps is not None and steps != len(self.weights):
            raise ValueError(f"basis must be of {len(self.weights)} steps, not {steps}")
        ahead = () if steps is None else (steps,)
        if len(shape) < 2 or (*shape[:-2], shape[-1]) != (*ahead, self.basis.size):
            form = ",".join(map(str, (*ahead, "N", self.basis.size)))
            raise ValueError(f"features must have shape [{form}], not {list(shape)}")

    @property
    def num_agents(self) -> int:
        """N."""
        return self.features.shape[-2]

    def probabilities(
        self, observation: Int[Array, ""], agent_index: Int[Array, ""], step: Int[Array, ""]
    ) -> Float[Array, " A"]:
        """See `Policy.probabilities`; `observation` is the agent's state."""
        features = self.features if self.features.ndim == 2 else self.features[step]
        scores = self.weights[step, observation] @ features[agent_index]
        may = None if self.legal is None else self.legal(agent_index, observation, step)
        return jax.nn.softmax(legal_logits(scores, may))

    def for_agents(self, features: Any) -> TabularPolicy:
        """The policy of any n agents, given their parameters.

        Args:
            features: [n,k], as `game.agent_features`; where they are a function given by hand,
                what it returns, stacked to [H,n,k] if it depends on the step.

        Returns:
            A table for each of them, [n,H,S,A].

        Raises:
            ValueError: `features` is no finite array of that shape, or agents differ in what is
                legal, so that it is not known for others.
        """
        legal = None if self.legal is None else self.legal.tables
        if legal is not None and len(legal) > 1:
            raise ValueError(
                "for_agents needs agents that all have the same legal actions: these are of "
                f"{len(legal)} kinds"
            )
        phi = jnp.asarray(self.basis(features))
        return TabularPolicy.independent(log_linear_tables(self.weights, phi, legal))

    def tabular(self) -> TabularPolicy:
        """The same policy of the N agents it was learned for, as tables."""
        legal = None if self.legal is None else self.legal.tables[self.legal.kinds]
        return TabularPolicy.independent(log_linear_tables(self.weights, self.features, legal))

    def check_fits(self, game: DynamicGame) -> None:
        """Raise `ValueError` if this policy's N, H, S or A is not that of `game`."""
        check_sizes(game, self.num_agents, *self.weights.shape[:3])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy to `path` (NumPy .npz), replacing the file in one step.

        Raises:
            OSError: it cannot be written; an older file is then still there.
        """
        write_arrays(Path(path), self._file_arrays())

    def _file_arrays(self) -> Arrays:
        """See `Policy._file_arrays`."""
        basis = self.basis
        arrays = {
            "format": np.asarray(FEATURES),
            "weights": np.asarray(self.weights),
            "features": np.asarray(self.features),
            "degree": np.asarray(basis.degree),
            "centre": basis.centre,
            "scale": basis.scale,
            "column_centre": basis.column_centre,
            "rotation": basis.rotation,
        }
        return arrays | legal_arrays(self.legal)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "FeaturePolicy":
        """Read a policy that `save` wrote.

        Raises:
            ValueError: the file is missing or damaged, or is not such a policy.
        """
        arrays = read_arrays(Path(path))
        try:
            if str(arrays["format"]) != FEATURES:
                raise ValueError("it has another format")
            basis = FeatureBasis(
                int(arrays["degree"]),
                *(arrays[name] for name in ("centre", "scale", "column_centre", "rotation")),
            )
            weights, features = (jnp.asarray(arrays[name]) for name in ("weights", "features"))
            return cls(weights, features, basis, legal_from(arrays))
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{os.fspath(path)} is not a FeaturePolicy: {error}") from None


def as_tables(policy: Policy) -> Policy:
    """A `FeaturePolicy` as the tables of its agents; any other policy as it is."""
    return policy.tabular() if isinstance(policy, FeaturePolicy) else policy


def table_rows(
    policy: Policy,
) -> Callable[[Int[np.ndarray, "*B N"], int], Float[np.ndarray, "*B N A"]] | None:
    """How all agents' probabilities in their states at a step are looked up, in NumPy.

    None for a policy that is no table.
    """
    policy = as_tables(policy)
    if not isinstance(policy, TabularPolicy):
        return None
    tables, groups = np.asarray(policy.probs), np.asarray(policy.groups)
    return lambda states, step: tables[:, step][groups, states]


def log_linear_tables(
    weights: Float[Array, "H S A d"],
    features: Float[Array, "*H N d"],
    legal: Bool[Array, "#N H S A"] | None = None,
) -> Float[Array, "N H S A"]:
    """Probabilities of N agents as tables, over the actions that they have."""
    form = "hsad,nd->nhsa" if features.ndim == 2 else "hsad,hnd->nhsa"
    scores = jnp.einsum(form, weights, features, precision=jax.lax.Precision.HIGHEST)
    return jax.nn.softmax(legal_logits(scores, legal))


def _checked_parameters(parameters: Any) -> Float[np.ndarray, "*H n k"]:
    raw = np.asarray(parameters)
    if raw.dtype != np.float32:  # of very many agents, float64 would be a second copy
        raw = np.asarray(raw, np.float64)
    if raw.ndim not in (2, 3) or 0 in raw.shape[:-1]:
        raise ValueError(f"features must have shape [n,k], n >= 1, not {list(raw.shape)}")
    if not np.isfinite(raw).all():
        *step, row, _ = np.argwhere(~np.isfinite(raw))[0]
        when = f" at step {step[0]}" if step else ""
        raise ValueError(
            f"features must be finite numbers: those of agent {row}{when} are {raw[(*step, row)]}"
        )
    return raw


def _polynomials(standard: Float[np.ndarray, "*H n k"], degree: int) -> Float[np.ndarray, "*H n p"]:
    if degree < 2:
        return standard
    first, second = np.triu_indices(standard.shape[-1])
    return np.concatenate([standard, standard[..., first] * standard[..., second]], axis=-1)
