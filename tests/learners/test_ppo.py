"""PPO as a whole: what it plays, exact resume, metrics, and learning to known scores."""

import logging
import math
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from control_tasks import CartPole, Dazzled
from crowdnash.games.base import GameError
from crowdnash.policies.agent_networks import ActorCritic, evaluate, network_of_agent
from crowdnash.policies.identity import Identity
from crowdnash.policies.observations import ObservationFeatures
from crowdnash.simulation.neural import Learners, play
from small_games import KINDS, PULL, DriftSimulator, TwoKinds

KEY = jax.random.key(4)
slow = pytest.mark.slow


def learner(identity: str = "one-hot", **changes: Any) -> cn.PPO:
    groups = (KINDS == 0).astype(int) if identity == "group" else None
    settings: dict[str, Any] = {
        "num_epochs": 4,
        "num_trajectories": 16,
        "minibatch_size": 128,
        "learning_rate": 0.02,
        "hidden_sizes": (8,),
    }
    return cn.PPO(identity=identity, groups=groups, **(settings | changes))


def same(a: Any, b: Any) -> list[bool]:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return [np.array_equal(x, y) for x, y in pairs]


# --- arguments ---


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_epochs": -1}, "num_epochs must be at least 0, not -1"),
        ({"num_trajectories": 0}, "num_trajectories must be at least 1, not 0"),
        ({"num_passes": 0}, "num_passes must be at least 1, not 0"),
        ({"minibatch_size": 0}, "minibatch_size must be at least 1, not 0"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0 and finite, not 0.0"),
        ({"clip": math.nan}, "clip must be > 0 and finite, not nan"),
        ({"max_gradient_norm": math.inf}, "max_gradient_norm must be > 0 and finite, not inf"),
        ({"magnet_weight": -0.1}, "magnet_weight must be >= 0 and finite, not -0.1"),
        ({"magnet_start": -1}, "magnet_start must be at least 0, not -1"),
        ({"magnet_rate": 1.5}, "magnet_rate must be in [0, 1], not 1.5"),
        ({"entropy_weight": -0.1}, "entropy_weight must be >= 0 and finite, not -0.1"),
        ({"value_weight": math.inf}, "value_weight must be >= 0 and finite, not inf"),
        ({"discount": 1.1}, "discount must be in [0, 1], not 1.1"),
        ({"gae_lambda": -0.1}, "gae_lambda must be in [0, 1], not -0.1"),
        ({"annealing_epochs": -1}, "annealing_epochs must be at least 0, not -1"),
        ({"annealing_epochs": 3, "num_epochs": 4}, "annealing_epochs must be at least num_epochs"),
        ({"hidden_sizes": ()}, "hidden_sizes must be a tuple of at least one width, not ()"),
        ({"hidden_sizes": (8, 0)}, "every width in hidden_sizes must be at least 1, not 0"),
        (
            {"matrix_dtype": "float16"},
            "matrix_dtype must be one of float32, bfloat16, not 'float16'",
        ),
    ],
)
def test_bad_arguments(changes, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        cn.PPO(**changes)


def test_the_papers_settings():
    """E.2, Table 2."""
    ppo = cn.PPO()
    assert (ppo.learning_rate, ppo.discount, ppo.gae_lambda) == (2.5e-4, 0.999, 0.95)
    assert (ppo.entropy_weight, ppo.value_weight, ppo.max_gradient_norm) == (6e-3, 0.9, 0.5)
    assert (ppo.clip, ppo.num_passes, ppo.minibatch_size) == (0.2, 4, 16384)
    assert (ppo.num_trajectories, ppo.hidden_sizes) == (1, (128, 128))
    assert ppo.normalise_advantages


# --- what is played ---


def random_networks(identity: Identity) -> ActorCritic:
    generator = np.random.default_rng(0)
    networks = ActorCritic.create(KEY, identity, num_inputs=7, num_actions=2, hidden_sizes=(5,))
    return jax.tree.map(
        lambda x: jnp.asarray(x + 0.7 * generator.normal(size=x.shape), jnp.float32), networks
    )


def test_play_follows_the_game_and_the_networks():
    """A simulator whose rewards and laws NumPy works out from the recorded states and actions."""
    game = DriftSimulator()
    identity, features = Identity.encode(game, "independent"), ObservationFeatures.of(game)
    networks = random_networks(identity)
    whole = Learners(networks, identity, features)
    found = eqx.filter_jit(play)(game, whole, KEY, 500)
    place = np.asarray(found.inputs[..., :3]).argmax(-1)  # [H,M,N]
    steps = np.broadcast_to(np.arange(4)[:, None, None], place.shape)
    np.testing.assert_array_equal(found.inputs[..., 3:].argmax(-1), steps)
    action = np.asarray(found.action)
    assert set(np.unique(action)) == {0, 1}

    # What the networks say of what they saw.
    for h in (0, 3):
        logits = evaluate(networks.actor, identity, found.inputs[h])
        probs = np.asarray(jax.nn.softmax(logits))
        taken = np.take_along_axis(probs, action[h][..., None], -1)[..., 0]
        np.testing.assert_allclose(np.exp(found.log_prob[h]), taken, rtol=1e-5)
        values = evaluate(networks.critic, identity, found.inputs[h])[..., 0]
        np.testing.assert_allclose(found.value[h], values, atol=1e-5)
        surplus = (action[h] == 1) - probs[..., 1]  # mean 0, variance p (1 - p)
        error = np.sqrt((probs[..., 1] * probs[..., 0]).sum(0)) / 500
        assert np.all(np.abs(surplus.mean(0)) < 4 * error)

    # What the game says: R = pull y^2 - 0.1 s + 0.05 h, P(2) = 0.1 + 0.5 pull x.
    active = (action.sum(-1, keepdims=True) - action) / 3
    reward = PULL * active**2 - 0.1 * place + 0.05 * np.arange(4)[:, None, None]
    np.testing.assert_allclose(found.reward, reward, atol=1e-6)
    crowd = ((place == 2).sum(-1, keepdims=True) - (place == 2)) / 3
    drawn = (0.1 + 0.5 * PULL * crowd)[:-1]
    surplus = ((place[1:] == 2) - drawn).mean(1)
    assert np.all(np.abs(surplus) < 4 * np.sqrt((drawn * (1 - drawn)).sum(1)) / 500)


@slow
def test_play_with_few_learners():
    """Agents 2 and 0 with the networks that they have anyway: the same play, their part of it."""
    game = DriftSimulator()
    identity, features = Identity.encode(game, "independent"), ObservationFeatures.of(game)
    networks = random_networks(identity)
    whole = eqx.filter_jit(play)(game, Learners(networks, identity, features), KEY, 500)
    others = cn.NeuralPolicy(networks.actor, identity, features, game.name, 2)
    agents = np.array([2, 0])
    few = Identity.encode(DriftSimulator(PULL[:2]), "independent")
    own = [network_of_agent(networks.actor, identity, int(i)) for i in agents]
    mine = ActorCritic(
        jax.tree.map(lambda *x: jnp.stack(x), *own),
        jax.tree.map(lambda x: x[agents], networks.critic),
    )
    learners = Learners(mine, few, features, jnp.asarray(agents, jnp.int32), others)
    found = eqx.filter_jit(play)(game, learners, KEY, 500)
    np.testing.assert_array_equal(found.action, whole.action[..., agents])
    np.testing.assert_array_equal(found.inputs, whole.inputs[:, :, agents])
    np.testing.assert_array_equal(found.reward, whole.reward[..., agents])
    np.testing.assert_allclose(found.value, whole.value[..., agents], atol=1e-5)
    np.testing.assert_allclose(found.last_value, whole.last_value[..., agents], atol=1e-5)


# --- runs ---


@pytest.mark.slow
@pytest.mark.parametrize("identity", ["one-hot", "independent"])
def test_a_run_goes_on_exactly(identity):
    """Two epochs, the state through plain arrays, three more: bit for bit five at once."""
    whole = cn.solve(TwoKinds(), learner(identity, num_epochs=5), key=KEY)
    begun = cn.solve(TwoKinds(), learner(identity, num_epochs=2, annealing_epochs=5), key=KEY)
    arrays, structure = jax.tree.flatten(begun.state)
    kept = jax.tree.unflatten(structure, [jnp.asarray(np.asarray(x)) for x in arrays])
    went_on = cn.solve(TwoKinds(), learner(identity, num_epochs=5), key=KEY, state=kept)
    assert all(same(went_on.state, whole.state))
    assert [m.epoch for m in went_on.history] == [2, 3, 4]
    for a, b in zip(whole.history[2:], went_on.history, strict=True):
        for name in ("mean_return", "policy_loss", "value_loss", "entropy", "learning_rate"):
            assert getattr(a, name) == getattr(b, name), name


@pytest.mark.parametrize(
    ("game", "changes", "text"),
    [
        (TwoKinds(), {"identity": "independent"}, "state must be of the same learner and game"),
        (TwoKinds(), {"hidden_sizes": (9,)}, "state must be of the same learner and game: of"),
        (TwoKinds(KINDS[:6]), {}, "state.networks.actor.rows has shape (6, 8), not (8, 8)"),
    ],
)
def test_a_state_of_another_run(game, changes, text):
    begun = learner().init(TwoKinds(), key=KEY)
    with pytest.raises(ValueError, match=re.escape(text)):
        cn.solve(game, learner(**changes), key=KEY, state=begun)
    tables = cn.PolicyMirrorDescent(num_epochs=1).init(TwoKinds(), key=KEY)
    with pytest.raises(ValueError, match="state must be a PPOState, not a MirrorDescentState"):
        cn.solve(TwoKinds(), learner(), key=KEY, state=tables)


def test_the_key_decides():
    first, again, other, raw = (
        cn.solve(TwoKinds(), learner(), key=key).state.networks
        for key in (KEY, KEY, jax.random.key(5), jax.random.PRNGKey(4))
    )
    assert all(same(first, again))
    assert all(same(first, raw))
    assert not any(same(first.actor.weights, other.actor.weights))


def test_no_epochs_and_the_callback():
    seen = []

    def note(*given: Any) -> None:
        seen.append(given)

    result = cn.solve(TwoKinds(), learner(num_epochs=0), key=KEY, callback=note)
    assert (seen, result.history) == ([], ())
    assert all(same(result.state, learner().init(TwoKinds(), key=KEY)))
    result = cn.solve(TwoKinds(), learner(), key=KEY, callback=note)
    assert [int(state.epoch) for state, _ in seen] == [1, 2, 3, 4]
    assert tuple(metrics for _, metrics in seen) == result.history
    assert all(same(result.policy, result.last_policy))


def test_the_magnet_follows_slowly():
    """Its parameters are NumPy's moving average of the actor's, and a run goes on with them."""
    states = []

    def note(state: Any, metrics: Any) -> None:
        states.append(state)

    drawn = {"magnet_weight": 0.5, "magnet_rate": 0.25, "annealing_epochs": 0}
    start = learner(**drawn).init(TwoKinds(), key=KEY)
    whole = cn.solve(TwoKinds(), learner(**drawn), key=KEY, callback=note)
    expected = [np.asarray(x) for x in jax.tree.leaves(start.networks.actor)]
    for state in states:
        actor = jax.tree.leaves(state.networks.actor)
        expected = [m + 0.25 * (np.asarray(x) - m) for m, x in zip(expected, actor, strict=True)]
    for a, b in zip(jax.tree.leaves(whole.state.magnet), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    went_on = cn.solve(TwoKinds(), learner(**drawn), key=KEY, state=states[1])
    assert all(same(went_on.state, whole.state))
    free = cn.solve(TwoKinds(), learner(annealing_epochs=0), key=KEY)
    assert free.state.magnet is None
    late = cn.solve(TwoKinds(), learner(**drawn, magnet_start=3), key=KEY, callback=note)
    begun, after = states[-2:]
    assert all(same(begun.magnet, begun.networks.actor))
    assert not any(same(after.magnet.weights, after.networks.actor.weights))
    for a, b in zip(late.history, free.history, strict=True):  # the first step is at the magnet
        assert a.mean_return == b.mean_return
    assert not any(same(free.state.networks.actor.weights, whole.state.networks.actor.weights))
    with pytest.raises(ValueError, match="state must be of the same learner and game"):
        cn.solve(TwoKinds(), learner(**drawn), key=KEY, state=free.state)


def test_learning_rates():
    def rates(**changes: Any) -> list[float]:
        history = cn.solve(TwoKinds(), learner(**changes), key=KEY).history
        return [m.learning_rate / 0.02 for m in history]

    assert rates() == pytest.approx([1, 3 / 4, 1 / 2, 1 / 4])
    assert rates(annealing_epochs=8) == pytest.approx([1, 7 / 8, 6 / 8, 5 / 8])
    assert rates(annealing_epochs=0) == pytest.approx([1, 1, 1, 1])


def test_metrics():
    history = cn.solve(TwoKinds(), learner(), key=KEY).history
    for epoch, metrics in enumerate(history):
        assert (metrics.epoch, metrics.agent_steps) == (epoch, 16 * 2 * 8)
        assert metrics.mean_reward == metrics.mean_return / 2
        assert 0 < metrics.entropy <= math.log(2) + 1e-6
        assert 0 <= metrics.clip_fraction <= 1
        assert metrics.approximate_kl > -1e-6
        assert metrics.explained_variance <= 1
        assert metrics.value_loss >= 0
        assert 0 < metrics.play_seconds < metrics.seconds
        assert metrics.statistics == {"time": 0.5}  # steps 0 and 1
        # A total reward of 0, 1 or 2, mean 1: 128 of them.
        assert abs(history[0].mean_return - 1) < 4 * math.sqrt(0.5 / 128)


def test_a_second_solve_compiles_nothing(caplog):
    def compilations(**changes: Any) -> int:
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="jax"), jax.log_compiles():
            cn.solve(TwoKinds(), learner(num_passes=3, **changes), key=KEY)
        return sum("Compiling" in record.getMessage() for record in caplog.records)

    assert compilations(num_epochs=2) > 0
    other = {"learning_rate": 0.1, "entropy_weight": 0.3, "clip": 0.1, "discount": 0.5}
    assert compilations(num_epochs=3, **other) == 0


def test_rewards_that_are_no_numbers():
    kinds = KINDS.copy()
    kinds[5] = 2
    text = "game 'two kinds': agent 5 at step 1: reward must be a finite number, not nan"
    with pytest.raises(GameError, match=re.escape(text)):
        cn.solve(TwoKinds(kinds), learner(), key=KEY)


def test_observations_that_are_no_numbers():
    text = "agent 1 at step 3: observation must be finite numbers"
    with pytest.raises(GameError, match=re.escape(text)):
        cn.solve(Dazzled(num_agents=2, horizon=5), learner(), key=KEY)


def test_losses_that_are_no_numbers():
    text = "the losses of epoch 0 are not finite numbers: a smaller learning_rate (now 0.02)"
    with pytest.raises(FloatingPointError, match=re.escape(text)):
        cn.solve(TwoKinds(pay=1e30), learner(), key=KEY)


# --- who can learn what ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "identity",
    [
        "one-hot",
        "independent",
        pytest.param("parameters", marks=slow),
        pytest.param("group", marks=slow),
        pytest.param("number", marks=slow),
    ],
)
def test_identities_tell_kinds_apart(identity):
    """Each kind finds its own action: a return near 2 of 2."""
    history = cn.solve(TwoKinds(), learner(identity, num_epochs=30), key=KEY).history
    assert history[-1].mean_return > 1.9


@pytest.mark.slow
def test_without_identity_kinds_are_alike():
    """Half the agents are of either kind, so every shared policy has the return 1."""
    result = cn.solve(TwoKinds(), learner("none", num_epochs=30), key=KEY)
    returns = np.array([m.mean_return for m in result.history])
    assert np.all(np.abs(returns - 1) < 4.5 * np.sqrt(0.5 / 128))
    probs = np.asarray(result.policy.tabulate().probs)
    assert probs.shape[0] == 1


def test_own_networks_learn_from_own_data_only():
    """Another kind for agent 3 changes the network of agent 3, and no other in any bit."""
    kinds = KINDS.copy()
    kinds[3] = 1
    actors = [
        cn.solve(TwoKinds(k), learner("independent"), key=KEY).state.networks
        for k in (KINDS, kinds)
    ]
    for a, b in zip(jax.tree.leaves(actors[0]), jax.tree.leaves(actors[1]), strict=True):
        changed = np.asarray(a != b).reshape(8, -1).any(1)
        np.testing.assert_array_equal(changed, np.arange(8) == 3)


# --- known control tasks ---


def cart_pole_learner(num_epochs: int, **changes: Any) -> cn.PPO:
    settings: dict[str, Any] = {
        "learning_rate": 1e-3,
        "minibatch_size": 2048,
        "discount": 0.99,
        "entropy_weight": 0.0,
        "value_weight": 0.5,
        "clip_values": False,  # values are of the order of 100
        "hidden_sizes": (64, 64),
        "horizon_is_end": False,
    }
    return cn.PPO(num_epochs=num_epochs, **(settings | changes))


def test_cart_pole_physics():
    """One push to the right of a cart at rest with its pole upright, in closed form.

    With cos = 1, sin = 0: F / (M + m) = 10 / 1.1; the pole's angular acceleration is
    -(10 / 1.1) / (0.5 (4/3 - 0.1/1.1)), the cart's 10 / 1.1 - 0.05 times that over 1.1.
    """
    game = CartPole(num_agents=2, horizon=3)
    still = game.reset(KEY)._replace(motion=jnp.zeros((2, 4)))
    after, reward = game.step(still, jnp.asarray([1, 0]), KEY)
    swing = -(10 / 1.1) / (0.5 * (4 / 3 - 0.1 / 1.1))
    slide = 10 / 1.1 - 0.05 * swing / 1.1
    right = 0.02 * np.array([0, slide, 0, swing])
    np.testing.assert_allclose(after.motion, [right, -right], rtol=1e-5)
    np.testing.assert_array_equal(reward, [1, 1])
    # The step on which a cart leaves is still paid, the next one not.
    gone = after._replace(motion=jnp.asarray([[2.39, 2.0, 0, 0], [0, 0, 0.2, 2.0]]))
    fallen, reward = game.step(gone, jnp.asarray([1, 1]), KEY)
    np.testing.assert_array_equal(reward, [1, 1])
    np.testing.assert_array_equal(fallen.fallen, [True, True])
    later, reward = game.step(fallen, jnp.asarray([0, 0]), KEY)
    np.testing.assert_array_equal(reward, [0, 0])
    np.testing.assert_array_equal(later.motion, fallen.motion)


@pytest.mark.slow
def test_cart_pole_is_learned():
    """From 20 steps upright, as at random, to more than 150 in 15 epochs."""
    settings = cart_pole_learner(15, annealing_epochs=0)
    history = cn.solve(CartPole(), settings, key=jax.random.key(0)).history
    assert history[0].mean_return < 30
    assert history[-1].mean_return > 150


@slow
@pytest.mark.parametrize("seed", range(4))
def test_cart_pole_is_solved(seed):
    """Gym's bar for CartPole-v1: a mean of 475 of 500 steps over 100 episodes; here 320."""
    history = cn.solve(CartPole(), cart_pole_learner(40), key=jax.random.key(seed)).history
    assert np.mean([m.mean_return for m in history[-10:]]) >= 475


@pytest.mark.slow
@pytest.mark.parametrize("horizon_is_end", [pytest.param(True, marks=slow), False])
def test_an_end_and_a_cut_have_other_values(horizon_is_end):
    """Nobody falls within 4 steps: each pays 1, discount 1/2.

    If that is all, the states are worth 15/8, 7/4, 3/2, 1; if it goes on for ever, 2.
    """
    game = CartPole(horizon=4)
    settings = {"discount": 0.5, "horizon_is_end": horizon_is_end, "annealing_epochs": 0}
    state = cn.solve(game, cart_pole_learner(80, learning_rate=3e-3, **settings), key=KEY).state
    observations = jax.tree.map(lambda x: x[None], game.observe(game.reset(KEY)))
    values = []
    for h in range(4):
        inputs = state.features.of_all(observations, jnp.asarray(h))
        values.append(evaluate(state.networks.critic, state.identity, inputs).mean())
    expected = [15 / 8, 7 / 4, 3 / 2, 1] if horizon_is_end else [2, 2, 2, 2]
    np.testing.assert_allclose(values, expected, atol=0.1)
