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

Several groups, of N_g agents and shares w_g = N_g/N (the paper has one). Agents must meet each
other through sigma(rho^-i) only; the induced game's group g meets m_g(mu) = (N mu_bar - mu^g)/(N-1)
with mu_bar = sum_k w_k mu^k. The proof then runs with e = sum_g w_g |sigma^g - mu^g|_1:

- given the joint state-action at h, sigma^g_{h+1} is a mean of N_g independent draws: its L1
  distance from its own expectation is at most |S||A|/sqrt(N_g), in e sum_g w_g |S||A|/sqrt(N_g);
- the one deviator shifts its group's mean by 2/N_g, hence e by 2/N;
- agents against their group's law: alpha_g, in e sum_g w_g alpha_g;
- what agent i of g meets: sigma(rho^-i) - m_g(mu) = (sigma_bar - mu_bar) + [(sigma_bar - e_i) +
  (mu^g - mu_bar)]/(N-1), in L1 at most e + 2/N + 2 (1-w_g)/(N-1) = e + c_g/N, where
  c_g = 2 + 2 (N-N_g)/(N-1) (2 for one group, 4 at most; the form with 3/N takes 1 more);
- (K_s + K_a)/2 |sigma^g - mu^g| for the agents' own pairs, which again adds up to e.

So E(h) = G(h) (|S||A| sum_g w_g/sqrt(N_g) + (2 + K_mu sum_g w_g c_g)/N + sum_g w_g alpha_g),
D_g(h) = h (alpha_g + c_g K_mu/N) + K_mu sum_{h'<h} E(h'), and an agent of group g gains at most

    delta_g + 2 sum_h [ L_mu E(h) + (L_s + L_a)/2 D_g(h) + c_g L_mu/N + beta_g ]

with moduli that hold for all groups. With groups of a few agents each the first term does not
fall with N: an agent that is its own group has a population of one, which no flow describes.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from crowdnash.approximate_symmetry.agent_laws import open_reader
from crowdnash.approximate_symmetry.alike import check_same_start_and_actions
from crowdnash.approximate_symmetry.measurement import Symmetry
from crowdnash.checks import as_array, check_choice, check_instance
from crowdnash.games.base import DynamicGame, PopulationGame
from crowdnash.games.checks import fingerprint, states_for_tables

Regime = Literal["<1", "=1", ">1"]
End = Literal["upper", "lower"]


class BoundTerms(NamedTuple):
    """The bound of one group's agents step by step, each [H]; the last four add up to a step's.

    `population_gap` E(h) and `own_law_gap` D_g(h); then, all in reward: `from_population`
    2 L_mu E(h), `from_own_law` (L_s + L_a) D_g(h), `from_own_weight` 2 c_g L_mu/N (6 L_mu/N for
    one group; sharper: 4 L_mu/N) and `from_rewards` 2 beta_g.
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
      H times the width of the reward range, which no exploitability exceeds. Of several groups,
      the largest; `group_values`, `group_sharper` [G] bound the agents of each.
    - `terms`, `sharper_terms`: step by step, for the group with the largest bound;
      `mean_field_exploitability`: the delta added (of several groups, the largest).
    - `L_pop`, `regime`, `L_pop_sharper`, `regime_sharper`: errors of the population die out
      (<1), add up (=1) or grow exponentially with h (>1).
    - `certified`: alpha, beta are upper ends and all moduli exact; otherwise searched or
      estimated values stand for some of them and the bound is an estimate of Theorem 1's.
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
    group_values: Float[np.ndarray, " G"]
    group_sharper: Float[np.ndarray, " G"]

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


class _Form(NamedTuple):
    """What tells the mended form from the sharper one; `sampling` is sqrt(N) times one group's."""

    L_pop: float
    own_reward: float
    sampling: float
    own_weight: float
    cap: float


def nash_bound(
    game: DynamicGame,
    sym: Symmetry,
    mean_field_exploitability: float | Float[np.ndarray, " G"] = 0.0,
    *,
    end: End | str = "upper",
) -> NashBound:
    """Bound every agent's exploitability when all play their group's policy (Theorem 1).

    Args:
        game: The game.
        sym: `symmetry(game)`, for one group or several.
        mean_field_exploitability: delta >= 0 of the policy in the induced game (0: an exact
            MFG-NE), one for all groups or [G].
        end: The end of the intervals of alpha and beta to use: "upper" for a bound, "lower" to see
            what searched or estimated values would give.

    Raises:
        ValueError: `sym` is of another game or has no Lipschitz moduli, agents of several groups
            contribute differently to the aggregate (the proof needs sigma(rho^-i)), agents of one
            start from different distributions or have different legal actions (the theorem is about
            differences of laws), or an argument is out of range.
    """
    check_instance("game", game, DynamicGame)
    check_choice("end", end, ("upper", "lower"))
    check_instance("sym", sym, Symmetry)
    if len(sym.groups) != game.num_agents:
        raise ValueError(
            f"sym must be symmetry(game): it has {len(sym.groups)} agents, not {game.num_agents}"
        )
    if sym.fingerprint not in ("", fingerprint(game)):
        raise ValueError("sym must be symmetry(game), and is that of another game")
    check_same_start_and_actions(game, sym.groups)
    if sym.lipschitz is None:
        raise ValueError(
            f"sym must have Lipschitz moduli: method={sym.method!r} measures none"
            + (" for several groups" if sym.num_groups > 1 else "")
        )
    if sym.num_groups > 1 and not _contribute_alike(game):
        raise ValueError(
            f"sym must be of one group, not {sym.num_groups}, in a game whose agents contribute "
            "differently to the aggregate: Theorem 1 for groups needs laws of sigma(rho^-i)"
        )
    delta = np.asarray(as_array("mean_field_exploitability", mean_field_exploitability), np.float64)
    if delta.shape not in ((), (sym.num_groups,)):
        raise ValueError(
            f"mean_field_exploitability must be a number or one for each of {sym.num_groups} "
            f"groups, not of shape {list(delta.shape)}"
        )
    if not ((delta >= 0) & (delta < np.inf)).all():
        raise ValueError(
            f"mean_field_exploitability must be >= 0 and finite, not {mean_field_exploitability}"
        )
    return _bound(game, sym, delta, 1 if end == "upper" else 0)


def bound_exists(game: DynamicGame, sym: Symmetry) -> bool:
    """Whether `nash_bound` has a say: not without moduli, nor where groups contribute unlike."""
    return sym.lipschitz is not None and (sym.num_groups == 1 or _contribute_alike(game))


def _contribute_alike(game: DynamicGame) -> bool:
    if not isinstance(game, PopulationGame):
        return True  # an estimate from play: sym's own assumption
    with jax.enable_x64(True):
        return open_reader(game, np.zeros(game.num_agents, np.int32)).same_contributions


def _bound(game: DynamicGame, sym: Symmetry, delta: np.ndarray, end: int) -> NashBound:
    moduli = sym.lipschitz
    assert moduli is not None  # nash_bound has seen to it
    pairs = states_for_tables(game) * game.num_actions
    mended = _Form(moduli.L_pop, moduli.L_s + moduli.L_a, float(pairs), 3.0, np.inf)
    sharp = _Form(moduli.L_pop_sharper, 2 * moduli.reward_spread, float(pairs - 1) ** 0.5, 2.0, 2.0)
    both = []
    for form in (mended, sharp):
        every = _terms(game.horizon, sym, end, form)
        values = delta + np.array([float(terms.total.sum()) for terms in every])
        both.append((values, every[int(values.argmax())]))
    (values, terms), (sharper, sharper_terms) = both
    low, high = sym.reward_range
    return NashBound(
        value=float(values.max()),
        sharper=float(sharper.max()),
        trivial=game.horizon * (high - low),
        mean_field_exploitability=float(delta.max()),
        L_pop=moduli.L_pop,
        regime=_regime(moduli.L_pop),
        L_pop_sharper=moduli.L_pop_sharper,
        regime_sharper=_regime(moduli.L_pop_sharper),
        terms=terms,
        sharper_terms=sharper_terms,
        certified=moduli.exact and (end == 1 or sym.exact),
        group_values=values,
        group_sharper=sharper,
    )


def _terms(horizon: int, sym: Symmetry, end: int, form: _Form) -> list[BoundTerms]:
    """The terms for the agents of each group."""
    assert sym.lipschitz is not None
    alpha, beta = sym.group_alpha[:, end], sym.group_beta[:, end]
    K_mu, L_mu = sym.lipschitz.K_mu, sym.lipschitz.L_mu
    sizes = np.bincount(sym.groups)
    n, steps = len(sym.groups), np.arange(horizon)
    shares = sizes / n
    own_weight = form.own_weight + 2 * (n - sizes) / (n - 1)  # c_g
    sampling = float((shares * (form.sampling / sizes**0.5)).sum())
    growth = np.cumsum(form.L_pop ** steps.astype(float))
    once = sampling + (2 + float((shares * own_weight).sum()) * K_mu) / n
    population_gap = np.minimum(growth * (once + float((shares * alpha).sum())), form.cap)
    before = np.concatenate([[0.0], np.cumsum(population_gap)[:-1]])
    by_group = []
    for g in range(len(sizes)):
        own_law_gap = steps * (alpha[g] + own_weight[g] * K_mu / n) + K_mu * before
        own_law_gap = np.minimum(own_law_gap, form.cap)
        by_group.append(
            BoundTerms(
                population_gap=population_gap,
                own_law_gap=own_law_gap,
                from_population=2 * L_mu * population_gap,
                from_own_law=form.own_reward * own_law_gap,
                from_own_weight=np.full(horizon, 2 * own_weight[g] * L_mu / n),
                from_rewards=np.full(horizon, 2.0 * beta[g]),
            )
        )
    return by_group


def _regime(L_pop: float) -> Regime:
    """Which of the three regimes; within rounding of float32 parameters counts as 1."""
    if abs(L_pop - 1) < 1e-6:
        return "=1"
    return "<1" if L_pop < 1 else ">1"
