"""Of what a certificate speaks and how it was made: enough to make it again (Def. 2).

Digests tell one game and one policy from another; nothing here can be executed.
"""

import hashlib
import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import fingerprint
from crowdnash.policies.base import Policy
from crowdnash.policies.mixture import PolicyMixture


@dataclass(frozen=True)
class Origin:
    """Game, policy, settings and draws of a certificate (Def. 2).

    `game` is its class, `game_fingerprint` a digest of class, sizes and all arrays, and
    `parameters_digest` one of the arrays alone; `policy` and `policy_digest` likewise. `key` holds
    the random key, its kind before the colon. `learner` describes the learner of method "learned",
    "" for none. `versions` are those of crowdnash, JAX, NumPy and Python; `device` is where it was
    computed. `sampled_agents` is how many were drawn at random, 0 if they were named, out of
    `num_agents` (0 in files of earlier versions).
    """

    game: str
    game_fingerprint: str
    parameters_digest: str
    policy: str
    policy_digest: str
    key: str
    own_influence_agents: int
    learner: str
    versions: str
    device: str
    sampled_agents: int = 0
    num_agents: int = 0

    @classmethod
    def of(
        cls,
        game: DynamicGame,
        policy: Policy | PolicyMixture,
        key: PRNGKeyArray,
        own_influence_agents: int,
        learner: Any,
        sampled_agents: int = 0,
    ) -> "Origin":
        """What is about to be certified; raises nothing."""
        parts = ("crowdnash", "jax", "numpy")
        versions = ", ".join(f"{part} {_version(part)}" for part in parts)
        return cls(
            game=type(game).__name__,
            game_fingerprint=fingerprint(game),
            parameters_digest=arrays_digest(game),
            policy=type(policy).__name__,
            policy_digest=policy_digest(policy),
            key=key_text(key),
            own_influence_agents=own_influence_agents,
            learner="" if learner is None else type(learner).__name__,
            versions=f"{versions}, Python {platform.python_version()}",
            device=jax.default_backend(),
            sampled_agents=sampled_agents,
            num_agents=game.num_agents,
        )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def arrays_digest(tree: Any) -> str:
    """SHA-256 of all arrays and numbers of a game or policy, with their places and types."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if callable(leaf):
            digest.update(getattr(leaf, "__qualname__", type(leaf).__qualname__).encode())
            continue
        array = np.asarray(leaf)
        digest.update(repr((jax.tree_util.keystr(path), array.dtype, array.shape)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def policy_digest(policy: Policy | PolicyMixture) -> str:
    """SHA-256 of a policy: its class and all its arrays."""
    text = f"{type(policy).__qualname__} {arrays_digest(policy)}"
    return hashlib.sha256(text.encode()).hexdigest()


def key_text(key: PRNGKeyArray) -> str:
    """A random key in words, "fry:0000000000000007"."""
    kind = str(jax.random.key_impl(key))
    return f"{kind}:{np.asarray(jax.random.key_data(key), '>u4').tobytes().hex()}"


def key_from_text(text: str) -> PRNGKeyArray:
    """The key that `key_text` wrote.

    Raises:
        ValueError: it is no such text.
    """
    kind, _, digits = text.partition(":")
    words = np.frombuffer(bytes.fromhex(digits), ">u4").astype(np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl=kind)
