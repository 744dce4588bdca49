"""PPO's losses, their gradients and its updates: by hand, and beside CleanRL's formulas."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from crowdnash.learners.ppo.loss import Samples, normalised, ppo_sums
from crowdnash.learners.ppo.update import UpdateSettings, UpdateShape, improve
from crowdnash.policies.agent_networks import ActorCritic
from crowdnash.policies.network import NeuralNetwork

NUM_INPUTS, NUM_ACTIONS, COUNT = 3, 4, 10
KEY = jax.random.key(8)


def samples_of(**columns) -> Samples:
    """Samples with the given columns and plain numbers in the others."""
    size = len(next(iter(columns.values())))
    plain = dict.fromkeys(("log_prob", "value", "advantage", "returns"), np.zeros(size))
    plain |= {"action": np.zeros(size), "weight": np.ones(size)} | columns
    return Samples(
        **{
            name: jnp.asarray(x, jnp.int32 if name == "action" else jnp.float32)
            for name, x in plain.items()
        }
    )


def random_samples(seed: int, count: int = COUNT) -> Samples:
    """Old log probabilities near those of a fresh network, so that some ratios are clipped."""
    generator = np.random.default_rng(seed)
    normal = generator.normal(size=(4, count))
    return samples_of(
        action=generator.integers(NUM_ACTIONS, size=count),
        log_prob=-math.log(NUM_ACTIONS) + 0.3 * normal[0],
        value=normal[1],
        advantage=1 + 3 * normal[2],
        returns=normal[1] + normal[3],
    )


def sums(logits, values, samples, *, clip=0.2, clip_values=True) -> dict[str, float]:
    found = ppo_sums(
        jnp.asarray(logits, jnp.float32),
        jnp.asarray(values, jnp.float32),
        samples,
        clip=clip,
        clip_values=clip_values,
    )
    return {name: float(x) for name, x in found._asdict().items()}


# --- losses ---


@pytest.mark.parametrize(
    ("old", "advantage", "loss", "clipped"),
    [
        (0.5, 2.0, -2.0, 0),  # ratio 1
        (0.25, 2.0, -2.4, 1),  # ratio 2 with a gain: held at 1.2
        (0.25, -2.0, 4.0, 1),  # ratio 2 with a loss: not held
        (0.625, 2.0, -1.6, 0),  # ratio 0.8 itself is not clipped
        (1.0, 2.0, -1.0, 1),  # ratio 1/2 with a gain: not held
        (1.0, -2.0, 1.6, 1),  # ratio 1/2 with a loss: held at 0.8
    ],
)
def test_policy_loss_by_hand(old, advantage, loss, clipped):
    """One sample, new probabilities (1/2, 1/2): max(-A rho, -A clip(rho, 0.8, 1.2))."""
    samples = samples_of(action=[1], log_prob=[math.log(old)], advantage=[advantage])
    # Against rounding of the ratio at the edge of the range.
    found = sums([[3.0, 3.0]], [0.0], samples, clip=0.2 + 1e-6)
    ratio = 0.5 / old
    assert found["policy_loss"] == pytest.approx(loss, abs=1e-5)
    assert found["clipped"] == clipped
    assert found["entropy"] == pytest.approx(math.log(2), abs=1e-6)
    assert found["approximate_kl"] == pytest.approx(ratio - 1 - math.log(ratio), abs=1e-6)
    assert found["weight"] == 1


@pytest.mark.parametrize(
    ("value", "plain", "clipped"),
    [
        (1.1, 0.405, 0.405),  # within 0.2 of the old value 1: the same
        (1.7, 0.045, 0.32),  # held at 1.2: 1/2 0.8^2 is the larger
        (0.5, 1.125, 1.125),  # held at 0.8, but further away without: 1/2 1.5^2
    ],
)
def test_value_loss_by_hand(value, plain, clipped):
    """Old value 1, return 2: 1/2 (V - 2)^2, or the larger of that and the clipped one."""
    samples = samples_of(value=[1.0], returns=[2.0])
    for clip_values, loss in ((False, plain), (True, clipped)):
        found = sums([[0.0, 0.0]], [value], samples, clip_values=clip_values)
        assert found["value_loss"] == pytest.approx(loss, abs=1e-6)


def cleanrl(logits, values, samples, xp, *, clip_values):
    """The losses as CleanRL's ppo.py computes them, with `xp` NumPy (float64) or jax.numpy."""
    log_probs = logits - xp.log(xp.exp(logits).sum(-1, keepdims=True))
    log_prob = log_probs[xp.arange(len(values)), samples.action]
    log_ratio = log_prob - samples.log_prob
    ratio = xp.exp(log_ratio)
    policy_1 = -samples.advantage * ratio
    policy_2 = -samples.advantage * xp.clip(ratio, 0.8, 1.2)
    value_loss = (values - samples.returns) ** 2
    if clip_values:
        held = samples.value + xp.clip(values - samples.value, -0.2, 0.2)
        value_loss = xp.maximum(value_loss, (held - samples.returns) ** 2)
    return {
        "policy_loss": xp.maximum(policy_1, policy_2).mean(),
        "value_loss": 0.5 * value_loss.mean(),
        "entropy": -(xp.exp(log_probs) * log_probs).sum(-1).mean(),
        "approximate_kl": ((ratio - 1) - log_ratio).mean(),
        "clipped": (abs(ratio - 1) > 0.2).mean(),
    }


@pytest.mark.parametrize("clip_values", [True, False])
def test_against_cleanrl(clip_values):
    generator = np.random.default_rng(1)
    logits, values = generator.normal(size=(200, NUM_ACTIONS)), generator.normal(size=200)
    samples = random_samples(2, 200)
    in_double = jax.tree.map(lambda x: np.asarray(x, np.float64), samples)
    in_double = in_double._replace(action=np.asarray(samples.action))
    expected = cleanrl(logits, values, in_double, np, clip_values=clip_values)
    found = sums(logits, values, samples, clip_values=clip_values)
    assert 20 < found["clipped"] < 180
    for name, mean in expected.items():
        assert found[name] / 200 == pytest.approx(mean, rel=1e-5), name


def test_padding_changes_nothing():
    generator = np.random.default_rng(3)
    logits, values = generator.normal(size=(COUNT, NUM_ACTIONS)), generator.normal(size=COUNT)
    whole = random_samples(4)
    padded = whole._replace(weight=jnp.asarray([1.0] * 7 + [0.0] * 3))
    first = jax.tree.map(lambda x: x[:7], whole)
    expected = sums(logits[:7], values[:7], first)
    assert sums(logits, values, padded) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(
        normalised(padded.advantage, padded.weight),
        [*normalised(first.advantage, first.weight), 0, 0, 0],
        atol=1e-6,
    )


def test_normalised_advantages():
    """(1, 2, 3, 6): mean 3, sample variance (4 + 1 + 0 + 9) / 3 = 14 / 3, not 14 / 4."""
    found = normalised(jnp.asarray([1.0, 2.0, 3.0, 6.0]), jnp.ones(4))
    np.testing.assert_allclose(found, np.array([-2, -1, 0, 3]) / math.sqrt(14 / 3), rtol=1e-6)
    # A single sample, or equal ones, say nothing about which action is better.
    for advantage, weight in (([7.0, 9.0], [1.0, 0.0]), ([7.0, 7.0], [1.0, 1.0])):
        np.testing.assert_array_equal(normalised(jnp.asarray(advantage), jnp.asarray(weight)), 0)


# --- gradients ---


def test_gradients_by_hand():
    """pi = (1/4, 3/4), old probability of action 0 is 1/4 (rho = 1), A = 2, V - G = 3.

    d(-A rho)/d logits = -A rho (1[a] - pi) = -2 (3/4, -3/4); dH/d logits = -pi (log pi + H).
    """
    samples = samples_of(
        action=[0], log_prob=[math.log(0.25)], advantage=[2.0], value=[4.0], returns=[1.0]
    )
    pi = np.array([0.25, 0.75])
    logits, values = jnp.asarray(np.log(pi)[None], jnp.float32), jnp.asarray([4.0])

    def gradient(name: str):
        def loss(logits, values):
            found = ppo_sums(logits, values, samples, clip=0.2, clip_values=False)
            return getattr(found, name)

        return [np.asarray(x)[0] for x in jax.grad(loss, (0, 1))(logits, values)]

    np.testing.assert_allclose(gradient("policy_loss")[0], [-1.5, 1.5], rtol=1e-6)
    entropy = -(pi * np.log(pi)).sum()
    np.testing.assert_allclose(gradient("entropy")[0], -pi * (np.log(pi) + entropy), rtol=1e-5)
    assert gradient("value_loss")[1] == pytest.approx(3.0)
    assert gradient("policy_loss")[1] == 0
    # Held at 1.2 (the old probability was 1/8): nothing more to gain by going on.
    samples = samples._replace(log_prob=jnp.asarray([math.log(0.125)], jnp.float32))
    np.testing.assert_array_equal(gradient("policy_loss")[0], 0)


def test_the_magnet_by_hand():
    """pi = (1/4, 3/4), rho = (1/2, 1/2): KL = sum pi log(pi/rho), d KL / d logits by formula.

    d/d logit_a = pi_a (log(pi_a / rho_a) - KL); padding does not count.
    """
    pi, rho = np.array([0.25, 0.75]), np.array([0.5, 0.5])
    kl = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    samples = samples_of(weight=[1.0, 0.0])
    samples = samples._replace(magnet=jnp.asarray(np.log([rho, [0.9, 0.1]]), jnp.float32))
    logits = jnp.asarray(np.log([pi, rho]), jnp.float32)
    assert sums(logits, [0.0, 0.0], samples)["magnet"] == pytest.approx(kl, abs=1e-6)
    assert sums(logits, [0.0, 0.0], samples._replace(magnet=None))["magnet"] == 0

    def loss(logits):
        return ppo_sums(logits, jnp.zeros(2), samples, clip=0.2, clip_values=True).magnet

    expected = [pi * (np.log(pi / rho) - kl), [0.0, 0.0]]
    np.testing.assert_allclose(jax.grad(loss)(logits), expected, atol=1e-6)


# --- updates ---


class Run(NamedTuple):
    """What one call of `improve` left."""

    networks: ActorCritic
    moments: optax.OptState
    means: dict[str, float]


def fresh_networks(seed: int = 0) -> ActorCritic:
    keys = jax.random.split(jax.random.key(seed))
    return ActorCritic(
        NeuralNetwork.create(keys[0], (NUM_INPUTS, 5, NUM_ACTIONS), last_gain=1.0),
        NeuralNetwork.create(keys[1], (NUM_INPUTS, 5, 1), last_gain=1.0),
    )


def inputs_of(count: int = COUNT) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (count, NUM_INPUTS), jnp.float32)


_improve = eqx.filter_jit(improve)


def run(
    networks,
    inputs,
    samples,
    *,
    moments=None,
    key=KEY,
    learning_rate=1e-2,
    norm=0.5,
    magnet=None,
    magnet_weight=0.0,
    **shape,
) -> Run:
    settings = (learning_rate, 0.01, 0.9, norm, 0.2, magnet_weight)
    plain = {
        "num_passes": 1,
        "minibatch_size": 64,
        "chunk_rows": 64,
        "normalise_advantages": True,
        "clip_values": True,
        "dtype": "float32",
    }
    if moments is None:
        moments = optax.scale_by_adam(eps=1e-5).init(networks)
    networks, moments, means = _improve(
        networks,
        moments,
        inputs,
        None,
        samples,
        key,
        UpdateSettings(*(jnp.float32(x) for x in settings)),
        UpdateShape(**(plain | shape)),
        magnet=magnet,
    )
    return Run(networks, moments, {name: float(x) for name, x in means._asdict().items()})


def cleanrl_loss(networks, inputs, samples):
    """Total loss of one minibatch, advantages normalised, clipped values."""
    advantage = samples.advantage
    advantage = (advantage - advantage.mean()) / (advantage.std(ddof=1) + 1e-8)
    losses = cleanrl(
        networks.actor(inputs),
        networks.critic(inputs)[:, 0],
        samples._replace(advantage=advantage),
        jnp,
        clip_values=True,
    )
    return losses["policy_loss"] - 0.01 * losses["entropy"] + 0.9 * losses["value_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("norm", [0.5, 100.0])
def test_an_update_is_adam_on_clipped_gradients(norm):
    """Three times one minibatch, beside optax.adam(eps=1e-5) after clip_by_global_norm."""
    inputs, samples, networks = inputs_of(), random_samples(5), fresh_networks()
    optimiser = optax.chain(optax.clip_by_global_norm(norm), optax.adam(1e-2, eps=1e-5))
    theirs, memory = networks, optimiser.init(networks)
    differentiate = jax.jit(jax.grad(cleanrl_loss))
    ours = Run(networks, None, {})
    for _ in range(3):
        gradient = differentiate(theirs, inputs, samples)
        assert 0.5 < float(optax.global_norm(gradient)) < 100
        update, memory = optimiser.update(gradient, memory)
        theirs = optax.apply_updates(theirs, update)
        ours = run(ours.networks, inputs, samples, moments=ours.moments, norm=norm)
    for a, b in _leaves(ours.networks, theirs):
        np.testing.assert_allclose(a, b, atol=2e-6)
    moved = [np.abs(a - b).max() for a, b in _leaves(ours.networks, networks)]
    assert min(moved) > 0.005


def _leaves(a, b):
    return zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)


@pytest.mark.slow
def test_gradients_in_chunks():
    """Adam's first moment is a tenth of the gradient; 3 does not divide 10."""
    whole, parts = (
        run(fresh_networks(), inputs_of(), random_samples(6), norm=1e9, chunk_rows=size)
        for size in (64, 3)
    )
    scale = float(optax.global_norm(whole.moments.mu))
    assert scale > 0.1
    for a, b in _leaves(whole.moments.mu, parts.moments.mu):
        np.testing.assert_allclose(a, b, atol=1e-6 * scale)
    assert parts.means == pytest.approx(whole.means, rel=1e-5)


@pytest.mark.slow
def test_a_strong_magnet_holds_the_policy():
    """Without advantages the magnet alone moves the policy, all the way, whatever the chunks."""
    inputs, samples = inputs_of(), random_samples(6)
    samples = samples._replace(advantage=jnp.zeros(COUNT))
    networks, magnet = fresh_networks(), fresh_networks(9).actor
    wanted = jax.nn.softmax(magnet(inputs))

    def far(networks: ActorCritic) -> float:
        return float(jnp.abs(jax.nn.softmax(networks.actor(inputs)) - wanted).max())

    def learn(weight: float, chunk_rows: int) -> Run:
        return run(
            networks,
            inputs,
            samples,
            magnet=magnet,
            magnet_weight=weight,
            num_passes=400,
            chunk_rows=chunk_rows,
        )

    held, parts, free = learn(100.0, 64), learn(100.0, 3), learn(0.0, 64)
    assert far(networks) > 0.2
    assert far(held.networks) < 0.1
    assert far(parts.networks) < 0.1
    assert far(free.networks) > 0.2


@pytest.mark.parametrize(("count", "size"), [(15, 4), (15, 5)])
def test_a_pass_uses_every_sample_once(count, size):
    """Sample k has value loss 2^k: fifteen of them add up to 2^15 - 1 only if all are different.

    (A sum of n powers of two has at most n binary ones, and n only if they all differ.)
    """
    networks = jax.tree.map(jnp.zeros_like, fresh_networks())
    samples = samples_of(returns=np.sqrt(2.0 ** (1 + np.arange(count))))
    found = run(
        networks,
        inputs_of(count),
        samples,
        learning_rate=0.0,
        minibatch_size=size,
        clip_values=False,
        normalise_advantages=False,
    )
    assert round(found.means["value_loss"] * count) == 2**count - 1
    assert found.means["weight"] == 1


def test_the_last_minibatch_counts_what_it_has():
    """Six equal samples in minibatches of 4: an update on 4 and one on 2 with the same mean."""
    one = jax.tree.map(lambda x: x[:1], (inputs_of(), random_samples(7)))
    six, two = (jax.tree.map(lambda x, n=n: jnp.repeat(x, n, 0), one) for n in (6, 2))
    plain = {"normalise_advantages": False}
    padded = run(fresh_networks(), *six, minibatch_size=4, **plain)
    single = run(fresh_networks(), *two, minibatch_size=1, **plain)
    for a, b in _leaves(padded.networks, single.networks):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_passes_go_on_and_shuffle_anew():
    """Two passes of one minibatch are two calls; with more minibatches the order matters."""
    inputs, samples, networks = inputs_of(), random_samples(8), fresh_networks()
    once = run(networks, inputs, samples)
    again = run(once.networks, inputs, samples, moments=once.moments)
    both = run(networks, inputs, samples, num_passes=2)
    for a, b in _leaves(both.networks, again.networks):
        np.testing.assert_allclose(a, b, atol=2e-6)
    plain = {"minibatch_size": 5, "normalise_advantages": False, "clip_values": False}
    more = inputs_of(15), random_samples(8, 15)
    thirds = [run(networks, *more, key=jax.random.key(k), **plain).networks for k in (1, 1, 2)]
    assert all(np.array_equal(a, b) for a, b in _leaves(thirds[0], thirds[1]))
    assert not all(np.array_equal(a, b) for a, b in _leaves(thirds[0], thirds[2]))
