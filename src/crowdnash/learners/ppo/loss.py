"""The losses of proximal policy optimisation (Schulman et al. 2017), in the form of CleanRL.

With rho = exp(log pi(a) - log pi_old(a)), normalised advantages A, returns G and clip range c:

    policy    mean max(-A rho, -A clip(rho, 1-c, 1+c))
    value     1/2 mean (V - G)^2, or the larger of that and (V' - G)^2, where
              V' = V_old + clip(V - V_old, -c, c)
    entropy   mean H(pi)
    magnet    mean sum_a pi(a) (log pi(a) - log rho(a)), where there is a magnet rho
    total     policy - entropy_weight * entropy + value_weight * value + magnet_weight * magnet

All means are over the samples whose `weight` counts: a minibatch may have padding, which weighs 0.

Axes: B samples, A actions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from crowdnash.games.legal import legal_logits
from crowdnash.simulation.devices import ALONE, Devices

_TINY = 1e-8


class Samples(NamedTuple):
    """What PPO keeps of one agent-step, [B] each: what was done, and what was thought of it then.

    `log_prob` of the action and `value` of the state are those of the networks that played;
    `returns` is what the value should be; `weight` is 1, or 0 for padding and for agents that were
    out; `legal` are the actions there were, None for all; `magnet` are the log-probabilities of the
    policy that the new one is drawn towards, None without one.
    """

    action: Int[Array, "*B"]
    log_prob: Float[Array, "*B"]
    value: Float[Array, "*B"]
    advantage: Float[Array, "*B"]
    returns: Float[Array, "*B"]
    weight: Float[Array, "*B"]
    legal: Bool[Array, "*B A"] | None = None
    magnet: Float[Array, "*B A"] | None = None


class PPOSums(NamedTuple):
    """Sums over samples, each a scalar; divide by `weight`, the number of samples, for means."""

    policy_loss: Float[Array, ""]
    value_loss: Float[Array, ""]
    entropy: Float[Array, ""]
    approximate_kl: Float[Array, ""]
    clipped: Float[Array, ""]
    magnet: Float[Array, ""]
    weight: Float[Array, ""]


def normalised(
    advantage: Float[Array, " B"], weight: Float[Array, " B"], devices: Devices = ALONE
) -> Float[Array, " B"]:
    """Advantages with mean 0 and sample variance 1 over the samples that count; padding is 0.

    Of `devices` that share the trajectories: over all their samples.
    """
    total = devices.sum_over_trajectories
    count, mean = total((weight.sum(), (weight * advantage).sum()))
    mean = mean / jnp.maximum(count, 1)
    centred = weight * (advantage - mean)
    deviation = jnp.sqrt(total((centred**2).sum()) / jnp.maximum(count - 1, 1))
    return centred / (deviation + _TINY)


def ppo_sums(
    logits: Float[Array, "B A"],
    values: Float[Array, " B"],
    samples: Samples,
    *,
    clip: float | Float[Array, ""],
    clip_values: bool,
) -> PPOSums:
    """The losses above as sums, so that a minibatch can be worked off in chunks.

    `logits` and `values` are the new ones; `samples.advantage` is taken as it is.
    """
    log_probs = jax.nn.log_softmax(legal_logits(logits, samples.legal))
    # A sum over few actions instead of a gather, whose derivative would be a scatter.
    chosen = (log_probs * jax.nn.one_hot(samples.action, logits.shape[-1])).sum(-1)
    log_ratio = chosen - samples.log_prob
    ratio = jnp.exp(log_ratio)
    policy = jnp.maximum(
        -samples.advantage * ratio, -samples.advantage * jnp.clip(ratio, 1 - clip, 1 + clip)
    )
    value = (values - samples.returns) ** 2
    if clip_values:
        near = samples.value + jnp.clip(values - samples.value, -clip, clip)
        value = jnp.maximum(value, (near - samples.returns) ** 2)
    probs = jnp.exp(log_probs)
    entropy = -(probs * log_probs).sum(-1)
    magnet = jnp.zeros_like(entropy)
    if samples.magnet is not None:
        magnet = (probs * (log_probs - samples.magnet)).sum(-1)
    parts = (
        policy,
        0.5 * value,
        entropy,
        ratio - 1 - log_ratio,
        (jnp.abs(ratio - 1) > clip).astype(jnp.float32),
        magnet,
        jnp.ones_like(value),
    )
    return PPOSums(*((samples.weight * part).sum() for part in parts))
