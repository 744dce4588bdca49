"""A-RPS: rock-paper-scissors against the crowd, with heterogeneous payoffs and crowding."""

from typing import Any, ClassVar, Literal, NamedTuple, get_args

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from crowdnash.checks import check_choice
from crowdnash.games.base import PopulationGame
from crowdnash.games.parameters import (
    Heterogeneity,
    agent_array,
    distribution,
    draw_around,
    leading_axis,
)

ROCK, PAPER, SCISSORS = 0, 1, 2
_BEATEN_BY = (PAPER, SCISSORS, ROCK)
_BEATS = (SCISSORS, ROCK, PAPER)

Payoffs = Literal["printed", "cited"]


class RPSAgent(NamedTuple):
    """What tells agents apart: `crowding` [N], `loss` [N,3] and `win` [N,3] by own state."""

    crowding: Array
    loss: Array
    win: Array


class RockPaperScissors(PopulationGame):
    """A-RPS (Yardim & He, section 3 and E.2): states = actions = (R,P,S) = (0,1,2), s' = a.

    R^i(s,a) = -crowding_i * sigma_a(a) - loss_i[s] * sigma_s(what beats s)
               + win_i[s] * sigma_s(what s beats),
    with the state and action marginals sigma_s, sigma_a of the others' sigma(rho^-i): an agent is
    paid for the hand it shows now, its state, and crowds with those who choose the same next.

    Args:
        crowding: [N], finite, in reward per step.
        loss: [N,3], finite, in reward per step.
        win: [N,3], finite, in reward per step.
        horizon: H >= 1.
        initial_distribution: [3] (default uniform; the paper gives none).

    Raises:
        ValueError: a shape differs, a value is not finite, N < 2 or H < 1.
    """

    name: ClassVar[str] = "rock-paper-scissors"
    summary: ClassVar[str] = "A-RPS: rock-paper-scissors against the crowd, heterogeneous payoffs"
    transition_in_aggregate = "free"
    reward_in_aggregate = "affine"

    crowding: Float[Array, " N"]
    loss: Float[Array, "N 3"]
    win: Float[Array, "N 3"]
    initial_distribution: Float[Array, " 3"]
    horizon: int = eqx.field(static=True)
    num_states: ClassVar[int] = 3
    num_actions: ClassVar[int] = 3

    def __init__(
        self,
        crowding: Any,
        loss: Any,
        win: Any,
        horizon: int = 10,
        initial_distribution: Any = (1 / 3, 1 / 3, 1 / 3),
    ):
        size = leading_axis("crowding", crowding)
        self.crowding = agent_array("crowding", crowding, shape=size)
        self.loss = agent_array("loss", loss, shape=(*size, 3))
        self.win = agent_array("win", win, shape=(*size, 3))
        self.initial_distribution = distribution("initial_distribution", initial_distribution, 3)
        self.horizon = horizon

    @classmethod
    def sample(
        cls,
        key: PRNGKeyArray,
        *,
        num_agents: int = 2000,
        horizon: int = 10,
        heterogeneity: Heterogeneity = 0.1,
        crowding: float = 3.0,
        payoffs: Payoffs = "printed",
    ) -> "RockPaperScissors":
        """Draw every agent's payoffs uniformly from centre +- half-width.

        Noise on crowding and on payoffs adds up in beta: the paper's beta = 0.1 needs half-widths
        of 0.05.

        Args:
            key: decides the draw.
            num_agents: number of agents N >= 2.
            horizon: number of steps H >= 1.
            heterogeneity: half-width of all parameters, or one for each of crowding, loss, win
                (default 0.1 for a name left out).
            crowding: centre of the crowding cost; the paper gives none. The game is monotone
                along flows from 2.52753 up ("printed"), from 0.52753 up ("cited").
            payoffs: "printed" loses 2, 4, 6 and wins 1, 2, 3 as in the paper; "cited" swaps the
                two, as in the game that the paper cites.

        Raises:
            ValueError: a number is out of its range, or a draw would leave its parameter's
                range; the message names the argument, the rule and the value.
        """
        check_choice("payoffs", payoffs, get_args(Payoffs))
        large, small = (2.0, 4.0, 6.0), (1.0, 2.0, 3.0)
        loss, win = (large, small) if payoffs == "printed" else (small, large)
        centres = {"crowding": crowding, "loss": loss, "win": win}
        return cls(**draw_around(key, centres, heterogeneity, num_agents), horizon=horizon)

    @property
    def agents(self) -> RPSAgent:
        """The per-agent parameters."""
        return RPSAgent(self.crowding, self.loss, self.win)

    @property
    def state_names(self) -> tuple[str, ...]:
        """See `TabularGame.state_names`."""
        return ("rock", "paper", "scissors")

    @property
    def action_names(self) -> tuple[str, ...]:
        """See `TabularGame.action_names`."""
        return ("rock", "paper", "scissors")

    @property
    def reward_range(self) -> tuple[float, float]:
        """Crowding at its full plus the worst loss, to the best win (bounds, not always met)."""
        crowding = jnp.maximum(self.crowding, 0.0) + jnp.abs(jnp.minimum(self.crowding, 0.0))
        spread = jnp.maximum(jnp.abs(self.loss), jnp.abs(self.win)).max(1)
        low = -jnp.max(crowding + spread)
        return float(low), float(jnp.max(spread - jnp.minimum(self.crowding, 0.0)))

    def transition(
        self, agent: RPSAgent, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.transition`: the next state is the action."""
        return jnp.stack([jnp.where(action == k, 1.0, 0.0) for k in range(3)])

    def reward(
        self, agent: RPSAgent, state: Array, action: Array, aggregate: Array, step: Array
    ) -> Array:
        """See `PopulationGame.reward`; `aggregate` is sigma(rho^-i), [9]."""
        sigma = [[aggregate[3 * s + a] for a in range(3)] for s in range(3)]
        in_state = [sum(sigma[s]) for s in range(3)]
        crowd = [agent.crowding * (sigma[0][a] + sigma[1][a] + sigma[2][a]) for a in range(3)]
        payoff = [
            agent.win[s] * in_state[_BEATS[s]] - agent.loss[s] * in_state[_BEATEN_BY[s]]
            for s in range(3)
        ]
        return _pick(state, payoff) - _pick(action, crowd)


def _pick(index: Array, options: list[Array]) -> Array:
    return jnp.where(index == 0, options[0], jnp.where(index == 1, options[1], options[2]))
