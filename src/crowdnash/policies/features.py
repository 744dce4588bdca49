"""Policies that are log-linear in functions of the agents' parameters.

    pi_h(a | s, i)  ~  exp( phi_i . W_h(s,a) )

One array of weights serves any number of agents, also agents that were never trained on. phi is a
`FeatureBasis` of `game.agent_features`, standardised and made uncorrelated over the agents that
were trained on, so that regressions on it are well conditioned.

Axes: N or n agents, k parameters, d features, H steps, S states, A actions.
"""

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
"""Which functions of the parameters: polynomials, or `game.agents -> [N,d]` by hand."""

MOST_QUADRATIC = 8
"""Parameters up to which "quadratic" means it; with more of them it means "linear"."""

_LEAST_SPREAD = 1e-4


class FeatureBasis(eqx.Module):
    """Polynomials of standardised parameters, as d uncorrelated features, the first of them 1.

    Attributes:
        degree: 1 or 2; 0: the columns are taken as they are (functions given by hand).
        centre: subtracted from the parameters.
        scale: they are divided by it.
        column_centre: subtracted from the columns made of them.
        rotation: from centred columns to features of mean 0 and variance 1, uncorrelated over the
            agents that it was made of. Columns that depend on others are left out.
    """

    degree: int = eqx.field(static=True)
    centre: Float[np.ndarray, " k"]
    scale: Float[np.ndarray, " k"]
    column_centre: Float[np.ndarray, " p"]
    rotation: Float[np.ndarray, "p e"]

    @classmethod
    def of(cls, parameters: Any, degree: int) -> "FeatureBasis":
        """A basis fitted to the parameters of all agents.

        Args:
            parameters: [N,k], finite.
            degree: 1, 2, or 0 to take the columns as they are.

        Raises:
            ValueError: `parameters` is no such array, or `degree` none of these.
        """
        raw = _checked_parameters(parameters)
        if degree not in (0, 1, 2):
            raise ValueError(f"degree must be 0, 1 or 2, not {degree!r}")
        spread = raw.std(0)
        varies = spread > 1e-12 * np.maximum(np.abs(raw).max(0, initial=0.0), 1e-300)
        scale = np.where(varies, spread, np.inf)  # a constant says nothing: it becomes 0
        columns = _polynomials((raw - raw.mean(0)) / scale, degree)
        centred = columns - columns.mean(0)
        _, singular, directions = np.linalg.svd(centred, full_matrices=False)
        singular = singular / np.sqrt(len(raw))
        kept = singular > _LEAST_SPREAD * max(singular.max(initial=0.0), 1e-300)
        rotation = directions[kept].T / singular[kept]
        return cls(degree, raw.mean(0), scale, columns.mean(0), rotation)

    @property
    def size(self) -> int:
        """d, the constant counted."""
        return self.rotation.shape[1] + 1

    def __call__(self, parameters: Any) -> Float[np.ndarray, "n d"]:
        """Features of agents with these parameters, [n,k].

        Raises:
            ValueError: `parameters` is no finite array with k columns.
        """
        raw = _checked_parameters(parameters)
        if raw.shape[1] != len(self.centre):
            raise ValueError(
                f"features must have {len(self.centre)} columns, as the agents trained on, "
                f"not {raw.shape[1]}"
            )
        columns = _polynomials((raw - self.centre) / self.scale, self.degree)
        rest = (columns - self.column_centre) @ self.rotation
        return np.concatenate([np.ones((len(raw), 1)), rest], axis=1).astype(np.float32)


def game_basis(game: DynamicGame, features: Features | str) -> tuple[FeatureBasis, Any]:
    """The basis for a game, and the parameters that it takes, [N,k].

    Args:
        game: the game.
        features: "linear"; "quadratic", which means "linear" for more than `MOST_QUADRATIC`
            parameters; or a function of `game.agents` (of the game, if it has none) -> [N,k].

    Raises:
        ValueError: `features` is none of these, or the game has no `agent_features`.
    """
    if callable(features):
        parameters = np.asarray(features(getattr(game, "agents", game)), np.float64)
        if parameters.ndim != 2 or parameters.shape[0] != game.num_agents:
            raise ValueError(
                f"features(agents) must have shape [{game.num_agents},d], not "
                f"{list(parameters.shape)}"
            )
        return FeatureBasis.of(parameters, 0), parameters
    check_features(features)
    if game.agent_features is None:
        raise ValueError(
            f"features={features!r} needs game.agent_features; {type(game).__name__} has none"
        )
    parameters = np.asarray(game.agent_features, np.float64)
    quadratic = features == "quadratic" and parameters.shape[1] <= MOST_QUADRATIC
    return FeatureBasis.of(parameters, 2 if quadratic else 1), parameters


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
        features: phi of the N agents that play it in the game it was learned in.
        basis: makes phi of other agents' parameters.
        legal: the actions that agents have, None for all: of the others, none is played.
    """

    weights: Float[Array, "H S A d"]
    features: Float[Array, "N d"]
    basis: FeatureBasis
    legal: LegalActions | None = None

    def __check_init__(self):
        if self.weights.ndim != 4 or self.weights.shape[-1] != self.basis.size:
            raise ValueError(
                f"weights must have shape [H,S,A,{self.basis.size}], not {list(self.weights.shape)}"
            )
        if self.features.ndim != 2 or self.features.shape[1] != self.basis.size:
            raise ValueError(
                f"features must have shape [N,{self.basis.size}], not {list(self.features.shape)}"
            )

    @property
    def num_agents(self) -> int:
        """N."""
        return self.features.shape[0]

    def probabilities(
        self, observation: Int[Array, ""], agent_index: Int[Array, ""], step: Int[Array, ""]
    ) -> Float[Array, " A"]:
        """See `Policy.probabilities`; `observation` is the agent's state."""
        scores = self.weights[step, observation] @ self.features[agent_index]
        may = None if self.legal is None else self.legal(agent_index, observation, step)
        return jax.nn.softmax(legal_logits(scores, may))

    def for_agents(self, features: Any) -> TabularPolicy:
        """The policy of any n agents, given their parameters.

        Args:
            features: [n,k], as `game.agent_features` (what the function gives, if the features
                are a function given by hand).

        Returns:
            A table for each of them, [n,H,S,A].

        Raises:
            ValueError: `features` is no finite array with k columns, or agents differ in what is
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
    features: Float[Array, "N d"],
    legal: Bool[Array, "#N H S A"] | None = None,
) -> Float[Array, "N H S A"]:
    """Probabilities of N agents as tables, over the actions that they have."""
    scores = jnp.einsum("hsad,nd->nhsa", weights, features, precision=jax.lax.Precision.HIGHEST)
    return jax.nn.softmax(legal_logits(scores, legal))


def _checked_parameters(parameters: Any) -> Float[np.ndarray, "n k"]:
    raw = np.asarray(parameters, np.float64)
    if raw.ndim != 2 or not len(raw):
        raise ValueError(f"features must have shape [n,k], n >= 1, not {list(raw.shape)}")
    if not np.isfinite(raw).all():
        row = int(np.argwhere(~np.isfinite(raw))[0, 0])
        raise ValueError(f"features must be finite numbers: those of agent {row} are {raw[row]}")
    return raw


def _polynomials(standard: Float[np.ndarray, "n k"], degree: int) -> Float[np.ndarray, "n p"]:
    if degree < 2:
        return standard
    first, second = np.triu_indices(standard.shape[1])
    return np.concatenate([standard, standard[:, first] * standard[:, second]], axis=1)
