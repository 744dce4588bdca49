"""Networks, identities and neural policies: what they compute, whom they tell apart, files."""

import functools
import itertools
import os
import re
from typing import Any, ClassVar, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import crowdnash as cn
from control_tasks import CartPole
from crowdnash.learners.ppo.learner import PPOState
from crowdnash.learners.ppo.loss import Samples
from crowdnash.learners.ppo.update import UpdateSettings, UpdateShape, improve
from crowdnash.policies.agent_networks import evaluate, network_of_agent
from crowdnash.policies.identity import Identity, IdentityName
from crowdnash.policies.network import NeuralNetwork
from crowdnash.policies.observations import ObservationFeatures
from crowdnash.simulation.neural import probabilities_of_all, with_identity
from small_games import PULL, Drift, DriftSimulator

GAME = Drift()  # N = 4, H = 4, S = 3, A = 2
NAMES = get_args(IdentityName)
slow = pytest.mark.slow
# Every identity has programs of its own to compile; these two add least to the others.
MOST_NAMES = [
    pytest.param(name, marks=() if name in ("one-hot", "independent") else slow) for name in NAMES
]
GROUPS = np.array([1, 0, 1, 1])


def groups_for(name: str, groups: Any = GROUPS) -> Any:
    return groups if name == "group" else None


@functools.cache
def fresh(name: str) -> PPOState:
    """The state before the first epoch on GAME, F = 7."""
    learner = cn.PPO(identity=name, groups=groups_for(name), hidden_sizes=(6, 5))
    return learner.init(GAME, key=jax.random.key(2))


def with_noise(tree: Any) -> Any:
    """Every number changed, so that no bias is zero and no two agents are alike by accident."""
    generator = np.random.default_rng(11)
    return jax.tree.map(
        lambda x: jnp.asarray(x + 0.5 * generator.normal(size=x.shape), jnp.float32), tree
    )


def make_policy(name: str) -> cn.NeuralPolicy:
    policy = cn.PPO().policies(GAME, fresh(name))["last"]
    return eqx.tree_at(lambda p: p.actor, policy, with_noise(policy.actor))


@pytest.fixture(scope="module")
def policies() -> dict[str, cn.NeuralPolicy]:
    return {name: make_policy(name) for name in NAMES}


@functools.cache
def table(name: str) -> np.ndarray:
    """Probabilities [N,H,S,A] as the policy says them one by one."""
    over = make_policy(name).probabilities
    for axes in ((0, None, None), (None, None, 0), (None, 0, None)):
        over = jax.vmap(over, axes)
    counts = [jnp.arange(n, dtype=jnp.int32) for n in (3, 4, 4)]
    return np.asarray(jax.jit(over)(*counts))


# --- networks ---


def test_a_network_by_hand():
    """x = (1, -2): hidden 1 - 2 - 2 + 0.5 = -2.5 and 3 + 2 - 1 = 4, leaky: -0.025 and 4."""
    network = NeuralNetwork(
        (jnp.asarray([[-1.0, 3.0], [1.0, -1.0]]), jnp.asarray([[2.0], [1.0]])),
        (jnp.asarray([0.5, -1.0]), jnp.asarray([10.0])),
        jnp.asarray([[9.0, 9.0], [0.0, 0.0]]),
    )
    found = network(jnp.asarray([[1.0, -2.0], [1.0, -2.0]]), jnp.asarray([1, 0]))
    # Row 0 adds 9 to both: 6.5 and 13.
    np.testing.assert_allclose(found[:, 0], [10 - 0.05 + 4, 10 + 13 + 13], rtol=1e-6)


def orthogonal_up_to(gain: float, matrix: Any) -> None:
    matrix = np.asarray(matrix, np.float64)
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    np.testing.assert_allclose(short @ short.T, gain**2 * np.eye(len(short)), atol=1e-5)


@pytest.mark.parametrize("name", ["none", "one-hot", "independent"])
def test_initial_weights(name):
    networks = fresh(name).networks
    each = [networks]
    if name == "independent":
        each = [jax.tree.map(lambda x, i=i: x[i], networks) for i in range(4)]
        assert not np.allclose(each[0].actor.weights[0], each[1].actor.weights[0], atol=0.01)
    for own in each:
        for network, last in ((own.actor, 0.01), (own.critic, 1.0)):
            first, middle, end = network.weights
            if name == "one-hot":
                assert network.rows is not None
                assert network.rows.shape == (4, 6)
                first = jnp.concatenate([first, network.rows])
            assert (name == "one-hot") == (network.rows is not None)
            for gain, matrix in zip((2**0.5, 2**0.5, last), (first, middle, end), strict=True):
                orthogonal_up_to(gain, matrix)
            assert all(not bias.any() for bias in network.biases)
        assert not np.allclose(own.actor.weights[0], own.critic.weights[0], atol=0.01)


@pytest.mark.parametrize("name", ["one-hot", "independent"])
def test_the_initial_policy_is_near_uniform(name):
    found = cn.PPO().policies(GAME, fresh(name))["last"].tabulate().probs
    # Logits of at most 0.01 |hidden| with |hidden| of a few units.
    np.testing.assert_allclose(found, 0.5, atol=0.02)
    assert np.abs(found - 0.5).max() > 1e-6


def test_an_embedding_row_is_a_one_hot_input():
    network = with_noise(fresh("one-hot").networks.actor)
    wide = NeuralNetwork(
        (jnp.concatenate([network.weights[0], network.rows]), *network.weights[1:]),
        network.biases,
        None,
    )
    inputs = jnp.asarray(np.random.default_rng(5).normal(size=(9, 7)), jnp.float32)
    row = jnp.asarray([0, 1, 2, 2, 1, 3, 0, 3, 1], jnp.int32)
    codes = jnp.concatenate([inputs, jax.nn.one_hot(row, 4)], axis=1)
    np.testing.assert_allclose(network(inputs, row), wide(codes), atol=1e-5)


def test_half_precision_only_rounds():
    network = with_noise(fresh("none").networks.actor)
    inputs = jnp.asarray(np.random.default_rng(5).normal(size=(9, 7)), jnp.float32)
    exact, rounded = network(inputs), network(inputs, dtype="bfloat16")
    assert rounded.dtype == jnp.float32
    scale = float(jnp.abs(exact).max())
    # Eight bits of every factor, and three layers of them.
    np.testing.assert_allclose(rounded, exact, atol=scale * 3 * 2**-7)
    assert not np.array_equal(rounded, exact)


# --- identities ---


def test_encodings():
    one_hot, number, group, parameters = (
        Identity.encode(GAME, name, groups_for(name))
        for name in ("one-hot", "number", "group", "parameters")
    )
    np.testing.assert_array_equal(one_hot.row, range(4))
    assert (one_hot.num_rows, one_hot.num_features) == (4, 0)
    np.testing.assert_allclose(number.features, [[0], [1 / 3], [2 / 3], [1]], rtol=1e-6)
    np.testing.assert_array_equal(group.row, GROUPS)
    assert (group.num_rows, group.num_features) == (2, 0)
    standard = (PULL - PULL.mean()) / PULL.std()
    np.testing.assert_allclose(parameters.features[:, 0], standard, rtol=1e-5)
    assert [x.num_rows for x in (number, parameters)] == [0, 0]


@pytest.mark.parametrize(
    ("game", "name", "groups", "text"),
    [
        (GAME, "nobody", None, "identity must be one of none, one-hot, number, independent, "),
        (GAME, "group", None, "identity='group' needs groups, not groups=None"),
        (GAME, "none", 2, "identity='none' takes no groups, not groups=2"),
        (DriftSimulator(), "parameters", None, "game.agent_features; DriftSimulator has none"),
    ],
)  # fmt: skip
def test_bad_identities(game, name, groups, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        Identity.encode(game, name, groups)
    with pytest.raises(ValueError, match=re.escape(text)):
        cn.PPO(identity=name, groups=groups).init(game, key=jax.random.key(0))


@pytest.mark.parametrize("name", MOST_NAMES)
def test_whom_a_policy_tells_apart(name):
    """The largest difference between two agents' tables: 0 exactly for those that are alike."""
    for i, j in itertools.combinations(range(4), 2):
        expected = {"none": False, "group": GROUPS[i] != GROUPS[j]}.get(name, True)
        assert (np.abs(table(name)[i] - table(name)[j]).max() > 0.01) == expected


@pytest.mark.parametrize("name", MOST_NAMES)
def test_one_network_for_one_agent(policies, name):
    policy = policies[name]
    states, steps = np.eye(3, dtype=np.float32), np.eye(4, dtype=np.float32)
    inputs = np.concatenate([np.tile(states, (4, 1)), np.repeat(steps, 3, 0)], axis=1)
    for agent in range(4):
        own = network_of_agent(policy.actor, policy.identity, agent)
        assert own.rows is None
        found = jax.nn.softmax(own(jnp.asarray(inputs))).reshape(4, 3, 2)
        np.testing.assert_allclose(found, table(name)[agent], atol=1e-6)


@pytest.mark.parametrize("name", MOST_NAMES)
def test_all_agents_at_once(policies, name):
    """The batched evaluation, of every agent in M joint states, is the one for a single agent."""
    states = jnp.asarray([[0, 1, 2, 0], [2, 2, 1, 1], [1, 0, 0, 2]], jnp.int32)
    step = jnp.asarray(2, jnp.int32)
    expected = table(name)[np.arange(4), 2, np.asarray(states)]
    found = probabilities_of_all(policies[name], states, step)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(
        policies[name].all_probabilities(states[1], step), expected[1], atol=1e-6
    )


@pytest.mark.parametrize(
    "name", ["group", pytest.param("parameters", marks=pytest.mark.slow), "number"]
)
def test_permuting_the_agents(name):
    """Agents in another order: the same policies in that order, unless it knows numbers."""
    order = np.array([2, 0, 3, 1])
    tables = []
    for game, groups in ((GAME, GROUPS), (Drift(PULL[order]), GROUPS[order])):
        learner = cn.PPO(identity=name, groups=groups_for(name, groups), hidden_sizes=(6, 5))
        found = learner.policies(game, learner.init(game, key=jax.random.key(2)))["last"]
        noisy = eqx.tree_at(lambda p: p.actor, found, with_noise(found.actor)).tabulate()
        tables.append(np.asarray(noisy.probs)[np.asarray(noisy.groups)])
    same = np.abs(tables[0][order] - tables[1]).max() < 1e-6
    assert same == (name != "number")


@pytest.mark.slow
def test_permuting_the_agents_permutes_what_is_learned():
    """One-hot codes, all data in one minibatch: the embedding rows change places, no more."""
    count, order = 12, np.array([2, 0, 3, 1])
    generator = np.random.default_rng(3)
    identity, networks = fresh("one-hot").identity, fresh("one-hot").networks
    inputs = jnp.asarray(generator.normal(size=(count, 7)), jnp.float32)
    samples = Samples(
        jnp.asarray(generator.integers(2, size=count), jnp.int32),
        jnp.full(count, -0.7),
        *jnp.asarray(generator.normal(size=(3, count)), jnp.float32),
        jnp.ones(count),
    )
    row = jnp.tile(identity.row, 3)

    def update(networks, inputs, row, samples):
        numbers = UpdateSettings(*(jnp.float32(x) for x in (0.01, 0.01, 0.5, 0.5, 0.2)))
        shape = UpdateShape(3, count, count, True, True, "float32")
        moments = optax.scale_by_adam(eps=1e-5).init(networks)
        return improve(networks, moments, inputs, row, samples, jax.random.key(1), numbers, shape)[
            0
        ]

    def rows_in(order, networks):
        return eqx.tree_at(
            lambda n: (n.actor.rows, n.critic.rows),
            networks,
            (networks.actor.rows[order], networks.critic.rows[order]),
        )

    update = eqx.filter_jit(update)
    expected = rows_in(order, update(networks, inputs, row, samples))
    moved = (np.arange(3)[:, None] * 4 + order).reshape(-1)  # sample of (m, i) is 4 m + i
    found = update(
        rows_in(order, networks), inputs[moved], row, jax.tree.map(lambda x: x[moved], samples)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6)
    change = np.abs(np.asarray(found.actor.rows - networks.actor.rows[order]))
    assert (change.max(1) > 0.005).all()


def test_own_networks_see_own_inputs_only():
    state = fresh("independent")
    inputs = np.random.default_rng(5).normal(size=(3, 4, 7)).astype(np.float32)
    other = inputs + np.float32([[[0], [0], [1], [0]]])
    before, after = (
        evaluate(state.networks.critic, state.identity, jnp.asarray(x)) for x in (inputs, other)
    )
    changed = np.abs(np.asarray(after - before)).max((0, 2)) > 0
    np.testing.assert_array_equal(changed, [False, False, True, False])


# --- observations ---


def test_features_of_a_state():
    features = ObservationFeatures.of(GAME)
    found = features(jnp.asarray(2, jnp.int32), jnp.asarray(1, jnp.int32))
    np.testing.assert_array_equal(found, [0, 0, 1, 0, 1, 0, 0])


def test_features_of_anything_else():
    """Flattened in the order of the names, then h / H."""
    game = CartPole(num_agents=2, horizon=8)
    features = ObservationFeatures.of(game)
    assert features.num_features == 6
    state = game.reset(jax.random.key(0))._replace(fallen=jnp.asarray([False, True]))
    seen = features.of_all(jax.tree.map(lambda x: x[None], game.observe(state)), jnp.asarray(6))
    expected = [[*np.asarray(state.motion[0]), 1, 0.75], [0, 0, 0, 0, 0, 0.75]]
    np.testing.assert_allclose(seen[0], expected, rtol=1e-6)
    told = with_identity(seen, Identity.encode(game, "number"))
    np.testing.assert_allclose(told[0, :, 6], [0, 1])


class Blind(CartPole):
    """Shows everybody one number for all."""

    name: ClassVar[str] = "blind"

    def observe(self, state):
        return state.motion[0]


def test_bad_observations():
    text = "Blind.observe must give arrays with leading axis N=3, not of shape [4]"
    with pytest.raises(ValueError, match=re.escape(text)):
        ObservationFeatures.of(Blind(num_agents=3))


# --- tables and draws ---


@pytest.mark.parametrize("name", MOST_NAMES)
def test_tabulate(policies, name):
    found = policies[name].tabulate()
    count = {"none": 1, "group": 2}.get(name, 4)
    assert found.probs.shape == (count, 4, 3, 2)
    np.testing.assert_allclose(found.probs[found.groups], table(name), atol=1e-6)
    found.check_fits(GAME)


def test_tabulate_needs_states():
    game = CartPole(num_agents=2, horizon=8)
    learner = cn.PPO(hidden_sizes=(4,))
    policy = learner.policies(game, learner.init(game, key=jax.random.key(0)))["last"]
    with pytest.raises(ValueError, match="tabulate needs a policy over integer states"):
        policy.tabulate()


def test_frequencies_of_actions(policies):
    draws = 4000
    states = jnp.asarray([2, 0, 1, 1], jnp.int32)
    keys = jax.random.split(jax.random.key(9), draws)
    found = jax.vmap(lambda k: policies["independent"].act(states, 3, key=k))(keys)
    assert found.dtype == jnp.int32
    probs = table("independent")[np.arange(4), 3, np.asarray(states), 1]
    error = np.sqrt(probs * (1 - probs) / draws)
    assert np.all(np.abs(np.asarray(found).mean(0) - probs) < 4 * error)
    # Agents draw for themselves.
    together = np.cov(np.asarray(found).T)
    assert abs(together[0, 1]) < 4 * np.sqrt(together[0, 0] * together[1, 1] / draws)


@slow
def test_certificates_and_simulation_take_neural_policies(policies):
    """The same exploitability and the same play as the table's."""
    settings: dict[str, Any] = {"key": jax.random.key(1), "num_trajectories": 8}
    policy = policies["parameters"]
    both = (policy, policy.tabulate())
    found, tabulated = (cn.exploitability(GAME, p, method="paths", **settings) for p in both)
    np.testing.assert_allclose(found.value, tabulated.value, atol=1e-5)
    np.testing.assert_allclose(found.upper, tabulated.upper, atol=1e-5)
    played = [cn.simulate(GAME, p, **settings).actions for p in both]
    np.testing.assert_array_equal(*played)


# --- files ---


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(policies, tmp_path, name):
    path = tmp_path / "p.npz"
    policies[name].save(path)
    loaded = cn.NeuralPolicy.load(str(path), GAME, identity=name)
    assert os.listdir(tmp_path) == ["p.npz"]
    assert jax.tree.structure(loaded) == jax.tree.structure(policies[name])
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(policies[name]), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_saving_keeps_observations_that_are_no_states(tmp_path):
    game = CartPole(num_agents=2, horizon=8)
    learner = cn.PPO(hidden_sizes=(4,))
    policies = learner.policies(game, learner.init(game, key=jax.random.key(0)))
    policies["last"].save(tmp_path / "p.npz")
    loaded = cn.NeuralPolicy.load(tmp_path / "p.npz", game)
    assert loaded.features == ObservationFeatures.of(game)


@pytest.mark.parametrize("keep", [0, 1, 10, 100, 700, -1, -30])
def test_truncated_files(policies, tmp_path, keep):
    path = tmp_path / "p.npz"
    policies["group"].save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=re.escape(f"{path} is damaged or is not a neural policy")):
        cn.NeuralPolicy.load(path)


def test_flipped_bytes(policies, tmp_path):
    """No single damaged byte loads as another policy, or fails without naming the file."""
    path = tmp_path / "p.npz"
    policies["group"].save(path)
    good = path.read_bytes()
    expected, refused = jax.tree.leaves(policies["group"]), 0
    for k in range(0, len(good), 41):
        path.write_bytes(good[:k] + bytes([good[k] ^ 0x55]) + good[k + 1 :])
        try:
            loaded = cn.NeuralPolicy.load(path)
        except ValueError as error:
            refused += 1
            assert str(path) in str(error)  # noqa: PT017
        else:  # a byte that carries no data, a date for example
            assert jax.tree.structure(loaded) == jax.tree.structure(policies["group"])
            for a, b in zip(jax.tree.leaves(loaded), expected, strict=True):
                np.testing.assert_array_equal(a, b)
    assert refused > 20


def with_arrays_changed(policy: cn.NeuralPolicy, path: Any, **changed: Any) -> None:
    """The file of `policy`, but with some arrays replaced (None: left out)."""
    policy.save(path)
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files} | changed
    np.savez(path, **{name: x for name, x in arrays.items() if x is not None})


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"weight_1": None}, "weight_1"),
        ({"about": np.asarray('{"format": "another-1"}')}, "it has another format"),
        ({"about": np.asarray("{}")}, "format"),
        ({"weight_0": np.zeros((8, 6), np.float32)}, "its network has other sizes than it says"),
        ({"bias_2": np.array([np.nan, 0], np.float32)}, "a weight is not a finite number"),
        ({"bias_0": np.zeros(7, np.float32)}, "its network has other sizes than it says"),
        ({"rows": np.zeros((4, 8), np.float32)}, "its network has other sizes than it says"),
    ],
)
def test_files_that_say_something_else(policies, tmp_path, changed, text):
    path = tmp_path / "p.npz"
    with_arrays_changed(policies["none"], path, **changed)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged .*{text}"):
        cn.NeuralPolicy.load(path)


def test_a_table_is_not_a_neural_policy(tmp_path):
    path = tmp_path / "p.npz"
    cn.TabularPolicy.uniform(GAME).save(path)
    with pytest.raises(ValueError, match="is not a neural policy file"):
        cn.NeuralPolicy.load(path)
    make_policy("none").save(path)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        cn.TabularPolicy.load(path)
    with pytest.raises(FileNotFoundError):
        cn.NeuralPolicy.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("game", "text"),
    [
        (DriftSimulator(), "has name=drift simulator, the policy name=drift"),
        (Drift(np.full(5, 0.3, np.float32)), "the game has N=5, the policy N=4"),
        (Drift(horizon=3), "the game has H=3, the policy H=4"),
        (cn.games.SIS.sample(jax.random.key(0), num_agents=4, horizon=4), "has name=sis, the"),
    ],
)
def test_policies_of_other_games(policies, tmp_path, game, text):
    path = tmp_path / "p.npz"
    policies["number"].save(path)
    with pytest.raises(ValueError, match=re.escape(f"{path}: policy must fit the game: ")) as found:
        cn.NeuralPolicy.load(path, game)
    assert text in str(found.value)
    with pytest.raises(ValueError, match=re.escape(text)):
        cn.exploitability(game, policies["number"], key=jax.random.key(0))


def test_policies_of_another_identity(policies, tmp_path):
    path = tmp_path / "p.npz"
    policies["number"].save(path)
    text = f"{path}: policy must have identity='none', not 'number'"
    with pytest.raises(ValueError, match=re.escape(text)):
        cn.NeuralPolicy.load(path, GAME, identity="none")
