"""Symmetrization by queries (Def. 3) and the induced game of any tabular game (Def. 6).

However asymmetric a game is, its laws can be queried for every arrangement of the other N-1 agents
over the X = S A pairs. Sym averages an agent's law over the arrangements with the same counts;
lifted, that is a table on the grid of empirical distributions; extended to the whole simplex and
averaged over the agents, it is the induced mean-field game. For a `PopulationGame` the closed
form of `crowdnash.induced_game` needs none of this.

Axes: N agents, K = N-1 others, H steps, S states, A actions, X = S A pairs (number s A + a),
n grid points.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from crowdnash.checks import check_choice, check_count, check_instance, check_key
from crowdnash.games.base import TabularGame
from crowdnash.games.double_precision import as_double
from crowdnash.games.legal import limits_actions
from crowdnash.mean_field.game import MeanFieldGame
from crowdnash.mean_field.grid_games import (
    GridMeanFieldGame,
    KirszbraunMeanFieldGame,
    kirszbraun_laws,
    once_if_constant,
)
from crowdnash.mean_field.induced import mean_initial
from crowdnash.mean_field.queries import query_laws
from crowdnash.mean_field.simplex_grid import grid_counts, grid_numbers, grid_size
from crowdnash.mean_field.symmetrized_tables import (
    all_profiles,
    arrangements,
    averaging_matrix,
    count_pairs,
    num_arrangements,
)

METHODS = ("enumerate", "monte_carlo")
"""Which arrangements are queried: all, or random ones."""

EXTENSIONS = ("kirszbraun", "linear")
"""How laws on the grid are extended to the simplex."""

MAX_QUERIES = 20_000_000
MAX_TABLE_ENTRIES = 50_000_000


@dataclass(frozen=True, eq=False)
class SymmetrizedLaws:
    """Sym(P^i(s,a,.)) and Sym(R^i(s,a,.)) of every agent, lifted to the grid (Def. 3).

    `counts` [n,X] how many of the others are in each pair. Standard errors are of the Monte-Carlo
    average over permutations: 0 where all arrangements were queried.
    """

    counts: Int[np.ndarray, "n X"]
    transition: Float[np.ndarray, "H N S A n S"]
    reward: Float[np.ndarray, "H N S A n"]
    transition_standard_error: Float[np.ndarray, "H N S A n S"]
    reward_standard_error: Float[np.ndarray, "H N S A n"]

    @property
    def grid(self) -> Float[np.ndarray, "n X"]:
        """The empirical distributions, counts / (N-1)."""
        return self.counts / self.counts[0].sum()

    @property
    def induced_transition(self) -> Float[np.ndarray, "H S A n S"]:
        """P(s,a,.) of the induced game at the grid points."""
        return self.transition.mean(1)

    @property
    def induced_reward(self) -> Float[np.ndarray, "H S A n"]:
        """R(s,a,.) of the induced game at the grid points."""
        return self.reward.mean(1)

    @property
    def induced_transition_standard_error(self) -> Float[np.ndarray, "H S A n S"]:
        """That of `induced_transition`; permutations are drawn anew for every agent."""
        return _error_of_mean(self.transition_standard_error)

    @property
    def induced_reward_standard_error(self) -> Float[np.ndarray, "H S A n"]:
        """That of `induced_reward`."""
        return _error_of_mean(self.reward_standard_error)


def symmetrized_laws(
    game: TabularGame,
    *,
    method: str = "enumerate",
    key: PRNGKeyArray | None = None,
    num_permutations: int = 64,
) -> SymmetrizedLaws:
    """Query a game for the symmetrization of every agent's laws, in float64.

    Args:
        game: Any tabular game.
        method: "enumerate" asks for all X^(N-1) arrangements of the others; "monte_carlo" for
            `num_permutations` random ones per grid point and agent, or for all where these are no
            more. Permutations are shared over s, a and h, and independent between agents.
        key: Decides the draws; needed for "monte_carlo" only.
        num_permutations: At least 2.

    Raises:
        ValueError: The game is too large (the message says what to use instead) or an argument is
            wrong.
        GameError: A law is not finite or not a distribution.
    """
    check_instance("game", game, TabularGame)
    _check_arguments(method, key, num_permutations)
    num_pairs, others = game.num_states * game.num_actions, game.num_agents - 1
    _check_size(game, method, num_permutations)
    if method == "enumerate":
        plan = _exhaustive(num_pairs, others)
    else:
        plan = _sampled(num_pairs, others, num_permutations)
    seed = [] if key is None else np.asarray(jax.random.key_data(key)).tolist()
    blocks = []
    with jax.enable_x64(True):
        double = as_double(game)
        for agent in range(game.num_agents):
            drawn = plan.drawn(np.random.default_rng([*seed, agent]))
            for step in range(game.horizon):
                values = query_laws(double, agent, step, drawn)
                shape = (len(drawn), game.num_states, game.num_actions, -1)
                blocks.append(_mean_and_error(plan, values.reshape(shape)))
    return _assembled(game, grid_counts(num_pairs, others), blocks)


def induced_game_from_queries(
    game: TabularGame,
    *,
    method: str = "enumerate",
    extension: str = "kirszbraun",
    key: PRNGKeyArray | None = None,
    num_permutations: int = 64,
) -> MeanFieldGame:
    """The induced mean-field game of any tabular game, by asking for its laws (Def. 6).

        P(s,a,mu) = (1/N) sum_i Ext(lift(Sym(P^i(s,a,.))))(mu),  R likewise.

    `extension` "kirszbraun" is the paper's Ext; "linear" is piecewise linear between the grid
    points, much faster and differentiable, for solvers (for a congestion game it interpolates in
    the count of one's own pair, D.1). `symmetrized_laws` also has the tables and their standard
    errors, and `extend_laws` takes them from there.

    Args:
        game: Any tabular game.
        method: "enumerate" asks for all X^(N-1) arrangements of the others; "monte_carlo" for
            `num_permutations` random ones per grid point and agent.
        extension: "kirszbraun" or "linear".
        key: Decides the draws; needed for "monte_carlo" only.
        num_permutations: At least 2.

    Raises:
        ValueError: The game is too large (the message says what to use instead) or an argument is
            wrong.
        GameError: A law is not finite or not a distribution.
    """
    check_choice("extension", extension, EXTENSIONS)
    laws = symmetrized_laws(game, method=method, key=key, num_permutations=num_permutations)
    return extend_laws(game, laws, extension=extension)


def extend_laws(
    game: TabularGame, laws: SymmetrizedLaws, *, extension: str = "kirszbraun"
) -> MeanFieldGame:
    """The second half of `induced_game_from_queries`: Ext and the mean over agents.

    Raises:
        ValueError: `extension` is unknown or the laws are those of another game.
    """
    check_choice("extension", extension, EXTENSIONS)
    shape = (game.horizon, game.num_agents, game.num_states, game.num_actions)
    if laws.reward.shape[:4] != shape:
        raise ValueError(
            f"laws must be of a game with [H,N,S,A] = {list(shape)}, "
            f"not {list(laws.reward.shape[:4])}"
        )
    if limits_actions(game):
        raise ValueError(
            f"game must let its agents do everything: {type(game).__name__} has illegal actions, "
            "for which induced_game of a PopulationGame has a place"
        )
    initial = mean_initial(game)
    if extension == "kirszbraun":
        return KirszbraunMeanFieldGame(
            initial_distribution=initial,
            extended=kirszbraun_laws(laws.grid, laws.transition, laws.reward),
            horizon=game.horizon,
            num_states=game.num_states,
            num_actions=game.num_actions,
        )
    # Interpolation is linear in the table, so the mean over agents can be taken before.
    return GridMeanFieldGame(
        transition=np.moveaxis(once_if_constant(laws.induced_transition), 3, 1),
        reward=np.moveaxis(once_if_constant(laws.induced_reward), 3, 1),
        initial_distribution=initial,
        horizon=game.horizon,
        others=game.num_agents - 1,
        num_states=game.num_states,
        num_actions=game.num_actions,
    )


class _Plan(NamedTuple):
    """The arrangements to query: `others` [T,K] pairs, `numbers` [T] of their grid points.

    Rows in `random` [T] are permuted anew for every agent; the rest are all there is.
    """

    others: np.ndarray
    numbers: np.ndarray
    random: np.ndarray
    num_points: int

    def drawn(self, generator: np.random.Generator) -> np.ndarray:
        """The arrangements with the random rows permuted, [T,K]."""
        others = self.others.copy()
        others[self.random] = generator.permuted(others[self.random], axis=1)
        return others


def _exhaustive(num_pairs: int, others: int) -> _Plan:
    profiles = all_profiles(num_pairs, others)
    numbers = grid_numbers(count_pairs(profiles, num_pairs))
    size = grid_size(num_pairs, others)
    return _Plan(profiles, numbers, np.zeros(len(profiles), bool), size)


def _sampled(num_pairs: int, others: int, num_permutations: int) -> _Plan:
    rows, numbers, random = [], [], []
    counts = grid_counts(num_pairs, others)
    for number, row in enumerate(counts):
        if num_arrangements(row) <= num_permutations:
            block = np.array(list(arrangements(row.copy())), np.int64).reshape(-1, others)
        else:
            block = np.tile(np.repeat(np.arange(num_pairs), row), (num_permutations, 1))
        rows.append(block)
        numbers.append(np.full(len(block), number))
        random.append(np.full(len(block), num_arrangements(row) > num_permutations))
    return _Plan(*map(np.concatenate, (rows, numbers, random)), num_points=len(counts))


def _mean_and_error(plan: _Plan, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the arrangements of each grid point and its standard error, [n,S,A,S+1] each."""
    flat = values.reshape(len(values), -1)
    shape = (plan.num_points, *values.shape[1:])
    average = averaging_matrix(plan.numbers, plan.num_points)
    # About one of the values: the mean of equal values is then exactly that value.
    reference = flat[np.unique(plan.numbers, return_index=True)[1]]
    away = flat - reference[plan.numbers]
    mean_away = average @ away
    error = np.zeros_like(mean_away)
    if plan.random.any():
        variance = average @ (away - mean_away[plan.numbers]) ** 2
        drawn = np.bincount(plan.numbers, plan.random, plan.num_points)[:, None]
        # Unbiased variance over the number of draws; 0 where nothing was drawn at random.
        error = np.sqrt(variance / np.maximum(drawn - 1, 1)) * (drawn > 0)
    return (reference + mean_away).reshape(shape), error.reshape(shape)


def _assembled(game: TabularGame, counts: np.ndarray, blocks: list) -> SymmetrizedLaws:
    lead = (game.num_agents, game.horizon)
    means, errors = (
        np.moveaxis(np.array(part).reshape(*lead, *part[0].shape), (1, 2), (0, 4))
        for part in zip(*blocks, strict=True)
    )  # [N,H,n,S,A,S+1] -> [H,N,S,A,n,S+1]
    return SymmetrizedLaws(
        counts=counts,
        transition=means[..., :-1],
        reward=means[..., -1],
        transition_standard_error=errors[..., :-1],
        reward_standard_error=errors[..., -1],
    )


def _check_arguments(method: str, key: PRNGKeyArray | None, num_permutations: int) -> None:
    check_choice("method", method, METHODS)
    if key is not None:
        check_key("key", key)
    if method == "monte_carlo" and key is None:
        raise ValueError("method='monte_carlo' needs a key: pass key=jax.random.key(seed)")
    check_count("num_permutations", num_permutations, 2)


def _check_size(game: TabularGame, method: str, num_permutations: int) -> None:
    num_pairs, others = game.num_states * game.num_actions, game.num_agents - 1
    points = grid_size(num_pairs, others)
    laws = game.horizon * game.num_agents * num_pairs
    entries = laws * points * (game.num_states + 1)
    sampled = laws * points * num_permutations
    elsewhere = (
        "crowdnash.induced_game of a PopulationGame needs no grid, and a game that can only be "
        "asked can be learned from trajectories (crowdnash.solve)"
    )
    if entries > MAX_TABLE_ENTRIES:
        raise ValueError(
            f"num_agents = {game.num_agents} is too large for a table on the grid: {points:,} "
            f"distributions of the others over {num_pairs} pairs, {entries:.3g} entries of at most "
            f"{MAX_TABLE_ENTRIES:,}; {elsewhere}"
        )
    if method == "enumerate" and laws * num_pairs**others > MAX_QUERIES:
        raise ValueError(
            f"method='enumerate' would ask for {laws} * {num_pairs}^{others} laws, more than "
            f"{MAX_QUERIES:,}, with num_agents = {game.num_agents}: use method='monte_carlo' (at "
            f"most {sampled:,} with num_permutations = {num_permutations}); {elsewhere}"
        )
    profiles = points * num_permutations * others
    if method == "monte_carlo" and (sampled > MAX_QUERIES or profiles > MAX_TABLE_ENTRIES):
        raise ValueError(
            f"method='monte_carlo' would ask for up to {sampled:,} laws at {profiles:,} pairs of "
            f"others, more than {MAX_QUERIES:,} or {MAX_TABLE_ENTRIES:,}, with num_agents = "
            f"{game.num_agents} and num_permutations = {num_permutations}: use fewer permutations; "
            f"{elsewhere}"
        )


def _error_of_mean(errors: np.ndarray) -> np.ndarray:
    """Standard error of the mean over agents, axis 1, from independent ones."""
    return np.sqrt((errors**2).sum(1)) / errors.shape[1]
