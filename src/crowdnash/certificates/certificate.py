"""N-player exploitability with confidence intervals (Def. 2).

    E^i(pi) = max_{pi'} J^i(pi', pi^-i) - J^i(pi)

Five methods. "enumerate": tiny games, the joint chain in full. "exact": agents that move
independently with rewards affine in the crowd. "paths": any `PopulationGame`; population paths
are simulated under the policy, against each path all agents' best responses are computed exactly,
and deviations are really played, for the others feel them. "learned": any simulator; a few agents
learn to deviate, which bounds their exploitability from below only. "estimated": any simulator in
which each agent observes its state; upper ends rest on laws estimated from play.

Axes: n agents examined (all N unless `agents` says otherwise), K population paths.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, PRNGKeyArray

from crowdnash.certificates.enumeration import can_enumerate, enumerate_values, enumeration_size
from crowdnash.certificates.estimated import estimated_exploitability
from crowdnash.certificates.estimated_game import check_can_be_estimated
from crowdnash.certificates.independent import independent_values, is_exact
from crowdnash.certificates.intervals import of_best_deviations
from crowdnash.certificates.learned import learned_exploitability
from crowdnash.certificates.mixtures import remembering
from crowdnash.certificates.origin import Origin
from crowdnash.certificates.outside_plan import plan_estimate, plan_outside
from crowdnash.certificates.path_values import tabulate
from crowdnash.certificates.paths import exploitability_on_paths
from crowdnash.certificates.ppo_deviations import LearningProgress, evenly_spread
from crowdnash.certificates.q_learning import OptimisticQLearning
from crowdnash.certificates.result import Exploitability, FrozenGains
from crowdnash.certificates.sampled_agents import exploitability_of_sample
from crowdnash.certificates.table_deviations import TableSearch
from crowdnash.checks import (
    check_choice,
    check_count,
    check_indices,
    check_instance,
    check_key,
    check_number,
    check_range,
)
from crowdnash.games.base import DynamicGame, PopulationGame, TabularGame
from crowdnash.games.declarations import check_declarations
from crowdnash.learners.ppo.learner import PPO
from crowdnash.policies.base import Policy, check_policy
from crowdnash.policies.mixture import PolicyMixture
from crowdnash.simulators.contract import Simulator
from crowdnash.simulators.game import OutsideGame, as_game

Method = Literal["auto", "paths", "exact", "enumerate", "learned", "estimated"]

_AUTO_JOINT, _AUTO_POLICIES = 200_000, 2_000_000
_AGENTS_THAT_LEARN = 4
_AGENT_STREAM = 0x5A9E11


def exploitability(
    game: DynamicGame | Simulator,
    policy: Policy | PolicyMixture,
    *,
    key: PRNGKeyArray,
    num_trajectories: int = 256,
    agents: Any = None,
    confidence: float = 0.95,
    own_influence_agents: int = 8,
    method: Method | str = "auto",
    learner: PPO | OptimisticQLearning | None = None,
    budget_steps: int | None = None,
    callback: Callable[[LearningProgress], Any] | None = None,
    reward_range: tuple[float | int, float | int] | None = None,
    mesh: Mesh | str | None = None,
) -> Exploitability:
    """Measure how much each agent could gain by deviating alone from `policy` (Def. 2).

    Args:
        game: The game, or a simulator outside JAX.
        policy: A `TabularPolicy`, a `FeaturePolicy`, a `NeuralPolicy` or any other `Policy` of the
            game's agents; of a `PopulationGame` also a `PolicyMixture`, whose deviations know
            nothing of what was drawn.
        key: Decides every draw.
        num_trajectories: K >= 2 population paths to evaluate on, and as many again to plan on.
            "learned": trajectories on which each learned deviation is played, as many before to
            choose. "estimated": on which each deviation is played; a game in JAX is played as often
            to estimate its laws.
        agents: Indices of the agents to examine, default all N ("learned": 4, evenly spread). An
            integer m >= 2 (method "paths"): the agents whom a coarse pass over everybody finds
            worst, for `maximum`, and m random ones, for the `mean` over all N, in whose interval
            their sampling error is. Method "learned": m random ones, who then speak for all N in
            `statement` and `gain_of_all_but`.
        confidence: In (0,1), of the intervals `maximum` and `mean`.
        own_influence_agents: For how many agents at most, those with the largest gain, deviations
            are really played (methods "paths" and "estimated"; 0 for none: lower ends are then
            predicted where own influence is small, and 0 where it is not, or with "estimated").
        method: "enumerate", "exact", "paths", "learned", "estimated", or "auto": "exact" if the
            game declares transitions free of the aggregate and rewards affine in it, "enumerate" if
            it is tiny, else "paths" for a `PopulationGame` and "learned" for any other. "estimated"
            is for a simulator whose agents observe one integer each and stay to the end; laws are
            regressed on play (`mean_field.game_from_play`) and certified, so that there are upper
            ends, which rest on that regression.
        learner: How deviations are learned by method "learned": settings of `PPO` (default
            `best_response_learner(game)`) or, for agents that observe one integer each,
            `OptimisticQLearning`. In a simulator outside JAX whose agents observe one integer each,
            tables are fitted to what the deviators went through, unless a learner is given.
        budget_steps: Simulators outside JAX: how many steps of the simulator may be played in all
            (by default 100,000), from which the number of epochs and of trajectories follow,
            `num_trajectories` at most. Not beside `learner`.
        callback: Method "learned", but by `OptimisticQLearning` in JAX: is told, before anything is
            played and as it goes on, how many steps of the game were played and how many will be in
            all. What it raises stops the evaluation.
        reward_range: Method "learned": the (lowest, highest) reward of an agent at one step, as
            `game.reward_range` declares it. Lower ends then hold for any number of plays (a bound
            by betting, Waudby-Smith and Ramdas 2024) and not for many alone.
        mesh: Devices of this process that share the paths (method "paths"): a mesh of axis
            "trajectories", or "auto" for all of them. The intervals are those of one device up to
            rounding. None: the default device.

    Returns:
        Gains and intervals; no end of an interval is below 0, which is what keeping to the policy
        gains. With "learned" all upper ends are infinite, `maximum.lower` bounds the largest
        exploitability of *all* agents from below, and `mean.lower` the mean over those examined.

    Raises:
        ValueError: The policy does not fit the game, an argument is out of range or the method
            does not apply to the game.
        GameError: The game pays a NaN, a transition is not a distribution, or what "exact" takes
            from the game's declarations is not true.
        SimulatorError: The simulator breaks its contract; names agent, step and seed.
    """
    game = as_game(game)
    check_key("key", key)
    if isinstance(policy, PolicyMixture):
        return _of_mixture(
            game,
            policy,
            key=key,
            num_trajectories=num_trajectories,
            agents=agents,
            confidence=confidence,
            own_influence_agents=own_influence_agents,
            method=method,
            learner=learner,
            budget_steps=budget_steps,
            callback=callback,
            reward_range=reward_range,
            mesh=mesh,
        )
    used = method_for(game, method)
    if agents is None and used == "learned":
        agents = evenly_spread(game.num_agents, _AGENTS_THAT_LEARN)
    sampled = _sampled(game, agents, used)
    if sampled:
        agents = _drawn(key, game.num_agents, sampled) if used == "learned" else None
    index = _check(game, policy, num_trajectories, agents, confidence, own_influence_agents)
    if learner is not None and used != "learned":
        raise ValueError(f"learner is for method='learned', not for {used!r}")
    if callback is not None and used != "learned":
        raise ValueError(f"callback is for method='learned', not for {used!r}")
    if learner is not None:
        check_instance("learner", learner, PPO, OptimisticQLearning)
    if reward_range is not None:
        check_range("reward_range", reward_range)
        if used != "learned":
            raise ValueError(f"reward_range is for method='learned', not for {used!r}")
    if mesh is not None and used != "paths":
        raise ValueError(f"mesh is for method 'paths', not for {used!r}")
    how: PPO | OptimisticQLearning | TableSearch | None = learner
    plan = None
    if used == "estimated":
        check_can_be_estimated(game)
        known = (num_trajectories, own_influence_agents, budget_steps)
        plan = plan_estimate(game, len(index), *known)
    elif isinstance(game, OutsideGame):
        how, num_trajectories = plan_outside(
            game, policy, len(index), num_trajectories, learner, budget_steps
        )
    if budget_steps is not None and not isinstance(game, OutsideGame):
        raise ValueError("budget_steps is for simulators outside JAX, and this game is none")
    if used == "paths":
        assert isinstance(game, PopulationGame)
        check_declarations(game)
    origin = Origin.of(game, policy, key, own_influence_agents, how, sampled)
    if used == "learned":
        certificate = learned_exploitability(
            game, policy, index, key, num_trajectories, confidence, how, callback, reward_range
        )
    elif plan is not None:
        certificate = estimated_exploitability(game, policy, index, key, plan, confidence)
    elif sampled:
        assert isinstance(game, PopulationGame)
        certificate = exploitability_of_sample(
            game, policy, key, num_trajectories, sampled, confidence, own_influence_agents, mesh
        )
    elif used == "paths":
        assert isinstance(game, PopulationGame)
        certificate = exploitability_on_paths(
            game,
            policy,
            key,
            num_trajectories,
            index,
            confidence,
            own_influence_agents,
            mesh=mesh,
        )
    else:
        assert isinstance(game, TabularGame)  # method_for has seen to it
        certificate = _without_sampling(game, policy, index, used, confidence)
    return replace(certificate, origin=origin)


def _of_mixture(game: DynamicGame, mixture: PolicyMixture, **arguments: Any) -> Exploitability:
    """The certificate of the game in which agents remember what they drew, told of `game`."""
    if not isinstance(game, PopulationGame):
        raise ValueError(f"a PolicyMixture needs a PopulationGame; {type(game).__name__} is not")
    for policy in mixture.policies:
        check_policy(game, policy)
    e = exploitability(*remembering(game, mixture), **arguments)
    influence = e.influence
    if influence is not None:
        # Deviations are the same whatever was drawn.
        own = influence.deviations[:, :, : game.num_states]
        influence = replace(influence, deviations=own)
    assert e.origin is not None  # it says of what the certificate is
    key, played, sampled = arguments["key"], e.origin.own_influence_agents, e.origin.sampled_agents
    origin = Origin.of(game, mixture, key, played, None, sampled)
    return replace(e, influence=influence, origin=origin)


def _sampled(game: DynamicGame, agents: Any, used: str) -> int:
    """How many agents are to be drawn at random; 0 if indices were given, or nothing."""
    if isinstance(agents, bool) or not isinstance(agents, int | np.integer):
        return 0
    check_count("agents", agents, 2)
    if used not in ("paths", "learned"):
        raise ValueError(
            f"agents={agents}, a number, is for methods 'paths' and 'learned', not {used!r}"
        )
    if agents > game.num_agents:
        raise ValueError(f"agents must be at most N = {game.num_agents}, not {agents}")
    return int(agents)


def _drawn(key: PRNGKeyArray, num_agents: int, count: int) -> Int[np.ndarray, " n"]:
    """Random agents, by a stream of their own."""
    seed = np.asarray(jax.random.key_data(key)).ravel()
    rng = np.random.default_rng([*seed, _AGENT_STREAM])
    return np.sort(rng.choice(num_agents, count, replace=False))


def _without_sampling(
    game: TabularGame,
    policy: Policy,
    index: Int[np.ndarray, " n"],
    used: str,
    confidence: float,
) -> Exploitability:
    if used == "exact":
        assert isinstance(game, PopulationGame)
        check_declarations(game)
        value, best = independent_values(game, policy)
    else:
        everyone = jnp.arange(game.num_agents, dtype=jnp.int32)
        tables = np.asarray(tabulate(game, policy, everyone))
        shape = (game.horizon, game.num_states, game.num_actions, game.num_agents)
        value, best = enumerate_values(game, np.moveaxis(tables.reshape(shape), -1, 0))
    return _exact(index, value, best, used, confidence)


def _exact(
    index: Int[np.ndarray, " n"],
    value: np.ndarray,
    best: np.ndarray,
    method: str,
    confidence: float,
) -> Exploitability:
    """What was not sampled. By "exact" nobody influences anybody: frozen figures are the same."""
    gain, zero = (best - value)[index], np.zeros(len(index))
    maximum, mean = (of_best_deviations(float(x), float(x)) for x in (gain.max(), gain.mean()))
    frozen = FrozenGains(value[index], gain, gain, zero, zero, maximum, mean)
    return Exploitability(
        agents=index,
        value=value[index],
        lower=gain,
        upper=gain,
        standard_error=zero,
        upper_standard_error=zero,
        maximum=maximum,
        mean=mean,
        confidence=confidence,
        method=method,
        num_trajectories=0,
        lower_kind=np.full(len(index), "exact"),
        upper_kind=np.full(len(index), "exact"),
        frozen=frozen if method == "exact" else None,
    )


def _check(
    game: DynamicGame,
    policy: Policy,
    num_trajectories: int,
    agents: Any,
    confidence: float,
    own_influence_agents: int,
) -> Int[np.ndarray, " n"]:
    check_count("num_trajectories", num_trajectories, 2)
    check_number("confidence", confidence, above=0, below=1)
    check_count("own_influence_agents", own_influence_agents, 0)
    everyone = np.arange(game.num_agents)
    index = everyone if agents is None else check_indices("agents", agents, game.num_agents)
    check_policy(game, policy)
    return index


def method_for(game: DynamicGame, method: str = "auto") -> str:
    """By which method a game's certificate is made (Def. 2).

    Args:
        game: The game.
        method: What was asked for; see `exploitability`.

    Raises:
        ValueError: There is no such method, or it does not apply to the game.
    """
    check_choice("method", method, get_args(Method))
    if method == "estimated":
        return method
    if not isinstance(game, TabularGame):
        if method in ("auto", "learned"):
            return "learned"
        raise ValueError(
            f"method={method!r} needs a TabularGame, whose laws can be queried; "
            f"{type(game).__name__} is only a simulator: use 'learned' or 'estimated'"
        )
    population = isinstance(game, PopulationGame)
    if method == "auto":
        joint, policies = enumeration_size(game)
        tiny = joint <= _AUTO_JOINT and policies <= _AUTO_POLICIES
        if is_exact(game):
            return "exact"
        if tiny or (not population and can_enumerate(game)):
            return "enumerate"
        return "paths" if population else "learned"
    if method == "exact" and not is_exact(game):
        raise ValueError(
            "method='exact' needs a PopulationGame with transition_in_aggregate 'free' and "
            f"reward_in_aggregate 'free' or 'affine'; {type(game).__name__} is not: use 'paths'"
        )
    if method == "paths" and not population:
        raise ValueError(
            f"method='paths' needs a PopulationGame; {type(game).__name__} is not: use "
            f"'enumerate' if it is tiny, else 'learned'"
        )
    return method
