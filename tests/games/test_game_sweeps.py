"""Games drawn in a batch: `jax.vmap` over half-widths, under the runtime type checks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash import mean_field

KEY = jax.random.key(0)
GAMES = (
    *("SIS", "RockPaperScissors", "Congestion", "BeachBar", "CrowdModelling"),
    pytest.param("Garnet", marks=pytest.mark.slow),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", GAMES)
def test_a_batch_of_half_widths_draws_what_each_would(name):
    def draw(width):
        return getattr(cn.games, name).sample(KEY, num_agents=6, horizon=3, heterogeneity=width)

    # jit, because one program compiles faster than its operations one by one
    batch = eqx.filter_jit(jax.vmap(draw))(jnp.asarray([0.0, 0.05]))
    alone = eqx.filter_jit(draw)
    for k, width in enumerate((0.0, 0.05)):
        one = eqx.filter(alone(jnp.asarray(width)), eqx.is_array)
        mine = jax.tree_util.tree_map(lambda x, k=k: x[k], eqx.filter(batch, eqx.is_array))
        for ours, theirs in zip(*map(jax.tree_util.tree_leaves, (mine, one)), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_traced_and_plain_half_widths_draw_the_same():
    def draw(width):
        return cn.games.SIS.sample(KEY, num_agents=6, heterogeneity=width).susceptibility

    np.testing.assert_allclose(jax.jit(draw)(0.05), draw(0.05), atol=1e-7)


@pytest.mark.slow
def test_a_sweep_through_the_induced_game():
    policy = np.full((3, 2, 2), 0.5)

    def gain(width):
        game = cn.games.SIS.sample(
            KEY, num_agents=50, horizon=3, heterogeneity={"susceptibility": width}
        )
        return mean_field.evaluate(cn.induced_game(game), policy).exploitability[0]

    batch = jax.vmap(gain)(jnp.asarray([0.0, 0.1]))
    np.testing.assert_allclose(batch, [gain(0.0), gain(0.1)], rtol=1e-5)


@pytest.mark.parametrize(
    ("width", "text"), [(0.5, r"susceptibility must be in \[0, 1\]"), (-0.1, "must be >= 0")]
)
def test_traced_values_out_of_range_are_errors_when_run(width, text):
    @eqx.filter_jit
    def draw(width):
        return cn.games.SIS.sample(KEY, num_agents=50, heterogeneity=width).susceptibility

    with pytest.raises(Exception, match=text):
        draw(jnp.asarray(width)).block_until_ready()


def test_what_a_half_width_may_be_is_said_in_words():
    with pytest.raises(ValueError, match="heterogeneity must be >= 0 and finite"):
        cn.games.SIS.sample(KEY, heterogeneity=-1.0)
    with pytest.raises(Exception, match="heterogeneity"):
        cn.games.SIS.sample(KEY, heterogeneity="some")
