"""Policies without JAX: the same probabilities, the same files, and no JAX imported."""

import dataclasses
import functools
import pickle
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.games.legal import LegalActions
from crowdnash.policies.agent_networks import ActorCritic
from crowdnash.policies.features import FeatureBasis
from crowdnash.policies.identity import Identity
from crowdnash.policies.observations import ObservationFeatures
from limited_games import Drivers, may

N, H, S, A = 6, 3, 2, 3


def game():
    return Drivers(np.linspace(0.1, 0.9, N), np.arange(N) % 2, np.full((N, S), 0.5), horizon=H)


def network(identity: str, *, seed: int = 0, num_states: int | None = S, size: int = 0):
    told = Identity.encode(game(), identity)
    features = ObservationFeatures((S + H) if num_states is not None else size + 1, num_states, H)
    networks = ActorCritic.create(
        jax.random.key(seed),
        told,
        num_inputs=features.num_features + told.num_features,
        num_actions=A,
        hidden_sizes=(8, 5),
    )
    actor = jax.tree.map(lambda x: 30 * x + 0.1, networks.actor)  # far from uniform
    return cn.NeuralPolicy(actor, told, features, "", A)


NAMES = (
    "tables",
    "features",
    "legal features",
    "network",
    "one-hot",
    "parameters",
    "independent",
    "legal network",
)


@functools.cache
def policies() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    tables = cn.TabularPolicy.grouped(generator.dirichlet(np.ones(A), (2, H, S)), np.arange(N) % 2)
    basis = FeatureBasis.of(np.asarray(game().agent_features), 2)
    phi = jnp.asarray(basis(game().agent_features))
    weights = jnp.asarray(generator.normal(size=(H, S, A, basis.size)), jnp.float32)
    legal = LegalActions.of(game())
    return {
        "tables": tables,
        "features": cn.FeaturePolicy(weights, phi, basis),
        "legal features": cn.FeaturePolicy(weights, phi, basis, legal),
        "network": network("none"),
        "one-hot": network("one-hot"),
        "parameters": network("parameters"),
        "independent": network("independent"),
        "legal network": dataclasses.replace(network("number"), legal=legal),
    }


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_those_of_the_policy(name, tmp_path):
    policy = policies()[name]
    plain = policy.numpy()
    assert (plain.num_agents, plain.horizon, plain.num_states, plain.num_actions) == (N, H, S, A)
    policy.save(tmp_path / "policy.npz")
    plain.save(tmp_path / "again.npz")
    copies = [
        plain,
        pickle.loads(pickle.dumps(plain)),
        cn.NumpyPolicy.load(tmp_path / "policy.npz"),
        cn.NumpyPolicy.load(tmp_path / "again.npz"),
    ]
    agents = np.array([4, 0, 5])
    for step in range(H):
        states = np.array([1, 0, step % 2])
        expected = jax.vmap(policy.probabilities, (0, 0, None))(
            jnp.asarray(states), jnp.asarray(agents), jnp.asarray(step)
        )
        for copy in copies:
            probs = copy.probabilities(states, step, agents)
            np.testing.assert_allclose(probs, expected, atol=2e-6)
    if name.startswith("legal"):
        row = plain.probabilities(np.array([0]), 0, [0])[0]
        np.testing.assert_array_equal(row > 0, may(0, 0, 0))


def test_other_observations_are_flattened_as_networks_take_them():
    policy = network("number", num_states=None, size=5)
    seen = {"b": np.ones((N, 2, 2), bool), "a": np.linspace(-1, 1, N)}
    expected = policy.all_probabilities(jax.tree.map(jnp.asarray, seen), jnp.asarray(2))
    np.testing.assert_allclose(policy.numpy().probabilities(seen, 2), expected, atol=2e-6)
    with pytest.raises(ValueError, match="must have 5 numbers an agent, not 1"):
        policy.numpy().probabilities(seen["a"], 2)


def test_actions_follow_the_probabilities_and_what_is_legal():
    plain = policies()["tables"].numpy()
    states, many = np.zeros(N, int), 4000
    rng = np.random.default_rng(1)
    drawn = np.stack([plain.act(states, 1, rng) for _ in range(many)])
    probs = plain.probabilities(states, 1)
    share = np.stack([(drawn == a).mean(0) for a in range(A)], axis=1)
    assert (np.abs(share - probs) <= 4 * np.sqrt(probs * (1 - probs) / many)).all()
    legal = np.arange(A) != np.arange(N)[:, None] % A
    drawn = np.stack([plain.act(states, 1, rng, legal=legal) for _ in range(200)])
    assert (drawn != np.arange(N) % A).all()


def test_a_policy_of_ones_own_becomes_a_table():
    class Leaning(cn.Policy):
        def probabilities(self, observation, agent_index, step):
            return jax.nn.softmax(jnp.arange(A) * (observation + agent_index) / (1.0 + step))

    free: Any = type("Free", (Drivers,), {"legal": None})(
        np.linspace(0.1, 0.9, N), np.arange(N) % 2, np.full((N, S), 0.5), horizon=H
    )
    plain = Leaning().numpy(free)
    expected = Leaning().probabilities(jnp.asarray(1), jnp.asarray(4), jnp.asarray(2))
    np.testing.assert_allclose(plain.probabilities([1], 2, [4])[0], expected, atol=1e-6)
    with pytest.raises(ValueError, match="game must be one whose agents observe integers"):
        Leaning().numpy()


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda p: p.probabilities(np.zeros(N, int), H), r"step must be in 0\.\.2, not 3"),
        (lambda p: p.probabilities(np.full(N, S), 0), r"observations must lie in 0\.\.1, not 2"),
        (lambda p: p.probabilities([0], 0, [N]), r"agents must lie in 0\.\.5, not 6"),
        (lambda p: p.probabilities([0], 0), r"one entry an agent, \[6\], not \[1\]"),
        (lambda p: p.probabilities(np.zeros(N), 0), "observations must be integers"),
        (
            lambda p: p.act([0], 0, np.random.default_rng(0), [0], np.zeros((1, A), bool)),
            r"legal must be bool \[1, 3\] with an action for everybody",
        ),
    ],
)
def test_arguments_are_checked(call, rule):
    with pytest.raises(ValueError, match=rule):
        call(policies()["tables"].numpy())


def test_it_needs_no_jax(tmp_path):
    policies()["tables"].save(tmp_path / "tables.npz")
    network("independent").save(tmp_path / "network.npz")
    code = """
import sys
for name in ("jax", "jaxlib", "equinox", "optax"):
    sys.modules[name] = None
import numpy as np
import crowdnash as cn
for path in sys.argv[1:]:
    policy = cn.NumpyPolicy.load(path)
    print(policy.act(np.zeros(6, int), 0, np.random.default_rng(0)).shape)
"""
    files = [str(tmp_path / name) for name in ("tables.npz", "network.npz")]
    done = subprocess.run(
        [sys.executable, "-c", code, *files], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["(6,)"] * 2, done.stderr
    (tmp_path / "broken.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"broken.npz is damaged or is not a crowdnash policy"):
        cn.NumpyPolicy.load(tmp_path / "broken.npz")
