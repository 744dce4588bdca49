"""A game of one population an agent, with laws that were regressed on the agents' parameters.

The model-based route of Section 2.4 without a model and without groups: where
`estimate_mean_field_game` fits a table for each group, here every cell (s,a) has one regression
for all agents, on products of functions of an agent's parameters and of the population it met,

    P_i(s'|s,a,sigma) = phi_i . W(s,a,s') . psi(sigma),      R_i likewise,

with phi the `FeatureBasis` that log-linear policies use, and psi an affine basis of what the
others were seen doing. What is assumed: agents with equal parameters have equal laws; the laws are
polynomials of the parameters, of the degree of phi; affine in the population, near those that were
met, and the same at all steps (unless `time_dependent`).

Axes: M trajectories, H steps, N agents, S states, A actions, X = S*A pairs, K components of what is
met, p functions psi, d features phi, D = d*p columns, O outcomes of a cell (S next states, or 1
reward), T fitted steps (H or 1).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from crowdnash.checks import as_array, check_count, check_flag, check_key, check_number
from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import states_for_tables
from crowdnash.mean_field.estimation import Play, checked_play
from crowdnash.mean_field.game import Numbers, TwoLawGame
from crowdnash.mean_field.meeting import OthersOfGroups
from crowdnash.mean_field.solvers import solve
from crowdnash.policies.features import FeatureBasis, Features, game_basis
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulation.kept_play import simulate
from crowdnash.simulation.trajectories import Trajectories

_MAX_ROWS = 2**22
_RANDOM_POLICIES = 8
_EXPLORATION = 0.1
_ITERATIONS_A_ROUND = 100


class PlayedLaw(eqx.Module):
    """Values phi_i . W . psi(sigma), with phi_i . W worked out for every agent.

    psi(sigma) = (1, (sigma - centre) . directions).

    Attributes:
        coefficients: phi_i . W.
        centre: the mean population that was met.
        directions: uncorrelated directions in which the populations differed.
        distribution: whether values are brought to the nearest distribution over the last axis. A
            regression may leave the simplex, where it extrapolates or by its error.
    """

    coefficients: Float[Numbers, "T p N S A ..."]
    centre: Float[Numbers, " X"]
    directions: Float[Numbers, "X q"]
    meeting: OthersOfGroups
    distribution: bool = eqx.field(static=True)

    def at(self, mu: Float[Array, "N S A"], step: Any) -> Array:
        """The law's values [N,S,A,...] at the populations `mu` and step h."""
        met = self.meeting @ mu.reshape(mu.shape[0], -1)
        rest = (met - jnp.asarray(self.centre)) @ jnp.asarray(self.directions)
        psi = jnp.concatenate([jnp.ones_like(met[:, :1]), rest], axis=1)
        table = jnp.asarray(self.coefficients)
        table = table[step if table.shape[0] > 1 else 0]
        psi = psi.T.reshape(*psi.T.shape, *(1,) * (table.ndim - 2))
        values = (psi * table).sum(0)
        return nearest_distribution(values) if self.distribution else values


def nearest_distribution(values: Float[Array, "*rest S"]) -> Float[Array, "*rest S"]:
    """The point of the simplex that is nearest to each row (max(v - t, 0) for some t)."""
    size = values.shape[-1]
    ordered = jnp.flip(jnp.sort(values, axis=-1), -1)
    excess = jnp.cumsum(ordered, axis=-1) - 1
    number = jnp.arange(1, size + 1, dtype=values.dtype)
    # The entries that stay positive are the first ones in order.
    positive = (ordered * number > excess).sum(-1, keepdims=True)
    level = jnp.take_along_axis(excess, positive - 1, axis=-1) / positive
    return jnp.maximum(values - level, 0)


class PlayedMeanFieldGame(TwoLawGame):
    """What `game_from_play` returns (Section 2.4): one population an agent, laws seen in play."""

    transition_law: PlayedLaw
    reward_law: PlayedLaw
    initial_distribution: Float[Numbers, " S"]
    shares: Float[Numbers, " N"]
    horizon: int = eqx.field(static=True)
    num_states: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)

    @property
    def laws_are_cheap(self) -> bool:
        """See `MeanFieldGame.laws_are_cheap`."""
        return True


def game_from_play(
    game: DynamicGame,
    trajectories: Any = None,
    *,
    key: Any = None,
    num_rounds: int = 3,
    num_trajectories: int = 32,
    features: Features | str = "linear",
    contribution: Any = None,
    time_dependent: bool = False,
    shrinkage: float = 1.0,
) -> PlayedMeanFieldGame:
    """Estimate every agent's laws from play, as functions of its parameters (Section 2.4).

    Every cell (s,a) is one regression over all visits, weighted alike, of next states and rewards
    on phi_i x psi(sigma), with a ridge towards the cell's mean. No law of the game is asked.
    Solve the result by fictitious play: it has one population an agent.

    Without `trajectories`, the game is simulated in rounds: first under random policies, which all
    agents share and which keep to one way of acting, so that populations differ; then under the
    solution of what was estimated so far, with a tenth of exploration. The last rounds are about
    where the equilibrium is, so that nothing needs to be extrapolated.

    Args:
        game: who the agents are (`agent_features`, or `agents` for a function), and H, S, A.
        trajectories: play of it, with `.states`, `.actions`, `.rewards`, each [M,H,N], in which the
            population varies: joined along M from several policies that play every action.
        key: decides the simulation in the absence of `trajectories`.
        num_rounds: of that simulation, >= 1.
        num_trajectories: of each round.
        features: phi, as for `PolicyMirrorDescent`, but not of the step. Laws are often simpler
            than policies.
        contribution: [X,K], what an agent in a pair adds to the mean that others meet, where that
            is known; by default pairs themselves (K = X). Fewer columns need less play.
        time_dependent: fit each step by itself, drawn to the fit of all steps together.
        shrinkage: > 0, the ridge, in visits.

    Raises:
        ValueError: Shapes or values are wrong, the game's agents have no parameters, neither key
            nor trajectories are there, features depend on the step, or a cell was never visited.
    """
    check_number("shrinkage", shrinkage, above=0)
    check_flag("time_dependent", time_dependent)
    num_states = states_for_tables(game)
    basis, parameters = game_basis(game, features)
    if basis.num_steps is not None:
        raise ValueError(
            "features must not depend on the step here; time_dependent=True is for that"
        )
    table = _contributions(contribution, num_states * game.num_actions)
    regression = _Regression(
        basis(parameters).astype(np.float64), table, time_dependent, float(shrinkage)
    )
    if trajectories is not None:
        return regression.of(game, trajectories, num_states)
    if key is None:
        raise ValueError("key must be there to simulate the game, or trajectories in its place")
    check_key("key", key)
    check_count("num_rounds", num_rounds, 1)
    check_count("num_trajectories", num_trajectories, 1)
    first, *rounds = jax.random.split(key, num_rounds)
    trajectories = _random_play(game, num_states, first, num_trajectories)
    mfg = regression.of(game, trajectories, num_states)
    for now in rounds:
        solution = solve(mfg, "fictitious_play", num_iterations=_ITERATIONS_A_ROUND, tolerance=0.0)
        probs = (1 - _EXPLORATION) * solution.policy + _EXPLORATION / game.num_actions
        policy = TabularPolicy.independent(probs.astype(np.float32))
        play = simulate(game, policy, key=now, num_trajectories=num_trajectories)
        trajectories = _joined([trajectories, play])
        mfg = regression.of(game, trajectories, num_states)
    return mfg


class _Met(NamedTuple):
    """The populations as affine functions psi: `counts` [R,X], rows R = (trajectory, step)."""

    counts: Float[np.ndarray, "R X"]
    centre: Float[np.ndarray, " X"]
    directions: Float[np.ndarray, "X q"]

    @classmethod
    def of(cls, play: Play, contribution: Float[np.ndarray, "X K"]) -> "_Met":
        counts = play.counts.reshape(-1, contribution.shape[0])
        shares = counts / play.pairs.shape[2]
        basis = FeatureBasis.of(shares @ contribution, 1)
        return cls(counts, shares.mean(0), contribution @ (basis.rotation / basis.scale[:, None]))

    def by_others_of(self, pair: int) -> Float[np.ndarray, "R p"]:
        """psi of what an agent in this pair met in each row."""
        counts = self.counts.copy()
        counts[:, pair] -= 1
        rest = (counts / (counts.sum(1, keepdims=True)) - self.centre) @ self.directions
        return np.concatenate([np.ones((len(rest), 1)), rest], axis=1)


def _contributions(contribution: Any, num_pairs: int) -> Float[np.ndarray, "X K"]:
    if contribution is None:
        return np.eye(num_pairs)
    table = np.asarray(as_array("contribution", contribution), np.float64)
    if table.ndim != 2 or len(table) != num_pairs or not np.isfinite(table).all():
        raise ValueError(
            f"contribution must be finite, of shape [{num_pairs},K], not {list(table.shape)}"
        )
    return table


def _random_play(game: DynamicGame, num_states: int, key: Any, num_trajectories: int) -> Any:
    """Play under policies that all agents share and that keep to one way of acting all along.

    The aggregate then differs between trajectories by more than chance alone would make it.
    """
    draw, *plays = jax.random.split(key, _RANDOM_POLICIES + 1)
    shape = (_RANDOM_POLICIES, num_states)
    tables = np.asarray(jax.random.dirichlet(draw, jnp.ones(game.num_actions), shape))
    tables = (1 - _EXPLORATION) * tables + _EXPLORATION / game.num_actions
    parts = []
    for k, table in enumerate(tables):
        count = num_trajectories // _RANDOM_POLICIES + (k < num_trajectories % _RANDOM_POLICIES)
        if count:
            probs = np.broadcast_to(table, (game.horizon, *table.shape))
            policy = TabularPolicy.symmetric(probs, num_agents=game.num_agents)
            parts.append(simulate(game, policy, key=plays[k], num_trajectories=count))
    return _joined(parts)


def _joined(parts: list[Trajectories]) -> Trajectories:
    return Trajectories(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


class _Regression(NamedTuple):
    """What is regressed on, and how."""

    phi: Float[np.ndarray, "N d"]
    contribution: Float[np.ndarray, "X K"]
    time_dependent: bool
    shrinkage: float

    def of(self, game: DynamicGame, trajectories: Any, num_states: int) -> PlayedMeanFieldGame:
        """The game that these trajectories show."""
        play = checked_play(trajectories, num_states, game.num_actions)
        if play.pairs.shape[1:] != (game.horizon, game.num_agents):
            raise ValueError(
                f"trajectories.states must be [M,{game.horizon},{game.num_agents}], as the game "
                f"has H and N, not {list(play.pairs.shape)}"
            )
        met = _Met.of(play, self.contribution)
        cells = [
            self._cell(play, met, pair, (num_states, game.num_actions))
            for pair in range(len(self.contribution))
        ]
        # [T,p,N,X,O]
        moves, pays = (np.stack(tables, 3) for tables in zip(*cells, strict=True))
        shape = (*moves.shape[:3], num_states, game.num_actions)
        basis = (met.centre, met.directions, OthersOfGroups(np.ones(game.num_agents)))
        first = play.pairs[:, 0].ravel() // game.num_actions
        return PlayedMeanFieldGame(
            transition_law=PlayedLaw(moves.reshape(*shape, num_states), *basis, True),
            reward_law=PlayedLaw(pays.reshape(shape), *basis, False),
            initial_distribution=np.bincount(first, minlength=num_states) / first.size,
            shares=np.full(game.num_agents, 1 / game.num_agents),
            horizon=game.horizon,
            num_states=num_states,
            num_actions=game.num_actions,
        )

    def _cell(
        self, play: Play, met: _Met, pair: int, shape: tuple[int, int]
    ) -> tuple[Float[np.ndarray, "T p N S"], Float[np.ndarray, "T p N"]]:
        """phi_i . W of the moves from one pair, and of its rewards."""
        psi = met.by_others_of(pair).reshape(*play.pairs.shape[:2], -1)
        gram, right = _normal_equations(play, psi, self.phi, pair, shape[0])
        moving = gram.copy()
        moving[-1] = 0  # nobody is seen to move from the last step
        tables = []
        for matrix, sums in ((moving, right[..., :-1]), (gram, right[..., -1:])):
            if not matrix[:, 0, 0].any():
                raise ValueError(
                    "trajectories must visit every cell before the last step: nobody is in "
                    f"(state, action) = {divmod(pair, shape[1])}"
                )
            weights = _ridge(matrix, sums, self.shrinkage, self.time_dependent)  # [T,D,O]
            weights = weights.reshape(len(weights), self.phi.shape[1], -1, sums.shape[-1])
            tables.append(np.einsum("nd,tdpo->tpno", self.phi, weights))
        return tables[0], tables[1][..., 0]


def _normal_equations(
    play: Play, psi: Float[np.ndarray, "M H p"], phi: np.ndarray, pair: int, num_states: int
) -> tuple[Float[np.ndarray, "H D D"], Float[np.ndarray, "H D O"]]:
    """Sums over the visits to a pair at each step; outcomes are the S next states, the reward."""
    horizon, num_agents = play.pairs.shape[1:]
    d, p, size = phi.shape[1], psi.shape[-1], num_states + 1
    squares = (phi[:, :, None] * phi[:, None, :]).reshape(num_agents, -1)
    gram = np.zeros((horizon, p * p, d * d))
    right = np.zeros((horizon, p, size, d))
    parts = max(1, len(psi) * num_agents // _MAX_ROWS)
    for h in range(horizon):
        for rows in np.array_split(np.arange(len(psi)), parts):
            here = play.pairs[rows, h] == pair
            after = play.next_states[rows, h]
            outcomes = [here & (after == s) for s in range(num_states)]
            outcomes.append(np.where(here, play.rewards[rows, h], 0.0))
            now = psi[rows, h]
            both = (now[:, :, None] * now[:, None, :]).reshape(len(rows), -1)
            gram[h] += both.T @ (here.astype(np.float64) @ squares)
            for k, outcome in enumerate(outcomes):
                right[h, :, k] += now.T @ (outcome.astype(np.float64) @ phi)
    gram = gram.reshape(horizon, p, p, d, d).transpose(0, 3, 1, 4, 2)
    right = right.transpose(0, 3, 1, 2)
    return gram.reshape(horizon, d * p, d * p), right.reshape(horizon, d * p, size)


def _ridge(
    gram: Float[np.ndarray, "H D D"],
    right: Float[np.ndarray, "H D O"],
    shrinkage: float,
    time_dependent: bool,
) -> Float[np.ndarray, "T D O"]:
    """Weights of all steps together, drawn to the cell's mean; then of each, drawn to those."""
    ridge = shrinkage * np.eye(gram.shape[1])
    whole, total = gram.sum(0), right.sum(0)
    prior = np.zeros_like(total)
    prior[0] = total[0] / whole[0, 0]  # the first column is 1
    pooled = prior + np.linalg.solve(whole + ridge, total - whole @ prior)
    if not time_dependent:
        return pooled[None]
    return pooled + np.linalg.solve(gram + ridge, right - gram @ pooled)
