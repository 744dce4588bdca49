"""Policy mirror descent from simulated N-player trajectories (Algorithm 2), for any grouping.

One group is Symm-PMD, N groups of one are IPMD, anything between shares samples within groups.
An epoch has two stages: TD learning of the current policy's regularised Q-values (Algorithm 1),
and the mirror step

    pi_{t+1}(.|s)  ~  pi_t^(1 - tau xi_t) exp(xi_t q),     q = Q - tau H(pi_t),

optionally mixed with the uniform policy at weight 1/(t+1).

Axes: G groups, H steps, S states, A actions, N agents.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from crowdnash.checks import check_choice, check_count, check_flag, check_number, shown
from crowdnash.games.base import DynamicGame
from crowdnash.games.checks import states_for_tables
from crowdnash.games.grouping import Groups, assign_groups
from crowdnash.games.legal import LegalActions, legal_of_groups, uniform_over
from crowdnash.learners.automatic_step import AutomaticStep
from crowdnash.learners.base import Metrics, SharedLearner, StackedLearner, game_fingerprint
from crowdnash.learners.fitted import ResidualMemory
from crowdnash.learners.mirror_devices import mirror_devices, run_epoch_on, state_specs
from crowdnash.learners.mirror_epoch import epoch_of_many, epoch_size
from crowdnash.learners.mirror_outside import run_epoch_outside
from crowdnash.learners.mirror_state import (
    EpochMetrics,
    EpochNumbers,
    MirrorDescentState,
    epoch_key,
    epoch_metrics,
)
from crowdnash.learners.step_measurement import num_modes
from crowdnash.learners.temporal_difference import StepRule, TDStep, Weighting
from crowdnash.policies.base import Policy
from crowdnash.policies.features import (
    FeatureBasis,
    FeaturePolicy,
    Features,
    check_features,
    game_basis,
)
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.simulation.devices import ALONE, Devices, at_home
from crowdnash.simulation.kept_play import simulate
from crowdnash.simulation.layout import agent_layout
from crowdnash.simulation.rollouts import chunk_size
from crowdnash.simulators.game import OutsideGame


class PolicyMirrorDescent(
    StackedLearner[MirrorDescentState, EpochMetrics, Policy],
    SharedLearner[MirrorDescentState, EpochMetrics, Policy],
):
    """Algorithm 2; the defaults are the theorem's (Theorem 3), `practical` learns faster.

    Args:
        num_epochs: mirror steps T, at least 0.
        td_epochs: trajectories M for each policy evaluation, at least 1.
        temperature: weight tau >= 0 of the entropy bonus, in reward units; tau xi_t < 1.
        groups: who shares a policy: "symmetric" (all agents), "independent" (nobody), this many
            groups of similar agents, or a map [N] (see `assign_groups`).
        step_size: mirror-descent step xi_t: "theorem" for 1/sqrt(t+1), "auto" for one that is
            measured (see `AutomaticStep`; for evaluation="fitted"), or a constant > 0.
        mixing: whether pi_{t+1} is mixed with the uniform policy, with weight 1/(t+1).
        td_step_size: step-size rule of temporal-difference learning, see `StepRule.named`.
        td_delta: visitation probability that the theorem's rule takes, in (0, 1].
        td_weighting: what trajectories weigh, see `StepRule.named`.
        evaluation: how policies are evaluated: "td" is Algorithm 1; "fitted" takes the same data at
            once, in one backward sweep.
        representation: what is learned, beyond "td": "tables" for the groups; "features", one
            policy log-linear in functions of the agents' parameters; or "mixed", the same for Q
            with what each agent differs by, and a table for each agent.
        features: those functions: "linear", "quadratic" (for at most 8 parameters, else linear) or
            a function -> [N,d] of `game.agents`, or of these and the step.
        iterate: the policy that is recommended: the "average" of all iterates (the output of
            Algorithm 2), the "last" one, or "auto": the last if evaluation is "fitted".

    Raises:
        ValueError: naming the argument, the rule and the value.
    """

    metrics_class: ClassVar[type[Metrics]] = EpochMetrics

    num_epochs: int = 300
    td_epochs: int = 100
    temperature: float = 0.01
    groups: Groups = "symmetric"
    step_size: Literal["theorem", "auto"] | float = "theorem"
    mixing: bool = True
    td_step_size: TDStep = "adaptive"
    td_delta: float = 1.0
    td_weighting: Weighting = "trajectories"
    evaluation: Literal["td", "fitted"] | str = "td"
    representation: Literal["tables", "features", "mixed"] | str = "tables"
    features: Features | str = "quadratic"
    iterate: Literal["auto", "last", "average"] | str = "auto"

    def __check_init__(self):
        check_count("num_epochs", self.num_epochs, 0)
        check_count("td_epochs", self.td_epochs, 1)
        check_number("temperature", self.temperature, least=0.0)
        check_flag("mixing", self.mixing)
        check_choice("iterate", self.iterate, ("auto", "last", "average"))
        number = self.step_size
        if number not in ("theorem", "auto"):
            if isinstance(number, str | bool) or not isinstance(number, Real) or not number > 0:
                raise ValueError(f"step_size must be 'theorem', 'auto' or > 0, not {shown(number)}")
            check_number("step_size", number)
        largest = self._step_size(0)
        if self.temperature * largest >= 1:
            raise ValueError(
                "temperature * step_size must be below 1 for the mirror step: "
                f"{self.temperature} * {largest} = {self.temperature * largest}"
            )
        StepRule.named(self.td_step_size, 1, np.ones(1, np.int64), self.td_delta, self.td_weighting)
        self._check_evaluation()

    def _check_evaluation(self) -> None:
        check_choice("evaluation", self.evaluation, ("td", "fitted"))
        check_choice("representation", self.representation, ("tables", "features", "mixed"))
        check_features(self.features)
        if self.representation != "tables" and self.evaluation == "td":
            raise ValueError(
                f"representation={self.representation!r} needs evaluation='fitted': "
                "Algorithm 1 ('td') learns tables"
            )
        if self.step_size == "auto" and self.evaluation == "td":
            raise ValueError("step_size='auto' needs evaluation='fitted': 'td' is too noisy")
        if self.representation == "features":
            if self.mixing:
                raise ValueError(
                    "mixing must be False with representation='features': a log-linear policy "
                    "mixed with the uniform one is none"
                )
            if not isinstance(self.groups, str) or self.groups != "symmetric":
                raise ValueError(
                    "groups must be 'symmetric' with representation='features': the policy is of "
                    "the agents' parameters"
                )

    @classmethod
    def practical(
        cls,
        *,
        evaluation: Literal["td", "fitted"] | str = "fitted",
        representation: Literal["tables", "features", "mixed"] | str | None = None,
        groups: Groups | None = None,
        **changes: Any,
    ) -> "PolicyMirrorDescent":
        """The preset that learns best in our measurements.

        Fitted evaluation of a mixed model on 20 trajectories an epoch, a step that is measured, no
        mixing with the uniform policy, and the last iterate. Who names `groups` gets tables for
        them; with evaluation="td" it is Algorithm 1 for tables, on 100 trajectories, at a step of
        0.3.

        Args:
            evaluation: see the class.
            representation: see the class; None: "mixed", or "tables" where `groups` are given or
                evaluation is "td".
            groups: see the class; None: all agents are one group.
            **changes: any other argument of the class.

        Raises:
            ValueError: as the class.
            TypeError: a keyword that the class does not have.
        """
        fitted = evaluation != "td"
        preset: dict[str, Any] = {
            "evaluation": evaluation,
            "representation": representation
            or ("mixed" if fitted and groups is None else "tables"),
            "groups": "symmetric" if groups is None else groups,
            "td_epochs": 20 if fitted else 100,
            "step_size": "auto" if fitted else 0.3,
            "mixing": False,
            "iterate": "last",
        }
        return cls(**(preset | changes))

    @classmethod
    def presets(cls) -> Mapping[str, Callable[..., "PolicyMirrorDescent"]]:
        """See `Learner.presets`: "practical", and "theorem", the defaults of the class."""
        return {"practical": cls.practical, "theorem": cls}

    def check_suits(self, game: DynamicGame) -> None:
        """Make sure that tables can be made for the game, and groups of its agents.

        Raises:
            ValueError: the game has no `num_states` or its agents do not observe integers, or
                `groups` does not suit it (who shares a table must have the same legal actions).
        """
        states_for_tables(game)
        groups = assign_groups(game, self.groups)
        if self.representation == "tables":
            legal_of_groups(game, groups)

    def init(self, game: DynamicGame, *, key: PRNGKeyArray) -> MirrorDescentState:
        """The state before epoch 0: every group plays uniformly.

        Raises:
            ValueError: as `check_suits`.
        """
        num_states = states_for_tables(game)
        features = self._features(game)
        groups = assign_groups(game, self.groups if features is None else "independent")
        num_groups = int(groups.max()) + 1
        by_step = (game.horizon, num_states, game.num_actions)
        by_pair = (game.horizon, num_states * game.num_actions, num_groups)
        legal = legal_of_groups(game, groups)
        uniform = weights = kept = None
        if self.representation == "features":
            assert features is not None
            weights = jnp.zeros((*by_step, features.shape[-1]), jnp.float32)
        else:
            uniform = jnp.full((num_groups, *by_step), 1.0 / game.num_actions, jnp.float32)
            uniform = uniform_over(legal) if legal is not None else uniform
        if self.representation == "mixed":
            kept = ResidualMemory.empty(*by_pair)
        elif self.representation == "tables" and self.evaluation == "fitted":
            kept = jnp.zeros(by_pair, jnp.float32)
        automatic = before = None
        if self.step_size == "auto":
            modes = num_modes(features, num_groups, game.num_agents)
            automatic = AutomaticStep.start(modes, *by_step)
            before = weights if uniform is None else jnp.zeros_like(uniform)
        return MirrorDescentState(
            epoch=jnp.asarray(0, jnp.int32),
            log_probs=None if uniform is None else jnp.log(uniform),
            average=uniform,
            weights=weights,
            features=features,
            kept=kept,
            automatic=automatic,
            before=before,
            legal=legal,
            groups=jnp.asarray(groups, jnp.int32),
            fingerprint=game_fingerprint(game),
            key=jax.random.key_data(key),
            layout=agent_layout(groups, num_groups),
            rule=StepRule.named(
                self.td_step_size,
                game.horizon,
                np.bincount(groups),
                self.td_delta,
                self.td_weighting,
            ),
            key_impl=str(jax.random.key_impl(key)),
        )

    def _features(self, game: DynamicGame) -> Float[Array, "*H N d"] | None:
        """phi of the agents, None for tables."""
        if self.representation == "tables":
            return None
        if (
            self.representation == "mixed"
            and game.agent_features is None
            and not callable(self.features)
        ):
            warnings.warn(
                f"representation='mixed' without agent_features ({type(game).__name__} has none): "
                "each agent's values are drawn towards the mean of its group",
                stacklevel=4,
            )
            parameters = _indicators(assign_groups(game, self.groups))
            return jnp.asarray(FeatureBasis.of(parameters, 0)(parameters))
        basis, parameters = game_basis(game, self.features)
        return jnp.asarray(basis(parameters))

    def shared(
        self, game: DynamicGame, state: MirrorDescentState, mesh: Any
    ) -> tuple[Devices, DynamicGame, MirrorDescentState]:
        """See `SharedLearner.shared`.

        Raises:
            ValueError: the mesh has another axis, or one that does not suit the game.
        """
        devices = mirror_devices(game, state, mesh, self.td_epochs)
        return devices, devices.place(game), devices.place(state, state_specs(state, devices))

    def step(
        self, game: DynamicGame, state: MirrorDescentState, devices: Devices = ALONE
    ) -> tuple[MirrorDescentState, EpochMetrics]:
        """One epoch: TD learning of the current policy, then the mirror step.

        Raises:
            GameError: the game pays a NaN or a transition is not a distribution.
        """
        begun = time.perf_counter()
        epoch = int(state.epoch)
        numbers = self._numbers(epoch)
        if isinstance(game, OutsideGame):
            after = run_epoch_outside(game, state, numbers, self.td_epochs)
        else:
            size = epoch_size(game, state, self.td_epochs, devices)
            after = run_epoch_on(devices, game, state, numbers, size)
        state_after, *figures = after
        figures = jax.device_get(figures)
        if not np.isfinite(figures[0]):
            self._explain(*at_home((game, state)))
        agent_steps = self.td_epochs * game.horizon * game.num_agents
        seconds = time.perf_counter() - begun
        return state_after, epoch_metrics(epoch, figures, agent_steps, seconds)

    @property
    def steps_together(self) -> bool:
        """Only for tables: vectorised regressions can hang (jaxlib 0.10.2, a CPU of two cores)."""
        return self.representation == "tables"

    def step_together(
        self, games: DynamicGame, states: MirrorDescentState
    ) -> tuple[MirrorDescentState, tuple[EpochMetrics, ...]]:
        """`step` for R runs at once, in one vectorised program; see `solve_together`.

        Every array of `games` and `states` has a leading axis R; all runs are at the same epoch.
        The policies are those of `step` up to rounding. `seconds` is each run's equal share.

        Raises:
            GameError: as `step`.
        """
        begun = time.perf_counter()
        # Stacked games cannot be asked for N: they take R for it.
        num_runs, num_agents = states.groups.shape
        size = chunk_size(num_agents * num_runs, self.td_epochs)
        epoch = int(states.epoch[0])
        after, *figures = epoch_of_many(games, states, self._numbers(epoch), size)
        figures = jax.device_get(figures)
        for run in np.flatnonzero(~np.isfinite(figures[0])):
            self._explain(*jax.tree_util.tree_map(lambda x, k=run: x[k], (games, states)))
        seconds = (time.perf_counter() - begun) / num_runs
        agent_steps = self.td_epochs * games.horizon * num_agents
        metrics = [
            epoch_metrics(epoch, own, agent_steps, seconds) for own in zip(*figures, strict=True)
        ]
        return after, tuple(metrics)

    def _step_size(self, epoch: int) -> float:
        if isinstance(self.step_size, str):  # the state knows the automatic one
            return 1 / np.sqrt(epoch + 1) if self.step_size == "theorem" else 0.0
        return self.step_size

    def _numbers(self, epoch: int) -> EpochNumbers:
        return EpochNumbers(
            td_epochs=jnp.asarray(self.td_epochs, jnp.int32),
            temperature=jnp.float32(self.temperature),
            step_size=jnp.float32(self._step_size(epoch)),
            uniform_weight=jnp.float32(1 / (epoch + 1) if self.mixing else 0.0),
        )

    def policies(self, game: DynamicGame, state: MirrorDescentState) -> dict[str, Policy]:
        """The mean of pi_0..pi_t, "average" (the output of Algorithm 2), and pi_t, "last".

        For "features" the last alone, which is log-linear; an average is not. A state that lies on
        several devices is brought home first.
        """
        state = at_home(state)
        if state.weights is not None:
            assert state.features is not None
            basis, legal = game_basis(game, self.features)[0], LegalActions.of(game)
            return {"last": FeaturePolicy(state.weights, state.features, basis, legal)}
        both: dict[str, Policy] = {
            "average": TabularPolicy.grouped(state.average, state.groups),
            "last": TabularPolicy.grouped(state.probs, state.groups),
        }
        automatic = "last" if self.evaluation == "fitted" else "average"
        first = automatic if self.iterate == "auto" else self.iterate
        return {first: both[first]} | both

    def summary(self) -> str:
        """Who shares a policy."""
        if self.representation != "tables":
            words = {"features": "one policy of the agents' parameters", "mixed": "mixed model"}
            return words[self.representation]
        if isinstance(self.groups, str):
            words = {"symmetric": "one shared policy", "independent": "one policy per agent"}
            return words[self.groups]
        sizes = np.asarray(self.groups)
        return f"{int(sizes if sizes.ndim == 0 else sizes.max() + 1)} groups"

    def _explain(self, game: DynamicGame, state: MirrorDescentState) -> None:
        """Play the failed epoch again where the fault can be named."""
        last = self.policies(game, state)["last"]
        simulate(game, last, key=epoch_key(state), num_trajectories=self.td_epochs)
        raise FloatingPointError("the mean return of an epoch is not a finite number")


def _indicators(groups: Int[np.ndarray, " N"]) -> Float[np.ndarray, "N G"]:
    """1 in the column of an agent's group."""
    return np.eye(int(groups.max()) + 1)[groups]
