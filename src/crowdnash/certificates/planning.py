"""Planning of the sampled certificate: mean models, best responses, own influence (Def. 2).

Everything here is computed from planning paths alone, so that the evaluation paths judge it
without bias.

Axes: n agents of a block, K population paths, B of them in one chunk, H steps, X = S*A pairs.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from crowdnash.certificates.influence import (
    Means,
    first_order,
    influence_aware_plan,
    largest_bonus,
    largest_share,
)
from crowdnash.certificates.path_values import Players, tabulate
from crowdnash.certificates.plans import MeanModel, best_values, expected_next, plan_against
from crowdnash.certificates.response import (
    Response,
    Slopes,
    agent_contributions,
    mean_contributions,
    population_response,
    slopes_at,
)
from crowdnash.certificates.result import SMALL_SHARE
from crowdnash.certificates.shared_paths import add_laws_on, devices_of_paths, simulate_on
from crowdnash.certificates.simulated import Paths, Watched, two_keys
from crowdnash.games.base import PopulationGame
from crowdnash.games.starts import double_start, mean_at_start, start_of
from crowdnash.policies.base import Policy
from crowdnash.simulation.devices import ALONE, Devices
from crowdnash.simulation.faults import explain_fault
from crowdnash.simulation.kept_play import simulate
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.rollouts import chunk_size, policy_layout
from crowdnash.simulation.samplers import ActionSampler, action_sampler

_SLOPE_PATHS = 16
_SLOPE_WORK = 8_000_000
_RESPONSE_WORK = 1_600_000
_PRICED_AGENTS = 256
SECOND_ORDER = 8.0
"""What first order leaves out, as a multiple of its own size times the share displaced."""


class Setting(NamedTuple):
    """What every stage of the sampled certificate works with."""

    game: PopulationGame
    policy: Policy
    layout: AgentLayout
    sampler: ActionSampler
    planning_key: Array
    evaluation_key: Array
    num_paths: int
    counted: Bool[np.ndarray, " n"] | None = None
    """Which of the agents examined the mean is about; None for all of them."""
    first_order: bool = True
    """Whether first order may be relied on at all."""
    devices: Devices = ALONE
    """Which share the paths."""

    @classmethod
    def of(
        cls,
        game: PopulationGame,
        policy: Policy,
        key: Array,
        num_paths: int,
        counted: Bool[np.ndarray, " n"] | None = None,
        mesh: Any = None,
    ) -> "Setting":
        """Split the key: one half plans, the other judges."""
        devices = devices_of_paths(mesh, num_paths, game.num_agents)
        layout = policy_layout(policy, game.num_agents)
        sampler = eqx.filter_jit(action_sampler)(policy, layout)
        planning, evaluation = two_keys(key)
        keys = (planning, evaluation)
        return cls(game, policy, layout, sampler, *keys, num_paths, counted, devices=devices)

    @property
    def felt(self) -> bool:
        """Whether anybody's transitions feel the others; without that there is no influence."""
        return self.game.transition_in_aggregate != "free"

    @property
    def prices_foresight(self) -> bool:
        """Whether foresight of the path is priced: exact laws, and a crowd that is not large."""
        laws = {self.game.transition_in_aggregate, self.game.reward_in_aggregate}
        return laws <= {"free", "affine"} and self.game.num_agents <= _PRICED_AGENTS

    def promised(self) -> Float[np.ndarray, "H S K N"] | None:
        """What every agent contributes on average in each state; None if it is not needed."""
        if not self.prices_foresight:
            return None
        game = self.game
        everyone = jnp.arange(game.num_agents, dtype=jnp.int32)
        sizes = (game.num_states, game.num_actions)
        acts = np.asarray(tabulate(game, self.policy, everyone)).reshape(game.horizon, *sizes, -1)
        table = np.asarray(agent_contributions(game, everyone))
        table = table.reshape(game.num_agents, *sizes, -1)
        return np.einsum("hsan,nsak->hskn", acts, table)

    def means(self, sums: np.ndarray, num_examined: int) -> np.ndarray:
        """Means over the agents that count, of sums over them."""
        return sums / (num_examined if self.counted is None else int(self.counted.sum()))

    @property
    def paths_at_once(self) -> int:
        """B: paths of a chunk, equally many for each device."""
        of_each = chunk_size(self.game.num_agents, self.num_paths, self.devices)
        return of_each * self.devices.size("trajectories")

    def chunks(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Numbers of the paths [B] of every chunk, and which of them count."""
        size = self.paths_at_once
        starts = range(0, self.num_paths, size)
        numbers = [np.arange(first, first + size, dtype=np.uint32) for first in starts]
        return [(n, n < self.num_paths) for n in numbers]

    def simulate(self, key: Array, numbers: np.ndarray, watched: Watched | None = None) -> Paths:
        """The paths of these numbers; names the fault if a reward is not a number."""
        watched = watched or Watched.nobody(self.game, len(numbers))
        known = (self.game, self.sampler, self.layout, key)
        paths = simulate_on(self.devices, *known, jnp.asarray(numbers), watched)
        if not np.isfinite(float(paths.rewards)):
            explain_fault(
                self.game,
                simulate(self.game, self.policy, key=key, num_trajectories=self.num_paths),
            )
        return paths


class Prepared(NamedTuple):
    """Plans of a block of agents, [n], and what own influence is to first order.

    `model` is the agents' mean model; `players` are whose values are computed on evaluation paths;
    `planned_gain` is what `players.planned` gains against frozen paths, by planning, and `gain`
    what `players.deviation` does, own influence included; `influence` what
    that adds to it, `base_influence` what it adds to the policy's own value; `largest` and `share`
    are those of `result.Influence`, and `first_order` says for whom first order is relied on.
    """

    agents: Int[np.ndarray, " n"]
    model: MeanModel
    players: Players
    planned_gain: Float[np.ndarray, " n"]
    gain: Float[np.ndarray, " n"]
    influence: Float[np.ndarray, " n"]
    base_influence: Float[np.ndarray, " n"]
    largest: Float[np.ndarray, " n"]
    share: Float[np.ndarray, " n"]
    first_order: Bool[np.ndarray, " n"]

    def at(self, columns: Int[np.ndarray, " m"]) -> "Prepared":
        """The same for some of the agents, as NumPy arrays."""
        return jax.tree_util.tree_map(lambda x: np.asarray(x)[..., columns], self)


def merged(parts: list[Prepared]) -> Prepared:
    """Several blocks' agents one after the other."""
    return jax.tree_util.tree_map(lambda *x: np.concatenate(x, axis=-1), *parts)


def mean_model(
    setting: Setting, agents: Int[np.ndarray, " n"]
) -> tuple[MeanModel, Float[np.ndarray, "H K p"]]:
    """The agents' laws averaged over the planning paths, and the paths' total contributions."""
    game, index = setting.game, jnp.asarray(agents, jnp.int32)
    pairs = game.num_states * game.num_actions
    shapes = ((game.horizon, pairs, game.num_states, len(index)), (game.horizon, pairs, len(index)))
    sums, totals = MeanModel(*(np.zeros(shape, np.float32) for shape in shapes)), []
    for numbers, active in setting.chunks():
        paths = setting.simulate(setting.planning_key, numbers)
        weight = jnp.asarray(active, jnp.float32)
        sums = add_laws_on(setting.devices, game, setting.layout, index, paths, weight, sums)
        totals.append(np.asarray(paths.totals, np.float32)[..., active])
    model = MeanModel(*(np.asarray(x) / np.float32(setting.num_paths) for x in sums))
    return model, np.concatenate(totals, axis=-1)


def response_sample(
    setting: Setting, agents: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " r"] | None:
    """From whom the population's response is estimated: a random sample, or None for `agents`.

    They serve themselves if they are all N, and these are few enough.
    """
    game = setting.game
    if not setting.felt:
        return None
    one = jnp.zeros(1, jnp.int32)
    units = eqx.filter_eval_shape(agent_contributions, game, one).shape[-1]
    most = _RESPONSE_WORK // (game.horizon * units * game.num_states)
    most = max(1, min(game.num_agents, most))
    if len(agents) == game.num_agents == most:
        return None
    return np.sort(np.random.default_rng(0).choice(game.num_agents, most, replace=False))


def response_of(
    setting: Setting, model: MeanModel, agents: Int[np.ndarray, " r"], totals: np.ndarray
) -> Response | None:
    """The population's linear response, from these agents; None if nobody feels the others."""
    if not setting.felt:
        return None
    game, index = setting.game, jnp.asarray(agents, jnp.int32)
    policy = np.asarray(tabulate(game, setting.policy, index))
    slopes = _slopes(game, index, totals)
    table = np.asarray(agent_contributions(game, index))
    start = np.asarray(start_of(game, index))
    return population_response(game, policy, model, slopes.transition, table, start)


def _slopes(game: PopulationGame, agents: Int[Array, " n"], totals: np.ndarray) -> Slopes:
    """Mean slopes of the agents' laws on some paths, fewer where a derivative is costly."""
    work = len(agents) * game.num_states**2 * game.num_actions
    most = int(np.clip(_SLOPE_WORK // work, 1, _SLOPE_PATHS))
    chosen = np.linspace(0, totals.shape[-1] - 1, min(most, totals.shape[-1])).astype(int)
    aggregates = jnp.asarray(totals[..., chosen] / game.num_agents, jnp.float32)
    return Slopes(*(np.asarray(x) for x in slopes_at(game, agents, aggregates)))


def prepare(
    setting: Setting,
    agents: Int[np.ndarray, " n"],
    model: MeanModel,
    totals: np.ndarray,
    response: Response | None,
) -> Prepared:
    """Plan for one block of agents."""
    game, index = setting.game, jnp.asarray(agents, jnp.int32)
    initial = double_start(game, agents)
    probs = np.asarray(tabulate(game, setting.policy, index))
    base, best = plan_against(model, probs), plan_against(model, None)
    gain, zero = best.start(initial) - base.start(initial), np.zeros(len(agents))
    if response is None:
        none = np.zeros_like(probs)
        players = Players(base, best.probs, best.probs, none, best.values, None)
        return Prepared(agents, model, players, gain, gain, zero, zero, zero, zero, zero == 0)
    slopes = _slopes(game, index, totals)
    table = np.asarray(agent_contributions(game, index))
    start = np.asarray(start_of(game, index))
    means = Means(table, mean_contributions(game, model, probs, table, start), start)
    known = (game, model, slopes, response, means)
    own = first_order(*known, probs).predicted.astype(np.float64)
    deviation, order = influence_aware_plan(*known, best)
    share = largest_share(game, response, means).astype(np.float64)
    bonus = largest_bonus(game, best, slopes, response, means)
    best_reached = best_values(MeanModel(model.transition, model.reward + bonus))
    reached = mean_at_start(initial, best_reached)
    influence = order.predicted - own
    return Prepared(
        agents,
        model,
        Players(
            base,
            best.probs,
            deviation.probs,
            (bonus * (1 + SECOND_ORDER * share)).astype(np.float32),
            best.values,
            None,
        ),
        gain,
        deviation.start(initial) - base.start(initial) + influence,
        influence,
        own,
        reached - best.start(initial),
        share,
        (share <= SMALL_SHARE) & setting.first_order,
    )


def frozen_gains(
    game: PopulationGame,
    agents: Prepared,
    probs: Float[np.ndarray, "H X m"],
    columns: Int[np.ndarray, " m"],
) -> Float[np.ndarray, " m"]:
    """What m policies of the agents at these columns gain in the mean model, in NumPy."""
    transition = agents.model.transition[..., columns].astype(np.float64)
    reward = agents.model.reward[..., columns].astype(np.float64)
    values = np.zeros((game.num_states, len(columns)))
    for h in reversed(range(game.horizon)):
        action_values = reward[h] + expected_next(np.asarray(transition[h]), values)
        weighted = probs[h] * action_values
        values = weighted.reshape(game.num_states, -1, len(columns)).sum(1)
    start = double_start(game, agents.agents[columns])
    return mean_at_start(start, values - agents.players.base.values[0][..., columns])
