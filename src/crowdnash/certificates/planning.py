"""Planning of the sampled certificate: mean models, best responses, own influence (Def. 2).

Everything here is computed from planning paths alone, so that the evaluation paths judge it
without bias.

Axes: n agents of a block, K population paths, B of them in one chunk, H steps, X = S*A pairs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from crowdnash.certificates.influence import (
    first_order,
    influence_aware_plan,
    largest_bonus,
    largest_share,
    mean_contributions,
)
from crowdnash.certificates.path_values import (
    MeanModel,
    Plan,
    Players,
    model_sums,
    plan_against,
    tabulate,
)
from crowdnash.certificates.response import (
    Response,
    agent_contributions,
    population_response,
    slopes_at,
)
from crowdnash.certificates.result import SMALL_SHARE
from crowdnash.games.base import PopulationGame
from crowdnash.policies.base import Policy
from crowdnash.simulation.faults import explain_fault
from crowdnash.simulation.layout import AgentLayout
from crowdnash.simulation.rollouts import MAX_LANES, policy_layout, simulate
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
    first_order: bool = True
    """Whether first order may be relied on at all."""

    @classmethod
    def of(cls, game: PopulationGame, policy: Policy, key: Array, num_paths: int) -> "Setting":
        """Split the key: one half plans, the other judges."""
        layout = policy_layout(policy, game.num_agents)
        sampler = action_sampler(policy, layout)
        planning, evaluation = jax.random.split(key)
        return cls(game, policy, layout, sampler, planning, evaluation, num_paths)

    @property
    def felt(self) -> bool:
        """Whether anybody's transitions feel the others; without that there is no influence."""
        return self.game.transition_in_aggregate != "free"

    @property
    def prices_foresight(self) -> bool:
        """Whether foresight of the path is priced: exact laws, and a crowd that is not large."""
        laws = {self.game.transition_in_aggregate, self.game.reward_in_aggregate}
        return laws <= {"free", "affine"} and self.game.num_agents <= _PRICED_AGENTS

    def promised(self) -> Float[Array, "H S K N"] | None:
        """What every agent contributes on average in each state; None if it is not needed."""
        if not self.prices_foresight:
            return None
        game = self.game
        everyone = jnp.arange(game.num_agents, dtype=jnp.int32)
        acts = tabulate(game, self.policy, everyone)
        acts = acts.reshape(game.horizon, game.num_states, game.num_actions, -1)
        table = agent_contributions(game, everyone)
        table = table.reshape(game.num_agents, game.num_states, game.num_actions, -1)
        return jnp.einsum("hsan,nsak->hskn", acts, table)

    def chunks(self, num_agents: int) -> list[tuple[Array, np.ndarray]]:
        """Numbers of the paths [B] of every chunk, and which of them count."""
        at_once = max(1, MAX_LANES // max(num_agents, self.game.num_agents))
        size = -(-self.num_paths // -(-self.num_paths // at_once))
        starts = range(0, self.num_paths, size)
        numbers = [np.arange(first, first + size, dtype=np.uint32) for first in starts]
        return [(jnp.asarray(n), n < self.num_paths) for n in numbers]

    def check(self, total_reward: Array, key: Array) -> None:
        """Name the fault if a simulated reward was not a number."""
        if not np.isfinite(float(total_reward)):
            explain_fault(
                self.game,
                simulate(self.game, self.policy, key=key, num_trajectories=self.num_paths),
            )


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
    index = jnp.asarray(agents, jnp.int32)
    sums, totals = None, []
    for numbers, active in setting.chunks(len(agents)):
        part, reward, total = model_sums(
            setting.game,
            setting.sampler,
            setting.layout,
            index,
            setting.planning_key,
            numbers,
            jnp.asarray(active),
        )
        setting.check(reward, setting.planning_key)
        sums = part if sums is None else jax.tree_util.tree_map(jnp.add, sums, part)
        totals.append(np.asarray(total)[..., active])
    assert sums is not None
    model = MeanModel(sums.transition / setting.num_paths, sums.reward / setting.num_paths)
    return model, np.concatenate(totals, axis=-1)


def response_of(
    setting: Setting, model: MeanModel, agents: np.ndarray, totals: np.ndarray
) -> Response | None:
    """The population's linear response; None if nobody's transitions feel the others.

    From all agents if `agents` are all and few enough, else from a random sample of them.
    """
    if not setting.felt:
        return None
    game = setting.game
    size = game.horizon * totals.shape[1] * game.num_states
    most = max(1, min(game.num_agents, _RESPONSE_WORK // size))
    if len(agents) != game.num_agents or most < game.num_agents:
        rng = np.random.default_rng(0)
        agents = np.sort(rng.choice(game.num_agents, most, replace=False))
        model, totals = mean_model(setting, agents)
    index = jnp.asarray(agents, jnp.int32)
    table = tabulate(game, setting.policy, index)
    slopes = slopes_at(game, index, _some_paths(game, totals, len(agents)))
    return population_response(game, index, table, model, slopes)


def _some_paths(game: PopulationGame, totals: np.ndarray, num_agents: int) -> Array:
    """Aggregates [H,K,p] on some paths, fewer where a derivative is costly."""
    work = num_agents * game.num_states**2 * game.num_actions
    most = int(np.clip(_SLOPE_WORK // work, 1, _SLOPE_PATHS))
    chosen = np.linspace(0, totals.shape[-1] - 1, min(most, totals.shape[-1])).astype(int)
    return jnp.asarray(totals[..., chosen] / game.num_agents, jnp.float32)


def prepare(
    setting: Setting,
    agents: Int[np.ndarray, " n"],
    model: MeanModel,
    totals: np.ndarray,
    response: Response | None,
) -> Prepared:
    """Plan for one block of agents."""
    game = setting.game
    index = jnp.asarray(agents, jnp.int32)
    probs = tabulate(game, setting.policy, index)
    base, best = plan_against(game, model, probs), plan_against(game, model, None)
    initial = np.asarray(game.initial_distribution, np.float64)

    def start(plan: Plan) -> np.ndarray:
        return initial @ np.asarray(plan.values[0], np.float64)

    zero = np.zeros(len(agents))
    if response is None:
        none = jnp.zeros_like(probs)
        players = Players(base, best.probs, best.probs, none, best.values, None)
        gain = start(best) - start(base)
        return Prepared(agents, model, players, gain, gain, zero, zero, zero, zero, zero == 0)
    slopes = slopes_at(game, index, _some_paths(game, totals, len(agents)))
    means = mean_contributions(game, model, probs, agent_contributions(game, index))
    known = (game, model, slopes, response, means)
    own = np.asarray(first_order(*known, probs).predicted, np.float64)
    deviation, order = influence_aware_plan(*known, best)
    share = np.asarray(largest_share(game, response, means), np.float64)
    bonus = largest_bonus(game, best, slopes, response, means)
    reached = plan_against(game, MeanModel(model.transition, model.reward + bonus), None)
    bonus = bonus * jnp.asarray(1 + SECOND_ORDER * share, jnp.float32)
    influence = np.asarray(order.predicted, np.float64) - own
    return Prepared(
        agents,
        model,
        Players(base, best.probs, deviation.probs, bonus, best.values, None),
        start(best) - start(base),
        start(deviation) - start(base) + influence,
        influence,
        own,
        start(reached) - start(best),
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
        action_values = reward[h] + np.einsum("xsm,sm->xm", transition[h], values)
        weighted = probs[h] * action_values
        values = weighted.reshape(game.num_states, -1, len(columns)).sum(1)
    initial = np.asarray(game.initial_distribution, np.float64)
    return initial @ (values - agents.players.base.values[0][..., columns])
