"""A-Taxi: a fleet that has to share the streets of two zones.

Axes: N agents, P positions, C = P-1 zone cells, F features of an observation.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from crowdnash.checks import check_count, check_number
from crowdnash.games.base import DynamicGame
from crowdnash.games.parameters import agent_array, draw_around, leading_axis
from crowdnash.games.random_draws import in_one_kernel, threefry2x32, uniform
from crowdnash.games.taxi_map import PAPER_MAP, WAIT, TaxiMap, read_map

NO_PASSENGER = -1
_LANE = 2**16


class TaxiState(eqx.Module):
    """Joint state: `position` [N] in 0..P-1; `customers` [N], bit c set if one waits at cell c;
    `target` [N], the passenger's cell or -1 without one; the step h, a scalar.
    """

    position: Int[Array, " N"]
    customers: UInt32[Array, " N"]
    target: Int[Array, " N"]
    step: Int[Array, ""]


class TaxiEvents(NamedTuple):
    """All that is random in one step, each [N].

    `jam` in [0,1): a move fails if it is below the jam probability. `target` in [0,1): decides
    the passenger's target if there is a pick-up. `arrivals`: the cells, as bits, where a customer
    appears unless one waits there already.
    """

    jam: Float[Array, " N"]
    target: Float[Array, " N"]
    arrivals: UInt32[Array, " N"]


class Taxi(DynamicGame):
    """A-Taxi (Yardim & He, section 3 and E.2): actions (up, down, left, right, wait) = 0..4.

    All taxis start at S without passengers or customers. In one step, from positions at its start:

    1. a *move* from a cell fails with probability min(sum_j jam_weight_j 1[pos_j = pos_i],
       `jam_cap`), own weight included; one into a wall, the edge or the start leads nowhere;
    2. waiting on a customer's cell without a passenger takes the customer in, whose target is
       uniform over the other cells of the zone; waiting on the target delivers and pays
       `zone1_pay * zone1_multiplier_i` in zone 1, likewise in zone 2; waiting is never jammed;
    3. in every zone cell without a customer one appears with probability `arrival_probability`.

    Customers are private. On the paper's map S is the only way into both zones and cannot be
    entered, so the first move decides the zone for good.

    The paper leaves open what "equal state" means in a jam (position here), who sees a customer,
    the order of events, and the targets: see `docs/paper_map.md`.

    Args:
        jam_weight: [N] >= 0, finite.
        zone1_multiplier: [N] >= 0, finite.
        zone2_multiplier: [N] >= 0, finite.
        horizon: H >= 1.
        map_text: see `taxi_map.read_map`.
        customer_rate: in [0,1].
        zone1_pay: >= 0 and finite, reward per delivery.
        zone2_pay: likewise.
        jam_cap: in [0,1].

    Raises:
        ValueError: naming the argument, the rule and the value. An action outside 0..4 pays NaN,
            which simulators report with agent and step.
    """

    name: ClassVar[str] = "taxi"
    summary: ClassVar[str] = "A-Taxi: a fleet in two zones, private customers and traffic jams"

    jam_weight: Float[Array, " N"]
    zone1_multiplier: Float[Array, " N"]
    zone2_multiplier: Float[Array, " N"]
    horizon: int = eqx.field(static=True)
    map_text: str = eqx.field(static=True)
    customer_rate: float = eqx.field(static=True)
    zone1_pay: float = eqx.field(static=True)
    zone2_pay: float = eqx.field(static=True)
    jam_cap: float = eqx.field(static=True)
    num_actions: ClassVar[int] = 5

    def __init__(
        self,
        jam_weight: Any,
        zone1_multiplier: Any,
        zone2_multiplier: Any,
        horizon: int = 128,
        map_text: str = PAPER_MAP,
        customer_rate: float = 0.2,
        zone1_pay: float = 1.1,
        zone2_pay: float = 1.0,
        jam_cap: float = 0.7,
    ):
        rule: Any = {"shape": leading_axis("jam_weight", jam_weight), "low": 0.0}
        self.jam_weight = agent_array("jam_weight", jam_weight, **rule)
        self.zone1_multiplier = agent_array("zone1_multiplier", zone1_multiplier, **rule)
        self.zone2_multiplier = agent_array("zone2_multiplier", zone2_multiplier, **rule)
        self.horizon = horizon
        self.map_text = map_text
        self.customer_rate = customer_rate
        self.zone1_pay = zone1_pay
        self.zone2_pay = zone2_pay
        self.jam_cap = jam_cap

    def __check_init__(self):
        check_count("num_agents", self.num_agents, 2)
        check_count("horizon", self.horizon, 1)
        for name in ("customer_rate", "jam_cap"):
            check_number(name, getattr(self, name), least=0, most=1)
        for name in ("zone1_pay", "zone2_pay"):
            check_number(name, getattr(self, name), least=0)
        if (self.customer_rate > 0) != (self._arrivals_below > 0):
            raise ValueError(
                f"customer_rate must be 0 or at least 2^-17, not {self.customer_rate}: customers "
                "come with probabilities that are multiples of 2^-16"
            )
        if not isinstance(self.map_text, str):
            raise ValueError(f"map_text must be the drawing of a city, not {self.map_text!r}")
        read_map(self.map_text)

    @classmethod
    def sample(
        cls,
        key: PRNGKeyArray,
        *,
        num_agents: int = 1000,
        horizon: int = 128,
        heterogeneity: float | Mapping[str, float] = 0.1,
        total_weight: float = 10.0,
        customer_rate: float = 0.2,
        zone1_pay: float = 1.1,
        zone2_pay: float = 1.0,
        jam_cap: float = 0.7,
        map_text: str = PAPER_MAP,
    ) -> "Taxi":
        """Draw every agent's parameters uniformly from centre * (1 +- half-width).

        The paper gives neither weights nor multipliers; `total_weight` 10 lets 7% of the fleet
        jam a cell as much as it can be.

        Args:
            key: decides the draw.
            num_agents: number of agents N >= 2.
            horizon: number of steps H >= 1.
            heterogeneity: relative half-width of all parameters, or one for each of jam_weight,
                zone1_multiplier, zone2_multiplier (default 0.1 for a name left out).
            total_weight: N times the centre of the jam weights.
            customer_rate: probability that a customer appears in a free cell in one step.
            zone1_pay: reward of a delivery in zone 1, before the agent's multiplier.
            zone2_pay: the same in zone 2.
            jam_cap: the largest probability that a move fails.
            map_text: drawing of the city, see `taxi_map.read_map`.

        Raises:
            ValueError: a number is out of its range, or a draw would leave its parameter's
                range; the message names the argument, the rule and the value.
        """
        check_number("total_weight", total_weight)
        names = ("jam_weight", "zone1_multiplier", "zone2_multiplier")
        drawn = draw_around(key, dict.fromkeys(names, 1.0), heterogeneity, num_agents)
        return cls(
            drawn["jam_weight"] * jnp.asarray(total_weight / num_agents, jnp.float32),
            drawn["zone1_multiplier"],
            drawn["zone2_multiplier"],
            horizon,
            map_text,
            customer_rate,
            zone1_pay,
            zone2_pay,
            jam_cap,
        )

    @property
    def num_agents(self) -> int:
        """N, the length of the per-agent arrays."""
        return int(self.jam_weight.shape[0])

    @property
    def map(self) -> TaxiMap:
        """The city as tables."""
        return read_map(self.map_text)

    @property
    def num_features(self) -> int:
        """F = P + 2C + 1: 56 on the paper's map."""
        return 3 * self.map.num_positions - 1

    @property
    def arrival_probability(self) -> float:
        """`customer_rate` as it is drawn, rounded to a multiple of 2^-16: 13107/65536 for 0.2."""
        return self._arrivals_below / _LANE

    @property
    def _arrivals_below(self) -> int:
        return round(self.customer_rate * _LANE)

    @property
    def agent_features(self) -> Float[Array, "N 3"]:
        """What tells one agent from another: N * jam_weight and the two multipliers, [N,3]."""
        weight = self.jam_weight * self.num_agents
        return jnp.stack([weight, self.zone1_multiplier, self.zone2_multiplier], axis=1)

    @property
    def action_names(self) -> tuple[str, ...]:
        """One short name an action, for tables and pictures."""
        return ("up", "down", "left", "right", "wait")

    def reset(self, key: PRNGKeyArray) -> TaxiState:
        """All taxis at the start, no customers; nothing is drawn."""
        shape = (self.num_agents,)
        return TaxiState(
            position=jnp.full(shape, self.map.start, jnp.int32),
            customers=jnp.zeros(shape, jnp.uint32),
            target=jnp.full(shape, NO_PASSENGER, jnp.int32),
            step=jnp.asarray(0, jnp.int32),
        )

    def step(
        self, state: TaxiState, actions: Int[Array, " N"], key: PRNGKeyArray
    ) -> tuple[TaxiState, Float[Array, " N"]]:
        """See `DynamicGame.step`: `apply` with events drawn from `key`."""
        return self.apply(state, actions, self.draw_events(key))

    def draw_events(self, key: PRNGKeyArray) -> TaxiEvents:
        """Draw the random events of one step; agent i's depend on the key and i alone.

        A cell's arrival takes 16 bits, so two share a word (9 ns an agent for all events of the
        paper's map; bit by bit with `jax.random` 130 ns).
        """
        words = jax.random.bits(key, (2,), jnp.uint32)
        num_cells = self.map.num_positions - 1
        blocks = jnp.arange(1 + -(-num_cells // 4), dtype=jnp.uint32)[:, None]
        agents = jnp.arange(self.num_agents, dtype=jnp.uint32)
        pair = in_one_kernel(*threefry2x32((words[0], words[1]), (blocks, agents)))
        arrivals = jnp.zeros(self.num_agents, jnp.uint32)
        for cell in range(num_cells):
            block, lane = divmod(cell, 4)
            word = pair[lane // 2][1 + block]
            number = word >> jnp.uint32(16) if lane % 2 else word & jnp.uint32(_LANE - 1)
            appears = number < jnp.uint32(self._arrivals_below)
            arrivals = arrivals | (appears.astype(jnp.uint32) << jnp.uint32(cell))
        return TaxiEvents(uniform(pair[0][0]), uniform(pair[1][0]), arrivals)

    def apply(
        self, state: TaxiState, actions: Int[Array, " N"], events: TaxiEvents
    ) -> tuple[TaxiState, Float[Array, " N"]]:
        """The step that follows from `actions` and `events`, with nothing left to chance."""
        position, target = state.position, state.target
        jammed = events.jam < self.jam_probability(state)
        goal = jnp.asarray(self.map.destination)[position, actions]
        here = jnp.uint32(1) << position.astype(jnp.uint32)
        waits = actions == WAIT
        picks_up = waits & (target == NO_PASSENGER) & ((state.customers & here) != 0)
        delivers = waits & (target == position)

        left = jnp.where(picks_up, state.customers & ~here, state.customers)
        drawn = self._drawn_target(position, events.target)
        after = TaxiState(
            position=jnp.where(jammed, position, goal),
            customers=left | events.arrivals,
            target=jnp.where(picks_up, drawn, jnp.where(delivers, NO_PASSENGER, target)),
            step=state.step + 1,
        )
        paid = jnp.where(delivers, self._pay(position), 0.0)
        # A bad action must not pass for a good one.
        return after, jnp.where((actions >= 0) & (actions < self.num_actions), paid, jnp.nan)

    def jam_probability(self, state: TaxiState) -> Float[Array, " N"]:
        """The probability that a move of each agent fails, [N] in [0, jam_cap]."""
        positions = jnp.arange(self.map.num_positions, dtype=jnp.int32)[:, None]
        # Row sums: the fastest of five ways on a CPU, and the same on every run on a GPU.
        load = jnp.where(state.position == positions, self.jam_weight, 0.0).sum(1)
        return jnp.minimum(load, self.jam_cap)[state.position]

    def _drawn_target(
        self, position: Int[Array, " N"], number: Float[Array, " N"]
    ) -> Int[Array, " N"]:
        """Uniform over the other cells of the zone; the cells of a zone are numbered in a row."""
        first, second = self.map.zone_sizes
        in_first = position < first
        begin, others = jnp.where(in_first, 0, first), jnp.where(in_first, first, second) - 1
        chosen = begin + (number * others).astype(jnp.int32)
        return chosen + (chosen >= position)

    def _pay(self, position: Int[Array, " N"]) -> Float[Array, " N"]:
        return jnp.where(
            position < self.map.zone_sizes[0],
            self.zone1_pay * self.zone1_multiplier,
            self.zone2_pay * self.zone2_multiplier,
        )

    def observe(self, state: TaxiState) -> Float[Array, "N F"]:
        """What a taxi knows, [N,F], 0 or 1: itself and its customers, nobody else.

        In this order: one-hot position [P], customers in sight by cell [C], whether there is a
        passenger [1], one-hot target [C]. Policies are told the step beside it.
        """
        positions = jnp.arange(self.map.num_positions, dtype=jnp.int32)
        cells = positions[:-1]
        waiting = (state.customers[:, None] >> cells.astype(jnp.uint32)) & jnp.uint32(1)
        parts = (
            state.position[:, None] == positions,
            waiting,
            state.target[:, None] != NO_PASSENGER,
            state.target[:, None] == cells,
        )
        return jnp.concatenate([part.astype(jnp.float32) for part in parts], axis=1)

    def zone_of(self, state: TaxiState) -> Int[Array, " N"]:
        """Each agent's zone, [N]: 1 or 2, and 0 at the start."""
        return jnp.asarray(self.map.zone)[state.position]

    def zone_shares(self, state: TaxiState) -> Float[Array, " 3"]:
        """The share of agents at the start, in zone 1 and in zone 2 (Fig. 2b)."""
        zones = jnp.arange(3, dtype=jnp.int32)[:, None]
        return (self.zone_of(state) == zones).mean(1, dtype=jnp.float32)

    def statistics(self, state: TaxiState) -> dict[str, Float[Array, ""]]:
        """The zone shares by name: "zone_1_share", "zone_2_share"."""
        shares = self.zone_shares(state)
        return {"zone_1_share": shares[1], "zone_2_share": shares[2]}

    def snapshot(self, state: TaxiState) -> dict[str, Int[Array, " N"]]:
        """The "position" of every taxi."""
        return {"position": state.position}
