"""PPO on four devices against one; `test_several_devices.py` runs it where there are four.

How far results may be apart. Draws are the same; products of matrices with fewer rows may round
otherwise. A gradient is a mean of B samples' gradients, added up in another order: it is right to
B 2^-24 of the mean of their sizes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from control_tasks import Dazzled
from crowdnash.learners.ppo.play import collect
from small_games import KINDS, TwoKinds

KEY = jax.random.key(4)
M, H, N = 8, 3, 5
SIS = cn.games.SIS.sample(jax.random.key(0), num_agents=N, horizon=H, heterogeneity=0.1)
GRADIENT = 4 * M * H * N * 2.0**-24
ALL = 10**6
IDENTITIES = ["one-hot", "independent"]


def mesh(count: int = 4, *axes: str) -> jax.sharding.Mesh:
    axes = axes or ("trajectories",)
    return jax.make_mesh((count,) + (1,) * (len(axes) - 1), axes)


def ppo(identity: str = "one-hot", **changes: Any) -> cn.PPO:
    settings: dict[str, Any] = {
        "num_epochs": 1,
        "num_trajectories": M,
        "minibatch_size": ALL,
        "num_passes": 1,
        "learning_rate": 1e-3,
        "annealing_epochs": 0,
        "hidden_sizes": (8,),
    }
    return cn.PPO(identity=identity, **(settings | changes))


def solve(on=None, *, game: Any = SIS, state: Any = None, **changes: Any):
    return cn.solve(game, ppo(**changes), key=KEY, state=state, mesh=on)


def farthest(one: Any, other: Any) -> float:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(jnp.abs(x - y).max()) for x, y in pairs if x.size)


@pytest.mark.parametrize("identity", IDENTITIES)
def test_the_play_is_that_of_one_device(identity):
    """Samples of device d are those of trajectories 2d and 2d+1."""
    learner, played = ppo(identity), []
    for on in (None, mesh()):
        state = learner.init(SIS, key=KEY)
        devices, game, state = learner.shared(SIS, state, on) if on else (None, SIS, state)
        more = () if devices is None else (devices,)
        numbers = jnp.float32([0.9, 0.95])
        played.append(collect(game, state, KEY, M, numbers, True, "float32", *more))

    def trajectories(x: Any, count: int) -> np.ndarray:
        """As [D,H,M/D,N,...], from [H,M,N,...] or [N,H,M,...] flat."""
        x = np.asarray(x)
        if identity == "independent":
            parts = np.moveaxis(x.reshape(N, count, H, M // count, *x.shape[2:]), 0, 3)
        else:
            parts = x.reshape(count, H, M // count, N, *x.shape[1:])
        return np.moveaxis(parts, 0, 1).reshape(H, M, N, *parts.shape[4:])

    (inputs, samples, figures), (*shared, shared_figures) = played
    np.testing.assert_array_equal(trajectories(shared[0], 4), trajectories(inputs, 1))
    for name in ("action", "log_prob", "value", "advantage", "returns", "weight"):
        one, four = (
            trajectories(getattr(own, name), count) for own, count in ((samples, 1), (shared[1], 4))
        )
        most = 0 if name in ("action", "weight") else 1e-5
        np.testing.assert_allclose(four, one, rtol=0, atol=most, err_msg=name)
    assert np.ptp(samples.action) == 1
    for name in ("mean_return", "explained_variance"):
        np.testing.assert_allclose(
            getattr(shared_figures, name), getattr(figures, name), atol=1e-5, err_msg=name
        )


@pytest.mark.parametrize("identity", IDENTITIES)
def test_the_gradient_of_all_samples_is_that_of_one_device(identity):
    """Adam's first moment is a tenth of the first gradient."""
    one, four = (solve(on, identity=identity).state for on in (None, mesh()))
    assert float(max(jnp.abs(x).max() for x in jax.tree.leaves(one.moments.mu))) > 1e-3
    assert farthest(one.moments.mu, four.moments.mu) < 0.1 * GRADIENT
    # A parameter moves by 1e-3 g / (|g| + 1e-5).
    assert farthest(one.networks, four.networks) < 1e-3 * GRADIENT / 1e-5


@pytest.mark.parametrize("magnet_weight", [0.0, 1.0])
def test_an_epoch_of_several_passes_is_that_of_one_device(magnet_weight):
    """Four steps of size 1e-3, the gradients' differences of each felt by the later ones."""
    one, four = (solve(on, num_passes=4, magnet_weight=magnet_weight) for on in (None, mesh()))
    start = ppo().init(SIS, key=KEY).networks
    assert farthest(one.state.networks, start) > 1e-3
    assert farthest(one.state.networks, four.state.networks) < 2e-5
    for name in ("mean_return", "policy_loss", "value_loss", "entropy", "explained_variance"):
        before, after = (getattr(result.history[0], name) for result in (one, four))
        np.testing.assert_allclose(after, before, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("identity", IDENTITIES)
def test_minibatches_are_shared_and_networks_learn(identity):
    """Two kinds want different actions: 1 a step for whoever knows who it is."""
    result = cn.solve(
        TwoKinds(),
        ppo(identity, num_epochs=12, num_trajectories=16, minibatch_size=64, learning_rate=0.02),
        key=KEY,
        mesh=mesh(),
    )
    assert result.history[-1].mean_reward > 0.9
    assert str(result.devices) == "4 devices share the trajectories"
    # 16 x 2 x 8 samples, or 16 x 2 of an agent's own, in minibatches of 64.
    steps = 12 * (1 if identity == "independent" else 4)
    assert (np.asarray(result.state.moments.count) == steps).all()


def test_a_run_goes_on_with_another_number_of_devices():
    whole = solve(mesh(), num_epochs=2)
    part = solve(mesh(), num_epochs=1)
    for count in (4, 2, 1):
        rest = solve(mesh(count), num_epochs=2, state=part.state)
        assert int(rest.state.epoch) == 2
        apart = farthest(whole.state.networks, rest.state.networks)
        assert apart == 0.0 if count == 4 else apart < 2e-5
    alone = solve(num_epochs=2, state=part.state)
    assert farthest(rest.state.networks, alone.state.networks) == 0.0


def test_faults_are_named_as_on_one_device():
    broken = [TwoKinds(np.where(np.arange(8) == 5, 2, KINDS)), Dazzled(num_agents=2, horizon=5)]
    for game in broken:
        lines = []
        for on in (None, mesh()):
            with pytest.raises(cn.GameError) as caught:
                solve(on, game=game, identity="none")
            lines.append(str(caught.value))
        assert lines[0] == lines[1]


def test_what_does_not_suit():
    for axes in (("agents",), ("trajectories", "agents")):
        with pytest.raises(ValueError, match="mesh: PPO shares trajectories alone"):
            solve(mesh(4, *axes))
    line = "mesh: num_trajectories must be a multiple of .*: 6 trajectories, 4 devices"
    with pytest.raises(ValueError, match=line):
        solve(mesh(), num_trajectories=6)
    text = {m: str(solve("auto", num_trajectories=m).devices) for m in (1, 6, 8)}
    assert text == {
        1: "one device (of 4: 1 trajectories)",
        6: "3 devices share the trajectories (of 4: 6 trajectories)",
        8: "4 devices share the trajectories (of 4: 8 trajectories)",
    }
