"""Policies in plain NumPy: they act where there is no JAX, and are read from the same files.

`policy.numpy()` makes one of any policy, `NumpyPolicy.load` one of the file that `policy.save`
wrote (the `policy.npz` of a run, for example). Nothing here imports JAX.

Axes: N agents, n agents asked, G groups, H steps, S states, A actions, F inputs, d features.
"""

from __future__ import annotations

import abc
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from crowdnash.checks import as_array, check_below, check_count, check_instance, check_path
from crowdnash.files import read_archive, write_arrays
from crowdnash.policies.drawing import draw_actions

TABLES, FEATURES, NETWORK = (
    f"crowdnash-{kind}-policy-1" for kind in ("tabular", "feature", "neural")
)
"""What the files of policies call themselves."""

NEGATIVE_SLOPE = 0.01
"""Slope of the leaky ReLU below 0."""

Arrays = dict[str, Shaped[np.ndarray, "..."]]


class NumpyPolicy(abc.ABC):
    """A policy of N agents without JAX: plain arrays, which pickle too.

    Attributes:
        num_agents: N.
        horizon: H.
        num_states: S; None for observations that are no states.
        num_actions: A.
    """

    num_agents: int
    horizon: int
    num_states: int | None
    num_actions: int

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    @abc.abstractmethod
    def _rows(
        self, leaves: list[np.ndarray], step: int, agents: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n A"]:
        """Probabilities for observations that were checked."""

    def probabilities(
        self, observations: Any, step: int, agents: Any = None
    ) -> Float[np.ndarray, "n A"]:
        """Action probabilities of agents for what they observe at step h.

        Args:
            observations: arrays with leading axis n; states [n] for tables.
            step: h in 0..H-1.
            agents: the indices [n] of those who act, default all N.

        Returns:
            A distribution over actions for each, float32.

        Raises:
            ValueError: an argument breaks its rule.
        """
        leaves = [as_array("observations", leaf) for leaf in _leaves(observations)]
        check_count("step", step, 0, self.horizon - 1)
        if agents is None:
            index = np.arange(self.num_agents)
        else:
            index = np.asarray(as_array("agents", agents, integers=True))
            check_below("agents", index, self.num_agents)
        for leaf in leaves:
            if index.ndim != 1 or leaf.shape[:1] != index.shape:
                raise ValueError(
                    f"observations must have one entry an agent, {list(index.shape)}, not "
                    f"{list(leaf.shape)}"
                )
        if self.num_states is not None:
            (states,) = leaves
            as_array("observations", states, integers=True)
            if states.ndim != 1:
                raise ValueError(f"observations must be states [n], not {list(states.shape)}")
            check_below("observations", states, self.num_states)
        return self._rows(leaves, int(step), index)

    def act(
        self,
        observations: Any,
        step: int,
        rng: np.random.Generator,
        agents: Any = None,
        legal: Bool[Any, "n A"] | None = None,
    ) -> Int[np.ndarray, " n"]:
        """Draw the actions of agents at step h.

        Args:
            observations: as for `probabilities`.
            step: as there.
            rng: is advanced.
            agents: as there.
            legal: which actions they have now; None for all that the policy gives.

        Raises:
            ValueError: an argument breaks its rule.
        """
        check_instance("rng", rng, np.random.Generator)
        probs = self.probabilities(observations, step, agents)
        if legal is not None:
            legal = np.asarray(legal)
            if legal.dtype != bool or legal.shape != probs.shape or not legal.any(-1).all():
                raise ValueError(
                    f"legal must be bool {list(probs.shape)} with an action for everybody, not "
                    f"{legal.dtype} {list(legal.shape)}"
                )
        return draw_actions(probs, rng, legal)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy to `path` (npz), as the policy that it was made of would.

        Raises:
            OSError: it cannot be written; an older file is then still there.
        """
        check_path("path", path)
        write_arrays(Path(path), self._arrays)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> NumpyPolicy:
        """Read the file of a `TabularPolicy`, `FeaturePolicy` or `NeuralPolicy`.

        Raises:
            ValueError: the file is damaged or is not a policy.
            OSError: it cannot be read.
        """
        with policy_file(path, "crowdnash") as arrays:
            return numpy_policy(arrays)

    def _legal(self, step: int, states: Any, agents: np.ndarray) -> np.ndarray | None:
        """Which actions the policy's game leaves them, [n,A]."""
        if "legal" not in self._arrays:
            return None
        return self._arrays["legal"][self._arrays["legal_kinds"][agents], step, states]


@contextlib.contextmanager
def policy_file(path: str | os.PathLike[str], kind: str) -> Iterator[Arrays]:
    """The arrays of a policy's file, for a `with` block that makes the policy of them.

    Args:
        path: of the file.
        kind: of policy, for the message.

    Raises:
        ValueError: the file is damaged, or whatever went wrong in the block: it is no such policy.
        OSError: it cannot be read.
    """
    check_path("path", path)
    with open(path, "rb") as file:
        try:
            yield read_archive(file)
        except Exception as error:  # NumPy and zipfile raise many kinds for damaged files
            raise ValueError(
                f"{os.fspath(path)} is damaged or is not a {kind} policy file: {error}"
            ) from None


def numpy_policy(arrays: Arrays) -> NumpyPolicy:
    """The policy in the arrays of a policy's file.

    Raises:
        ValueError: they are no policy's.
        KeyError: one is missing.
    """
    if "about" in arrays:
        return NumpyNetwork(arrays)
    kinds = {TABLES: NumpyTables, FEATURES: NumpyFeatures}
    name = str(arrays["format"])
    if name not in kinds:
        raise ValueError("it has another format")
    return kinds[name](arrays)


class NumpyTables(NumpyPolicy):
    """`TabularPolicy` in NumPy."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._probs, self._groups = arrays["probs"], arrays["groups"]
        _, self.horizon, self.num_states, self.num_actions = self._probs.shape
        self.num_agents = len(self._groups)
        sums = self._probs.sum(-1, dtype=np.float64)
        if not ((self._probs >= 0).all() and (np.abs(sums - 1) <= 1e-5).all()):
            raise ValueError("probs must be probabilities that sum to 1 over the last axis")
        check_below("groups", self._groups, len(self._probs))

    def _rows(
        self, leaves: list[np.ndarray], step: int, agents: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n A"]:
        return self._probs[self._groups[agents], step, leaves[0]]


class NumpyFeatures(NumpyPolicy):
    """`FeaturePolicy` in NumPy."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._weights, self._features = arrays["weights"], arrays["features"]
        self.horizon, self.num_states, self.num_actions, width = self._weights.shape
        self.num_agents = self._features.shape[-2] if self._features.ndim > 1 else 0
        shape = (self.num_agents, width)
        if self._features.shape not in (shape, (self.horizon, *shape)):
            raise ValueError(f"features must have shape [N,{width}] or [{self.horizon},N,{width}]")
        _check_finite(self._weights, self._features)

    def _rows(
        self, leaves: list[np.ndarray], step: int, agents: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n A"]:
        (states,) = leaves
        features = self._features if self._features.ndim == 2 else self._features[step]
        scores = np.einsum("nad,nd->na", self._weights[step, states], features[agents])
        return _softmax(scores, self._legal(step, states, agents))


class NumpyNetwork(NumpyPolicy):
    """`NeuralPolicy` in NumPy."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        about = json.loads(str(arrays["about"]))
        if about["format"] != NETWORK:
            raise ValueError("it has another format")
        self._told, self._row = arrays["identity_features"], arrays["identity_row"]
        self.num_agents, self.horizon = len(self._row), about["horizon"]
        self.num_states, self.num_actions = about["num_states"], about["num_actions"]
        layers = range(about["num_layers"])
        self._layers = [(arrays[f"weight_{k}"], arrays[f"bias_{k}"]) for k in layers]
        self._rows_of, self._each = arrays.get("rows"), about["identity"] == "independent"
        self._num_features = about["num_features"]
        width = self._num_features + self._told.shape[1]
        if self._layers[0][0].shape[-2] != width:
            raise ValueError("its network has other sizes than it says")
        _check_finite(self._told, *(x for layer in self._layers for x in layer))

    def _rows(
        self, leaves: list[np.ndarray], step: int, agents: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n A"]:
        hidden = np.concatenate([self._seen(leaves, step), self._told[agents]], axis=1)
        for layer, (weight, bias) in enumerate(self._layers):
            if layer:
                hidden = np.where(hidden >= 0, hidden, NEGATIVE_SLOPE * hidden)
            if self._each:
                hidden = np.einsum("nf,nfg->ng", hidden, weight[agents]) + bias[agents]
            else:
                hidden = hidden @ weight + bias
            if layer == 0 and self._rows_of is not None:
                hidden = hidden + self._rows_of[self._row[agents]]
        limited = self._legal(step, leaves[0], agents) if "legal" in self._arrays else None
        return _softmax(hidden, limited)

    def _seen(self, leaves: list[np.ndarray], step: int) -> Float[np.ndarray, "n F"]:
        """`ObservationFeatures` of these agents."""
        count = len(leaves[0])
        if self.num_states is not None:
            seen = np.zeros((count, self._num_features), np.float32)
            seen[np.arange(count), leaves[0]] = 1
            seen[:, self.num_states + step] = 1
            return seen
        flat = [leaf.reshape(count, -1).astype(np.float32) for leaf in leaves]
        seen = np.concatenate([*flat, np.full((count, 1), step / self.horizon, np.float32)], axis=1)
        if seen.shape[1] != self._num_features:
            raise ValueError(
                f"observations must have {self._num_features - 1} numbers an agent, not "
                f"{seen.shape[1] - 1}"
            )
        if not np.isfinite(seen).all():
            raise ValueError("observations must be finite numbers")
        return seen


def _softmax(
    scores: Float[np.ndarray, "n A"], legal: Bool[np.ndarray, "n A"] | None
) -> Float[np.ndarray, "n A"]:
    if legal is not None:
        scores = np.where(legal, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def _check_finite(*arrays: np.ndarray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("a weight is not a finite number")


def _leaves(observations: Any) -> list[Any]:
    """The arrays in dictionaries, in the order of their keys (as JAX has it), and tuples."""
    if isinstance(observations, dict):
        return [leaf for key in sorted(observations) for leaf in _leaves(observations[key])]
    if isinstance(observations, tuple):
        return [leaf for part in observations for leaf in _leaves(part)]
    return [observations]
