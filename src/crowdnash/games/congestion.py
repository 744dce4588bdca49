"""Asymmetric dynamic congestion games: agents who choose alike get in each other's way."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from crowdnash.checks import as_array, check_count, check_key, check_number
from crowdnash.games.base import InAggregate, PopulationGame
from crowdnash.games.parameters import Heterogeneity, agent_array, distribution, draw_around
from crowdnash.games.tables import (
    component,
    perturbed_distributions,
    probability_tables,
    random_distributions,
    uniform_if_none,
)


class CongestionAgent(NamedTuple):
    """What tells agents apart: `transitions` [N,S,A,S], `congestion` [N,S,A,C], `base` [N,S,A]."""

    transitions: Array
    congestion: Array
    base: Array


@dataclass(frozen=True)
class CongestionConstants:
    """Closed forms for a congestion game and its induced mean-field game.

    `alpha`, `beta` of Def. 7, over all joint profiles of the N agents. Moduli of the induced
    game: `K_s`, `K_a` (L1 distance of P between two states, two actions), `K_mu` = 0; `L_s`,
    `L_a` (largest difference of R between two states, two actions, over all mu), `L_mu` of R in
    the L1 norm of mu. `slope` is the modulus of R(s,a,.) in mu(s,a) alone; two distributions
    that differ by x in one component differ by at least 2x in L1, so L_mu = slope / 2.
    `L_pop` = (K_s + K_a)/2 + K_mu (Lemma 9).
    """

    alpha: float
    beta: float
    K_s: float
    K_a: float
    K_mu: float
    L_s: float
    L_a: float
    L_mu: float
    slope: float
    L_pop: float


class Congestion(PopulationGame):
    """Asymmetric dynamic congestion game (Yardim & He, Example 1 and D.1).

    P^i(.|s,a) = transitions_i[s,a], free of the others, and
    R^i(s,a,rho) = h_i(s,a, #{j : rho_j = (s,a)}) + base_i[s,a],
    with h_i non-increasing in the count k = 1..N, which includes agent i itself.

    `congestion_i[s,a]` holds h_i at C evenly spaced counts, the first at k = 1 (alone), the last
    at k = N (everyone); between them h_i is linear. C = N is any h at all, C = 2 an h that is
    affine in the count, anything between a compact curve. With u = (k-1)/(N-1) the share of the
    others in (s,a), the curve over u in [0,1] is D.1's interpolation, mended: it is what the
    induced game reads at u = mu(s,a), and N appears nowhere in it. h_i decreases, so the induced
    game is monotone (Def. 10, for all mu): the game is monotone extendable.

    `constants` gives alpha, beta and all Lipschitz moduli in closed form.

    Args:
        transitions: [N,S,A,S], distributions.
        congestion: [N,S,A,C], C >= 2, non-increasing along C, in reward per step (the paper's are
            in [0,1]).
        base: [N,S,A], in reward per step.
        horizon: H >= 1.
        initial_distribution: [S], default uniform.

    Raises:
        ValueError: a shape differs, a row of `transitions` is not a distribution, `congestion`
            increases or a value is not finite.
    """

    name: ClassVar[str] = "congestion"
    summary: ClassVar[str] = "Asymmetric dynamic congestion game: crowded choices pay less"
    transition_in_aggregate: ClassVar[InAggregate] = "free"

    transitions: Float[Array, "N S A S"]
    congestion: Float[Array, "N S A C"]
    base: Float[Array, "N S A"]
    initial_distribution: Float[Array, " S"]
    horizon: int = eqx.field(static=True)

    def __init__(
        self,
        transitions: Any,
        congestion: Any,
        base: Any,
        horizon: int = 10,
        initial_distribution: Any = None,
    ):
        shape = as_array("base", base).shape
        if len(shape) != 3 or 0 in shape:
            raise ValueError(f"base must have shape [N,S,A] with no empty axis, not {list(shape)}")
        counts = as_array("congestion", congestion).shape[3:4]
        num_counts = counts[0] if counts else 2
        if num_counts < 2:
            raise ValueError(
                f"congestion must have at least 2 counts along its last axis, not {num_counts}"
            )
        self.transitions = probability_tables("transitions", transitions, shape=(*shape, shape[1]))
        self.congestion = agent_array("congestion", congestion, shape=(*shape, num_counts))
        _check_non_increasing(self.congestion)
        self.base = agent_array("base", base, shape=shape)
        initial = uniform_if_none(initial_distribution, shape[1])
        self.initial_distribution = distribution("initial_distribution", initial, shape[1])
        self.horizon = horizon

    @classmethod
    def sample(
        cls,
        key: PRNGKeyArray,
        *,
        num_agents: int = 1000,
        horizon: int = 10,
        heterogeneity: Heterogeneity = 0.1,
        num_states: int = 3,
        num_actions: int = 3,
        congestion: float = 0.5,
        power: float = 1.0,
        num_counts: int = 17,
    ) -> "Congestion":
        """Draw a random congestion game: shared tables, and every agent's own around them.

        The shared transitions are uniform on the simplex and the shared base rewards on [0, 0.5];
        h_i(s,a) = c_i(s,a) (1 - u^power), u the share of the others in (s,a).

        Args:
            key: decides the draw.
            num_agents: number of agents N >= 2.
            horizon: number of steps H >= 1.
            heterogeneity: one number for all of transitions, congestion, base, or one for each
                (default 0.1 for a name left out). For congestion and base it is the half-width
                of every entry; an agent's transitions are the shared ones mixed with its own
                random ones, its own at a weight that is uniform between 0 and this number.
            num_states: number of states S >= 1.
            num_actions: number of actions A >= 1.
            congestion: centre of c_i(s,a), the loss when everyone else is in the same pair.
            power: shape of the loss, > 0; 1 is affine in the count, which makes the certificate
                exact.
            num_counts: number of evenly spaced counts that hold the curve unless power is 1.

        Raises:
            ValueError: a number is out of its range, or a draw would leave its parameter's
                range; the message names the argument, the rule and the value.
        """
        check_key("key", key)
        check_count("num_agents", num_agents, 2)
        check_count("horizon", horizon, 1)
        check_count("num_states", num_states, 1)
        check_count("num_actions", num_actions, 1)
        check_count("num_counts", num_counts, 2)
        check_number("congestion", congestion)
        check_number("power", power, above=0)
        agents_key, own_key, shared_key, base_key = jax.random.split(key, 4)
        pairs = (num_states, num_actions)
        zeros = (0.0,) * (num_states * num_actions)
        centres = {"transitions": 0.0, "congestion": zeros, "base": zeros}
        drawn = draw_around(agents_key, centres, heterogeneity, num_agents)
        weight = agent_array(
            "transitions weight", abs(drawn["transitions"]), shape=(num_agents,), low=0.0, high=1.0
        )
        shared = random_distributions(shared_key, (*pairs, num_states))
        level = congestion + drawn["congestion"].reshape(num_agents, *pairs)
        level = agent_array("congestion", level, shape=(num_agents, *pairs), low=0.0)
        curve = 1 - jnp.linspace(0, 1, 2 if power == 1 else num_counts) ** power
        base = jax.random.uniform(base_key, pairs, maxval=0.5)
        return cls(
            transitions=perturbed_distributions(own_key, shared, weight),
            congestion=level[..., None] * curve,
            base=base + drawn["base"].reshape(num_agents, *pairs),
            horizon=horizon,
        )

    @property
    def num_states(self) -> int:
        """S, from the tables."""
        return self.base.shape[1]

    @property
    def num_actions(self) -> int:
        """A, from the tables."""
        return self.base.shape[2]

    @property
    def reward_in_aggregate(self) -> InAggregate:
        """See `PopulationGame`; "affine" where h is given by its two ends alone (C = 2)."""
        return "affine" if self.congestion.shape[-1] == 2 else "nonlinear"

    @property
    def agents(self) -> CongestionAgent:
        """The per-agent tables."""
        return CongestionAgent(self.transitions, self.congestion, self.base)

    @property
    def reward_range(self) -> tuple[float, float]:
        """From everyone in one pair to alone; both are met."""
        low = (self.base + self.congestion[..., -1]).min()
        return float(low), float((self.base + self.congestion[..., 0]).max())

    def transition(
        self, agent: CongestionAgent, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.transition`."""
        return agent.transitions[state, action]

    def reward(
        self, agent: CongestionAgent, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.reward`; `aggregate` is sigma(rho^-i), [S*A]."""
        share = component(aggregate, state * self.num_actions + action)
        base = agent.base[state, action]
        last = agent.congestion.shape[-1] - 1
        if last == 1:
            ends = agent.congestion[state, action]
            return base + ends[0] + share * (ends[1] - ends[0])
        place = share * last
        below = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, last - 1)
        left = agent.congestion[state, action, below]
        right = agent.congestion[state, action, below + 1]
        return base + left + (place - below) * (right - left)

    def constants(self) -> CongestionConstants:
        """alpha, beta and the Lipschitz moduli, exactly; for concrete arrays only.

        Rewards decrease in the one component of mu that they depend on, so the largest difference
        between two pairs is met where one is empty and the other holds everyone. The deviation
        of an agent's reward from the mean is piecewise linear in the count, so beta is met at a
        count next to one of the C counts.
        """
        transitions = np.asarray(self.transitions, np.float64)
        rewards = np.asarray(self.congestion, np.float64) + np.asarray(self.base)[..., None]
        law, pay = transitions.mean(0), rewards.mean(0)
        alone, crowded = pay[..., 0], pay[..., -1]
        slope = float(np.abs(np.diff(pay)).max() * (pay.shape[-1] - 1))
        k_s = float(np.abs(law[:, None] - law[None]).sum(-1).max())
        k_a = float(np.abs(law[:, :, None] - law[:, None]).sum(-1).max())
        between_states = alone[:, None] - crowded[None]
        between_actions = alone[:, :, None] - crowded[:, None]
        num_states, num_actions = alone.shape
        # A pair compared with itself, at the same mu, differs by nothing.
        between_states[np.arange(num_states), np.arange(num_states)] = 0
        between_actions[:, np.arange(num_actions), np.arange(num_actions)] = 0
        return CongestionConstants(
            alpha=float(np.abs(transitions - law).sum(-1).max()),
            beta=float(np.abs(_at_counts(rewards - pay, self.num_agents)).max()),
            K_s=k_s,
            K_a=k_a,
            K_mu=0.0,
            L_s=float(between_states.max()),
            L_a=float(between_actions.max()),
            L_mu=slope / 2 if alone.size > 1 else 0.0,
            slope=slope,
            L_pop=(k_s + k_a) / 2,
        )


def _at_counts(curves: np.ndarray, num_agents: int) -> np.ndarray:
    """Piecewise-linear curves [...,C] at the counts next to each of their C, which may be none."""
    last = curves.shape[-1] - 1
    counts = np.arange(last + 1) * (num_agents - 1) / last
    shares = np.unique([np.floor(counts), np.ceil(counts)]) / (num_agents - 1)
    below = np.minimum((shares * last).astype(int), last - 1)
    part = shares * last - below
    return (1 - part) * curves[..., below] + part * curves[..., below + 1]


def _check_non_increasing(congestion: Array) -> None:
    if isinstance(congestion, Tracer):
        return
    values = np.asarray(congestion)
    wrong = np.diff(values) > 0
    if wrong.any():
        *where, c = (int(k) for k in np.argwhere(wrong)[0])
        first, second = values[(*where, c)], values[(*where, c + 1)]
        raise ValueError(
            "congestion must not increase along its last axis, the count: "
            f"congestion{where} goes from {first:g} to {second:g} at {c + 1}"
        )
