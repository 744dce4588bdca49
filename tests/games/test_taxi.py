"""A-Taxi: maps, hand-played episodes, the law of its random events, an obvious twin."""

import itertools
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crowdnash.games.conformance.check import check_game
from crowdnash.games.taxi import Taxi, TaxiEvents, TaxiState
from crowdnash.games.taxi_map import PAPER_MAP, read_map
from taxi_reference import ReferenceTaxi

KEY = jax.random.key(0)
UP, DOWN, LEFT, RIGHT, WAIT = range(5)
START = 18
MANY = 4000
# A map whose zones touch, so that taxis cross; cells 0-5 are zone 1, 6-12 zone 2, S is 13.
CROSSED = """
    1122
    1#S2
    1122
    1#22
"""
CELLS = {"zone 1": range(9), "zone 2": range(9, 18)}


def taxi(n=2, **changes):
    """n taxis that never jam, with plain pays."""
    parts: Any = {
        "jam_weight": np.zeros(n),
        "zone1_multiplier": np.ones(n),
        "zone2_multiplier": np.ones(n),
    }
    return Taxi(**(parts | changes))


def at(position: Any, n: int = 2, customers: Any = 0, target: Any = -1, step: int = 0):
    """A joint state, given for all taxis alike or one by one."""
    whole = [np.broadcast_to(np.asarray(x), (n,)) for x in (position, customers, target)]
    return TaxiState(
        jnp.asarray(whole[0], jnp.int32),
        jnp.asarray(whole[1], jnp.uint32),
        jnp.asarray(whole[2], jnp.int32),
        jnp.asarray(step, jnp.int32),
    )


def events(n: int = 2, jam: Any = 0.999, target: Any = 0.0, arrivals: Any = 0):
    parts = [np.broadcast_to(np.asarray(x), (n,)) for x in (jam, target, arrivals)]
    return TaxiEvents(
        jnp.asarray(parts[0], jnp.float32),
        jnp.asarray(parts[1], jnp.float32),
        jnp.asarray(parts[2], jnp.uint32),
    )


@eqx.filter_jit
def apply(game, state, actions, happening):
    return game.apply(state, actions, happening)


def act(game, state, actions, **happening):
    """One step; `actions` for all taxis alike or one by one."""
    n = game.num_agents
    actions = jnp.broadcast_to(jnp.asarray(actions, jnp.int32), (n,))
    return apply(game, state, actions, events(n, **happening))


# --- the map ---


def test_the_papers_map():
    city = read_map(PAPER_MAP)
    assert (city.num_positions, city.start, city.zone_sizes) == (19, START, (9, 9))
    assert city.walls.shape == (7, 3)
    np.testing.assert_array_equal(np.argwhere(city.walls), [[3, 0], [3, 2]])
    np.testing.assert_array_equal(city.cells[[0, 4, 8, 9, 17, START]],
                                  [[0, 0], [1, 1], [2, 2], [4, 0], [6, 2], [3, 1]])  # fmt: skip
    np.testing.assert_array_equal(city.zone, [1] * 9 + [2] * 9 + [0])
    # From S only up and down; the cells above and below it do not lead back; corners are corners.
    np.testing.assert_array_equal(city.destination[START], [7, 10, START, START, START])
    np.testing.assert_array_equal(city.destination[7], [4, 7, 6, 8, 7])
    np.testing.assert_array_equal(city.destination[10], [10, 13, 9, 11, 10])
    np.testing.assert_array_equal(city.destination[0], [0, 3, 0, 1, 0])
    np.testing.assert_array_equal(city.destination[17], [14, 17, 16, 17, 17])
    np.testing.assert_array_equal(city.destination[6], [3, 6, 6, 7, 6])  # a wall below


def test_a_map_of_ones_own():
    city = read_map(CROSSED)
    np.testing.assert_array_equal(city.zone, [1] * 6 + [2] * 7 + [0])
    np.testing.assert_array_equal(
        city.cells[:7], [[0, 0], [0, 1], [1, 0], [2, 0], [2, 1], [3, 0], [0, 2]]
    )
    np.testing.assert_array_equal(city.destination[1], [1, 1, 0, 6, 1])  # right: into zone 2
    np.testing.assert_array_equal(city.destination[city.start], [6, 9, 13, 8, 13])
    with pytest.raises(ValueError, match="read-only"):
        city.zone[0] = 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "map_text must have one start 'S', not 0"),
        ("11\n22", "map_text must have one start 'S', not 0"),
        ("11S\n22S", "one start 'S', not 2: row 0, column 2, row 1, column 2"),
        ("11S22\n11", "rows of equal length: row 0 has 5 cells, row 1 has 2"),
        ("11S\n2X2", "map_text must consist of 12#S, not 'X' at row 1, column 1"),
        ("11 S22", "map_text must consist of 12#S, not ' ' at row 0, column 2"),
        ("11S2", "zone 2 must have at least 2 cells, so that a customer has somewhere to go, not "
                 "1 (row 0, column 3)"),
        ("S22", "zone 1 must have at least 2 cells, so that a customer has somewhere to go, not 0"),
        ("11S22#2", "the cell at row 0, column 6 cannot be reached from the start"),
        ("11#S22", "the cell at row 0, column 0 cannot be reached from the start"),
        ("11S11\n##2##\n##2##", "the cells of zone 1 must reach each other without the start; "
                                "row 0, column 0 and row 0, column 3 do not"),
        ("1" * 16 + "S" + "2" * 16, "map_text must have at most 31 zone cells, not 32"),
    ],
)  # fmt: skip
def test_bad_maps(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        taxi(map_text=text)


# --- hand-played episodes ---


def test_start():
    state = taxi(3).reset(KEY)
    np.testing.assert_array_equal(state.position, [START] * 3)
    np.testing.assert_array_equal(state.customers, [0] * 3)
    np.testing.assert_array_equal(state.target, [-1] * 3)
    assert int(state.step) == 0


def test_a_ride_by_hand():
    """Taxi 0 works in zone 1, taxi 1 in zone 2; both pick up, drive and deliver."""
    game = taxi(zone1_multiplier=[1.05, 0.9], zone2_multiplier=[0.8, 0.95])
    # Leave S, up to cell 7 and down to cell 10; there, a customer appears for each.
    state, paid = act(game, game.reset(KEY), [UP, DOWN], arrivals=[1 << 7, 1 << 10])
    np.testing.assert_array_equal(state.position, [7, 10])
    np.testing.assert_array_equal(state.customers, [1 << 7, 1 << 10])
    np.testing.assert_array_equal(paid, [0, 0])
    # Take them in. The other cells of zone 1 are 0-6 and 8: the 7th is 6, the 8th is 8. Those of
    # zone 2 are 9 and 11-17: the first is 9. A new customer for taxi 1 appears in the same cell.
    state, paid = act(game, state, WAIT, target=[6 / 8, 0.0], arrivals=[0, 1 << 10])
    np.testing.assert_array_equal(state.target, [6, 9])
    np.testing.assert_array_equal(state.customers, [0, 1 << 10])
    np.testing.assert_array_equal(paid, [0, 0])
    # Waiting with a passenger away from the target does nothing, customer or not.
    same, paid = act(game, state, WAIT)
    np.testing.assert_array_equal(same.target, [6, 9])
    np.testing.assert_array_equal(same.customers, [0, 1 << 10])
    np.testing.assert_array_equal(paid, [0, 0])
    # Both targets are one cell to the left; to arrive is not to deliver.
    state, paid = act(game, same, LEFT, arrivals=[0, 1 << 9])
    np.testing.assert_array_equal(state.position, [6, 9])
    np.testing.assert_array_equal(paid, [0, 0])
    # Deliver: 1.1 * 1.05 and 1.0 * 0.95. The customer at the target is not picked up meanwhile.
    state, paid = act(game, state, WAIT)
    np.testing.assert_allclose(paid, [1.155, 0.95], rtol=1e-6)
    np.testing.assert_array_equal(state.target, [-1, -1])
    np.testing.assert_array_equal(state.customers, [0, 1 << 9 | 1 << 10])
    # Nobody is paid twice; taxi 1 now takes the next one in: the last other cell is 17.
    state, paid = act(game, state, WAIT, target=0.999)
    np.testing.assert_array_equal(paid, [0, 0])
    np.testing.assert_array_equal(state.target, [-1, 17])
    np.testing.assert_array_equal(state.customers, [0, 1 << 10])
    assert int(state.step) == 6


def test_pays_can_be_set():
    game = taxi(zone1_pay=3.0, zone2_pay=5.0, zone1_multiplier=[2, 2], zone2_multiplier=[1, 1])
    _, paid = act(game, at([0, 9], target=[0, 9]), WAIT)
    np.testing.assert_allclose(paid, [6.0, 5.0])


@pytest.mark.parametrize(
    ("position", "action", "goal"),
    [
        (START, UP, 7), (START, DOWN, 10), (START, LEFT, START), (START, RIGHT, START),
        (START, WAIT, START),
        (7, DOWN, 7), (10, UP, 10),  # S cannot be entered again
        (6, DOWN, 6), (8, DOWN, 8), (9, UP, 9), (11, UP, 11),  # walls
        (1, UP, 1), (3, LEFT, 3), (5, RIGHT, 5), (16, DOWN, 16),  # edges
        (4, UP, 1), (4, DOWN, 7), (4, LEFT, 3), (4, RIGHT, 5), (4, WAIT, 4),
    ],
)  # fmt: skip
def test_where_actions_lead(position, action, goal):
    game = taxi()
    state, paid = act(game, at([position, 0]), [action, WAIT])
    np.testing.assert_array_equal(state.position, [goal, 0])
    np.testing.assert_array_equal(paid, [0, 0])


def test_a_jam_stops_moves_and_nothing_else():
    """Two taxis of weight 0.2 in one cell: moves fail below 0.4, own weight counted."""
    game = taxi(3, jam_weight=[0.2, 0.2, 0.3])
    state = at([4, 4, 13], 3, customers=1 << 4 | 1 << 13)
    np.testing.assert_allclose(game.jam_probability(state), [0.4, 0.4, 0.3], rtol=1e-6)
    after, _ = act(game, state, UP, jam=[0.39, 0.41, 0.31])
    np.testing.assert_array_equal(after.position, [4, 1, 10])
    after, _ = act(game, state, WAIT, jam=0.0)  # a pick-up is no move
    np.testing.assert_array_equal(after.target >= 0, [True] * 3)
    _, paid = act(game, at([4, 4, 13], 3, target=[4, 4, 13]), WAIT, jam=0.0)
    assert (np.asarray(paid) > 0).all()


def test_jams_are_capped():
    state = at([4, 4, 4], 3)
    weights = {"jam_weight": [0.5, 0.5, 0.2]}
    np.testing.assert_allclose(taxi(3, **weights).jam_probability(state), [0.7] * 3, rtol=1e-6)
    capped = taxi(3, jam_cap=0.25, **weights)
    np.testing.assert_allclose(capped.jam_probability(state), [0.25] * 3, rtol=1e-6)
    free = taxi(3, jam_cap=0.0, **weights)
    after, _ = act(free, state, UP, jam=0.0)
    np.testing.assert_array_equal(after.position, [1] * 3)


def test_an_unknown_action_pays_nan():
    _, paid = act(taxi(3), at([4, 4, 4], 3), [5, -1, UP])
    np.testing.assert_array_equal(np.isnan(paid), [True, True, False])


# --- the law of the random events ---


@pytest.fixture(scope="module")
def many():
    """4000 taxis, a weight of 1/4000 each."""
    return taxi(MANY, jam_weight=np.full(MANY, 1 / MANY))


@pytest.fixture(scope="module")
def drawn(many):
    """Events of 25 steps, [25,4000]."""
    draw = jax.jit(jax.vmap(lambda key: many.draw_events(key)))
    return jax.tree_util.tree_map(np.asarray, draw(jax.random.split(KEY, 25)))


def test_customers_appear_at_the_stated_rate(many, drawn):
    assert many.arrival_probability == 13107 / 65536
    assert abs(many.arrival_probability - 0.2) < 1e-5
    appears = (drawn.arrivals[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    assert not appears[..., 18:].any()
    n = appears[..., 0].size
    error = np.sqrt(0.2 * 0.8 / n)
    assert np.abs(appears[..., :18].mean((0, 1)) - 0.2).max() < 4 * error
    # Cells, steps and taxis are independent of each other, and of the other two events.
    by_cell = appears[..., :18].reshape(n, 18).T
    correlation = np.corrcoef(np.concatenate([by_cell, drawn.jam.reshape(1, n),
                                              drawn.target.reshape(1, n)]))  # fmt: skip
    assert np.abs(correlation - np.eye(20)).max() < 5 / np.sqrt(n)
    count = appears[..., :18].sum(-1)  # binomial (18, 0.2): variance 2.88
    assert abs(count.var() - 2.88) < 4 * 2.88 * np.sqrt(2.2 / n)
    for axis in (0, 1):
        lined_up = np.moveaxis(count, axis, 0)
        first, second = lined_up[:-1].ravel(), lined_up[1:].ravel()
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(first.size)


@pytest.mark.parametrize(("rate", "exact"), [(0.0, 0.0), (1.0, 1.0), (0.3, 19661 / 65536)])
def test_other_rates(rate, exact):
    game = taxi(MANY, customer_rate=rate)
    assert game.arrival_probability == exact
    bits = np.asarray(eqx.filter_jit(game.draw_events)(KEY).arrivals)
    shares = ((bits[:, None] >> np.arange(18, dtype=np.uint32)) & 1).mean(0)
    assert np.abs(shares - rate).max() <= 4 * np.sqrt(rate * (1 - rate) / MANY)


def test_numbers_are_uniform(drawn):
    for numbers in (drawn.jam, drawn.target):
        numbers = numbers.astype(np.float64)
        assert 0 <= numbers.min() <= numbers.max() < 1
        counts = np.bincount((numbers * 64).astype(int).ravel(), minlength=64)
        chi_square = ((counts - numbers.size / 64) ** 2 / (numbers.size / 64)).sum()
        assert abs(chi_square - 63) < 4 * np.sqrt(2 * 63)


def test_an_agents_events_do_not_depend_on_how_many_play(many):
    few = eqx.filter_jit(taxi(6).draw_events)(KEY)
    for one, all_of_them in zip(few, eqx.filter_jit(many.draw_events)(KEY), strict=True):
        np.testing.assert_array_equal(one, all_of_them[:6])


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_moves_fail_as_often_as_stated(many, share):
    """A share of the taxis, total weight likewise, stands in cell 4 and moves up; cap 0.7."""
    crowd = int(share * MANY)
    state = at(np.where(np.arange(MANY) < crowd, 4, START), MANY)
    step = eqx.filter_jit(lambda game, *rest: game.step(*rest))
    after, _ = step(many, state, jnp.full(MANY, UP, jnp.int32), jax.random.key(3))
    stays = np.asarray(after.position[:crowd] == 4)
    expected = min(share, 0.7)
    assert abs(stays.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / crowd)


@pytest.mark.parametrize("position", [0, 4, 8, 9, 12, 17])
def test_targets_are_uniform_over_the_other_cells_of_the_zone(many, drawn, position):
    state = at(position, MANY, customers=1 << position)
    after, _ = act(many, state, WAIT, target=drawn.target[0])
    counts = np.bincount(np.asarray(after.target), minlength=18)
    zone = CELLS["zone 1"] if position < 9 else CELLS["zone 2"]
    others = [cell for cell in zone if cell != position]
    assert counts[others].sum() == MANY
    chi_square = ((counts[others] - MANY / 8) ** 2 / (MANY / 8)).sum()
    assert abs(chi_square - 7) < 4 * np.sqrt(2 * 7)


def test_customers_fill_free_zone_cells_only():
    """None at the start; after a step as many as arrived; a cell holds one at most."""
    game = taxi(3)
    seen = np.asarray(game.observe(game.reset(KEY)))[:, 19:37]
    assert not seen.any()
    state, _ = act(game, game.reset(KEY), WAIT, arrivals=[0b11, 1 << 17, 0])
    np.testing.assert_array_equal(state.customers, [0b11, 1 << 17, 0])
    state, _ = act(game, state, WAIT, arrivals=[0b110, 1 << 17, 1])
    np.testing.assert_array_equal(state.customers, [0b111, 1 << 17, 1])


# --- an obvious twin, replaying the same events ---


@pytest.mark.parametrize("text", [PAPER_MAP, CROSSED], ids=["paper", "crossed"])
def test_agrees_with_the_reference(text):
    n, steps = 12, 200
    game = Taxi.sample(KEY, num_agents=n, horizon=steps, heterogeneity=0.5, total_weight=2.0,
                       map_text=text)  # fmt: skip
    pays = (1.1 * game.zone1_multiplier, 1.0 * game.zone2_multiplier)
    weights, pay1, pay2 = (np.asarray(x).tolist() for x in (game.jam_weight, *pays))
    twin = ReferenceTaxi(text, weights, pay1, pay2, 0.7)
    draw, advance = eqx.filter_jit(game.draw_events), eqx.filter_jit(game.apply)
    generator = np.random.default_rng(1)
    state, deliveries, crossings = game.reset(KEY), 0, 0
    for h in range(steps):
        actions = _sensible_actions(twin, generator)
        happening = draw(jax.random.fold_in(KEY, h))
        zones = np.asarray(game.zone_of(state))
        state, paid = advance(state, jnp.asarray(actions, jnp.int32), happening)
        bits = np.asarray(happening.arrivals).tolist()
        arrivals = [{c for c in range(31) if word >> c & 1} for word in bits]
        expected = twin.step(
            actions, np.asarray(happening.jam), np.asarray(happening.target), arrivals
        )
        for found, wanted in zip((state.position, state.customers, state.target), twin.state(),
                                 strict=True):  # fmt: skip
            np.testing.assert_array_equal(found, wanted)
        np.testing.assert_allclose(paid, expected, rtol=1e-6)
        deliveries += int((np.asarray(paid) > 0).sum())
        crossings += int(((zones > 0) & (zones != np.asarray(game.zone_of(state)))).sum())
    assert deliveries > 100  # or the comparison would say little
    assert (crossings > 0) == (text == CROSSED)


def _sensible_actions(twin, generator):
    """Random moves, but a taxi waits where that does something and often heads for its target."""
    actions = generator.integers(0, 5, len(twin.cell)).tolist()
    for i, (cell, target) in enumerate(zip(twin.cell, twin.target, strict=True)):
        useful = cell == target or (target is None and cell in twin.customers[i])
        if useful and generator.random() < 0.9:
            actions[i] = WAIT
        elif target is not None and cell[0] != target[0] and generator.random() < 0.5:
            actions[i] = UP if target[0] < cell[0] else DOWN
        elif target is not None and cell[1] != target[1] and generator.random() < 0.5:
            actions[i] = LEFT if target[1] < cell[1] else RIGHT
    return actions


# --- the contract of a DynamicGame ---


@pytest.fixture(scope="module")
def game():
    return Taxi.sample(jax.random.key(5), num_agents=12, horizon=10)


def test_conformance(game):
    check_game(game)


def test_conformance_at_full_size():
    check_game(Taxi.sample(KEY))


def some_state(game):
    """A joint state in which everything happens: after random play."""
    state = at(np.arange(12) % 5, 12, customers=np.arange(12) * 37,
               target=np.where(np.arange(12) % 2, np.arange(12) % 5, -1), step=3)  # fmt: skip
    return state, jnp.asarray(np.arange(12) % 5, jnp.int32)


def test_jit_changes_nothing(game):
    state, actions = some_state(game)
    for key in jax.random.split(KEY, 3):
        plain = game.step(state, actions, key)
        compiled = eqx.filter_jit(game.step)(state, actions, key)
        for a, b in zip(*map(jax.tree_util.tree_leaves, (plain, compiled)), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(game.observe(state), eqx.filter_jit(game.observe)(state))


def test_relabelling_taxis_relabels_the_outcome(game):
    state, actions = some_state(game)
    happening = game.draw_events(KEY)
    order = np.random.default_rng(0).permutation(12)

    def relabelled(tree):
        return jax.tree_util.tree_map(lambda x: x[order] if x.ndim else x, tree)

    after, paid = game.apply(state, actions, happening)
    other, other_paid = relabelled(game).apply(*map(relabelled, (state, actions, happening)))
    np.testing.assert_array_equal(other_paid, paid[order])
    for a, b in zip(*map(jax.tree_util.tree_leaves, (other, relabelled(after))), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(game.observe(relabelled(after)), game.observe(after)[order])


def play(game, key):
    """Positions [H,N] and rewards [H,N] of random play."""

    def advance(state, h):
        act_key, step_key = jax.random.split(jax.random.fold_in(key, h))
        actions = jax.random.randint(act_key, (game.num_agents,), 0, 5, jnp.int32)
        after, paid = game.step(state, actions, step_key)
        return after, (state.position, paid)

    _, played = jax.lax.scan(advance, game.reset(key), jnp.arange(game.horizon))
    return played


def test_episodes_can_be_batched(game):
    keys = jax.random.split(KEY, 3)
    batch = jax.jit(jax.vmap(lambda key: play(game, key)))(keys)
    single = jax.jit(lambda key: play(game, key))
    for k in range(3):
        for a, b in zip(batch, single(keys[k]), strict=True):
            np.testing.assert_array_equal(a[k], b)
    assert not np.array_equal(batch[0][0], batch[0][1])


def test_random_play_keeps_the_rules(game):
    positions, _ = jax.jit(lambda key: play(game, key))(jax.random.key(2))
    zones = np.asarray(game.map.zone)[np.asarray(positions)]
    assert (zones[0] == 0).all()
    for before, after in itertools.pairwise(zones):
        assert ((before == 0) | (after == before)).all()  # never back, never across


def test_observation_by_hand(game):
    """[P one-hot 19][C customers 18][passenger 1][C target 18] = 56."""
    assert game.num_features == 56
    state = at([3, START] + [0] * 10, 12, customers=[1 | 1 << 17] + [0] * 11,
               target=[8] + [-1] * 11, step=4)  # fmt: skip
    seen = np.asarray(game.observe(state))
    assert seen.shape == (12, 56)
    assert seen.dtype == np.float32
    np.testing.assert_array_equal(np.flatnonzero(seen[0]), [3, 19, 19 + 17, 37, 38 + 8])
    np.testing.assert_array_equal(np.flatnonzero(seen[1]), [START])
    np.testing.assert_array_equal(seen[0][[3, 19, 36, 37, 46]], 1.0)


def test_a_taxi_sees_neither_the_others_nor_who_it_is(game):
    state, _ = some_state(game)
    other = at(np.r_[0, np.full(11, 17)], 12, customers=np.r_[0, np.full(11, 5)],
               target=np.r_[-1, np.full(11, 9)], step=3)  # fmt: skip
    np.testing.assert_array_equal(game.observe(other)[0], game.observe(state)[0])
    another = Taxi.sample(jax.random.key(99), num_agents=12, horizon=10)
    np.testing.assert_array_equal(another.observe(state), game.observe(state))


def test_zones(game):
    state = at([START, 0, 8, 9, 17, 4, START, 10, 11, 1, 2, 3], 12)
    np.testing.assert_array_equal(game.zone_of(state), [0, 1, 1, 2, 2, 1, 0, 2, 2, 1, 1, 1])
    np.testing.assert_allclose(game.zone_shares(state), [2 / 12, 6 / 12, 4 / 12], rtol=1e-6)
    swept = jax.vmap(game.zone_shares)(jax.tree_util.tree_map(lambda x: jnp.stack([x, x]), state))
    assert swept.shape == (2, 3)


# --- parameters ---


def test_samples():
    game = Taxi.sample(KEY)
    assert (game.num_agents, game.horizon, game.num_actions) == (1000, 128, 5)
    assert (game.customer_rate, game.jam_cap, game.zone1_pay, game.zone2_pay) == (0.2, 0.7, 1.1, 1)
    features = np.asarray(game.agent_features)
    for values, centre in zip(features.T, (10.0, 1.0, 1.0), strict=True):
        assert np.abs(values / centre - 1).max() <= 0.1 + 1e-6
        assert np.abs(values / centre - 1).max() >= 0.095
        assert abs(values.mean() / centre - 1) < 4 * 0.1 / np.sqrt(3 * 1000)
    np.testing.assert_allclose(features[:, 0], 1000 * game.jam_weight, rtol=1e-6)
    assert np.abs(np.corrcoef(features.T) - np.eye(3)).max() < 4 / np.sqrt(1000)
    alike = Taxi.sample(KEY, num_agents=4, heterogeneity={"zone2_multiplier": 0.3, "jam_weight": 0})
    np.testing.assert_allclose(alike.jam_weight, 2.5)
    assert np.abs(np.asarray(alike.zone1_multiplier) - 1).max() <= 0.1 + 1e-6
    again, other = (Taxi.sample(jax.random.key(k), num_agents=4) for k in (0, 1))
    np.testing.assert_array_equal(again.jam_weight, Taxi.sample(KEY, num_agents=4).jam_weight)
    assert (np.asarray(again.jam_weight) != np.asarray(other.jam_weight)).all()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"jam_weight": [0.1, -0.1]}, "jam_weight must be in [0, inf]: jam_weight[1] = -0.1"),
        ({"jam_weight": [np.nan, 0.1]}, "jam_weight[0] = nan"),
        ({"jam_weight": [0.1, 0.1, 0.1]}, "zone1_multiplier must have shape [3], not [2]"),
        ({"jam_weight": 0.1}, "jam_weight must have shape [N], not []"),
        ({"zone1_multiplier": [1.0, np.inf]}, "zone1_multiplier[1] = inf"),
        ({"zone2_multiplier": [-1.0, 1.0]}, "zone2_multiplier must be in [0, inf]"),
        ({"horizon": 0}, "horizon must be at least 1, not 0"),
        ({"customer_rate": 1.5}, "customer_rate must be in [0, 1], not 1.5"),
        ({"customer_rate": float("nan")}, "customer_rate must be in [0, 1], not nan"),
        ({"customer_rate": 5e-6}, "customer_rate must be 0 or at least 2^-17, not 5e-06"),
        ({"jam_cap": -0.1}, "jam_cap must be in [0, 1], not -0.1"),
        ({"zone1_pay": -1.0}, "zone1_pay must be >= 0 and finite, not -1.0"),
        ({"zone2_pay": float("inf")}, "zone2_pay must be >= 0 and finite, not inf"),
    ],
)  # fmt: skip
def test_bad_arguments(changes, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        taxi(**changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_agents": 1}, "num_agents must be at least 2, not 1"),
        ({"horizon": -1}, "horizon must be at least 1, not -1"),
        ({"heterogeneity": 1.5}, "jam_weight must be in [0, inf]"),
        ({"heterogeneity": {"beta": 0.1}}, "'zone2_multiplier']: ['beta']"),
        ({"total_weight": -1.0}, "jam_weight must be in [0, inf]"),
        ({"total_weight": float("nan")}, "total_weight must be finite, not nan"),
    ],
)
def test_bad_samples(changes, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        Taxi.sample(KEY, **({"num_agents": 200} | changes))


def test_one_taxi_is_no_game():
    with pytest.raises(ValueError, match="num_agents must be at least 2, not 1"):
        taxi(1)
