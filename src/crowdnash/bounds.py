"""Theorem 1: how far a mean-field equilibrium can be from Nash in the N-player game.

With E(h) bounding how far the empirical distribution strays from the population flow (L1), and
D(h) how far a deviating agent's own law strays from the representative agent's,

    E(h) = G(h) (|S||A|/sqrt(N) + (2 + 3 K_mu)/N + alpha),   G(h) = sum_{k<=h} L_pop^k,
    D(h) = h (alpha + 3 K_mu/N) + K_mu sum_{h'<h} E(h'),

a policy that is delta-exploitable in the induced mean-field game is, played by all,

    delta + 2 sum_h [ L_mu E(h) + (L_s + L_a)/2 D(h) + 3 L_mu/N + beta ]

exploitable for every agent. The constants mend those that the paper's proof arrives at (B.3),
which are too small. The sharper form has, by the same proof, sqrt((|S||A|-1)/N) for
|S||A|/sqrt(N), 2/N for 3/N, half the spread over all pairs (s,a) for (K_s+K_a)/2 and (L_s+L_a)/2,
and E, D <= 2.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from crowdnash.approximate_symmetry import Symmetry
from crowdnash.game import TabularGame

Regime = Literal["<1", "=1", ">1"]
End = Literal["upper", "lower"]


class BoundTerms(NamedTuple):
    """The bound step by step, each [H]; the last four add up to what the step contributes.

    `population_gap` E(h) and `own_law_gap` D(h); then, all in reward: `from_population`
    2 L_mu E(h), `from_own_law` (L_s + L_a) D(h), `from_own_weight` 6 L_mu/N (sharper: 4 L_mu/N)
    and `from_rewards` 2 beta.
    """

    population_gap: Float[np.ndarray, " H"]
    own_law_gap: Float[np.ndarray, " H"]
    from_population: Float[np.ndarray, " H"]
    from_own_law: Float[np.ndarray, " H"]
    from_own_weight: Float[np.ndarray, " H"]
    from_rewards: Float[np.ndarray, " H"]

    @property
    def total(self) -> Float[np.ndarray, " H"]:
        """What each step contributes to the bound."""
        return self.from_population + self.from_own_law + self.from_own_weight + self.from_rewards


@dataclass(frozen=True)
class NashBound:
    """Theorem 1 for one game, in units of total reward.

    - `value`: the mended form; `sharper`: the same proof with sharper constants; `trivial`:
      H times the width of the reward range, which no exploitability exceeds.
    - `terms`, `sharper_terms`: step by step; `mean_field_exploitability`: the delta added.
    - `L_pop`, `regime`, `L_pop_sharper`, `regime_sharper`: errors of the population die out
      (<1), add up (=1) or grow exponentially with h (>1).
    - `certified`: alpha, beta are upper ends and all moduli exact; otherwise searched values
      stand for some of them and the bound is an estimate of Theorem 1's.
    """

    value: float
    sharper: float
    trivial: float
    mean_field_exploitability: float
    L_pop: float
    regime: Regime
    L_pop_sharper: float
    regime_sharper: Regime
    terms: BoundTerms
    sharper_terms: BoundTerms
    certified: bool

    @property
    def vacuous(self) -> bool:
        """Whether the mended form says no more than the trivial bound."""
        return self.value >= self.trivial

    @property
    def sharper_vacuous(self) -> bool:
        """Whether even the sharper form says no more than the trivial bound."""
        return self.sharper >= self.trivial

    @property
    def best(self) -> float:
        """The smallest of the three."""
        return min(self.value, self.sharper, self.trivial)


def nash_bound(
    game: TabularGame,
    sym: Symmetry,
    mean_field_exploitability: float = 0.0,
    *,
    end: End | str = "upper",
) -> NashBound:
    """Bound every agent's exploitability when all play one policy (Theorem 1).

    **Arguments:** `sym` is `symmetry(game)`, one group; `mean_field_exploitability` delta >= 0 of
    the policy in the induced game (0: an exact MFG-NE); `end` the end of the intervals of alpha
    and beta to use: "upper" for a bound, "lower" to see what searched values would give.

    **Raises:** `ValueError` if `sym` has several groups, another number of agents than the game or
    no Lipschitz moduli, or if an argument is out of range.
    """
    if sym.num_groups != 1:
        raise ValueError(f"sym must be of one group: Theorem 1 knows no {sym.num_groups} groups")
    if len(sym.groups) != game.num_agents:
        raise ValueError(
            f"sym must be symmetry(game): it has {len(sym.groups)} agents, not {game.num_agents}"
        )
    if sym.lipschitz is None:
        raise ValueError("sym must have Lipschitz moduli: method='sample' measures none")
    if not 0 <= mean_field_exploitability < np.inf:
        raise ValueError(
            f"mean_field_exploitability must be >= 0 and finite, not {mean_field_exploitability}"
        )
    if end not in ("upper", "lower"):
        raise ValueError(f"end must be 'upper' or 'lower', not {end!r}")
    moduli = sym.lipschitz
    plain = _terms(
        game,
        sym,
        end,
        L_pop=moduli.L_pop,
        own_reward=moduli.L_s + moduli.L_a,
        sampling=game.num_states * game.num_actions / game.num_agents**0.5,
        own_weight=3.0,
        cap=np.inf,
    )
    sharp = _terms(
        game,
        sym,
        end,
        L_pop=moduli.L_pop_sharper,
        own_reward=2 * moduli.reward_spread,
        sampling=((game.num_states * game.num_actions - 1) / game.num_agents) ** 0.5,
        own_weight=2.0,
        cap=2.0,
    )
    low, high = sym.reward_range
    delta = float(mean_field_exploitability)
    return NashBound(
        value=delta + float(plain.total.sum()),
        sharper=delta + float(sharp.total.sum()),
        trivial=game.horizon * (high - low),
        mean_field_exploitability=delta,
        L_pop=moduli.L_pop,
        regime=_regime(moduli.L_pop),
        L_pop_sharper=moduli.L_pop_sharper,
        regime_sharper=_regime(moduli.L_pop_sharper),
        terms=plain,
        sharper_terms=sharp,
        certified=moduli.exact and (end == "upper" or sym.exact),
    )


def _terms(
    game: TabularGame,
    sym: Symmetry,
    end: str,
    *,
    L_pop: float,
    own_reward: float,
    sampling: float,
    own_weight: float,
    cap: float,
) -> BoundTerms:
    assert sym.lipschitz is not None  # nash_bound has seen to it
    alpha, beta = (getattr(interval, end) for interval in (sym.alpha, sym.beta))
    K_mu, L_mu = sym.lipschitz.K_mu, sym.lipschitz.L_mu
    n, steps = game.num_agents, np.arange(game.horizon)
    growth = np.cumsum(L_pop ** steps.astype(float))
    once = sampling + (2 + own_weight * K_mu) / n + alpha
    population_gap = np.minimum(growth * once, cap)
    before = np.concatenate([[0.0], np.cumsum(population_gap)[:-1]])
    own_law_gap = np.minimum(steps * (alpha + own_weight * K_mu / n) + K_mu * before, cap)
    return BoundTerms(
        population_gap=population_gap,
        own_law_gap=own_law_gap,
        from_population=2 * L_mu * population_gap,
        from_own_law=own_reward * own_law_gap,
        from_own_weight=np.full(game.horizon, 2 * own_weight * L_mu / n),
        from_rewards=np.full(game.horizon, 2.0 * beta),
    )


def _regime(L_pop: float) -> Regime:
    """Which of the three regimes; within rounding of float32 parameters counts as 1."""
    if abs(L_pop - 1) < 1e-6:
        return "=1"
    return "<1" if L_pop < 1 else ">1"
