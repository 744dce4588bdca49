"""Learning on four devices against one; `test_several_devices.py` runs it where there are four.

How far results may be apart. Devices add the same numbers in another order, and a sum of n numbers
in float32 is right to depth x 2^-24 of the sum of their sizes, depth <= n being how many additions
one number goes through: M within a chunk, N over tiles, 4 over devices. Q is a mean of such sums at
each of H steps, so |dQ| <= 2 (M + N + 4) 2^-24 H max|R|, and a mirror step moves no probability by
more than xi |dQ|, here xi <= 1, beside the last bits of exp and log.
"""

import jax
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.learners.mirror_devices import _run_shared
from crowdnash.simulation.rollouts import chunk_size

KEY = jax.random.key(1)
N, M, H = 24, 10, 4
SIS = cn.games.SIS.sample(jax.random.key(0), num_agents=N, horizon=H, heterogeneity=0.1)
TOLERANCE = 2 * (M + N + 4) * 2.0**-24 * H * 1.5 + 8 * 2.0**-23
# Regressions divide by normal equations besides; of few uncorrelated features, whose condition
# numbers stay below 100.
REGRESSION_TOLERANCE = 100 * TOLERANCE


def mesh(*axes: str) -> jax.sharding.Mesh:
    return jax.make_mesh((4,) if len(axes) == 1 else (2, 2), axes)


def solve(on=None, *, game=SIS, num_epochs=1, **arguments):
    learner = cn.PolicyMirrorDescent(
        **({"num_epochs": num_epochs, "td_epochs": M, "mixing": False} | arguments)
    )
    return cn.solve(game, learner, key=KEY, mesh=on)


def tables(result) -> np.ndarray:
    policy = result.last_policy
    return np.asarray(policy.weights if isinstance(policy, cn.FeaturePolicy) else policy.probs)


def differences(one, several) -> float:
    assert tables(one).shape == tables(several).shape
    assert np.ptp(tables(one)) > 0.01  # something was learned
    pairs = zip(one.history, several.history, strict=True)
    for before, after in pairs:
        np.testing.assert_allclose(after.mean_return, before.mean_return, atol=TOLERANCE * H)
        assert after.agent_steps == before.agent_steps
    return float(np.abs(tables(one) - tables(several)).max())


MESHES = [("trajectories",), ("agents",), ("trajectories", "agents")]
INDEPENDENT = {"groups": "independent"}
FITTED = {"evaluation": "fitted"}
MIXED = FITTED | {"representation": "mixed", "step_size": "auto"}


@pytest.mark.parametrize("axes", MESHES, ids="-".join)
def test_independent_tables_are_bit_identical(axes):
    """Contributions are integers, summed exactly, and nobody's table reads another's."""
    one = solve(num_epochs=3, **INDEPENDENT)
    assert differences(one, solve(mesh(*axes), num_epochs=3, **INDEPENDENT)) == 0.0


@pytest.mark.parametrize("axes", MESHES, ids="-".join)
def test_a_mixed_model_is_equal_to_rounding(axes):
    assert differences(solve(**MIXED), solve(mesh(*axes), **MIXED)) < REGRESSION_TOLERANCE


def test_features_of_the_step_are_equal_to_rounding():
    """After two epochs, so that what the first left has been used."""

    def by_step(agents, step):
        return (step + 1.0) * np.stack(agents[:2], axis=1)

    arguments = MIXED | {"features": by_step, "num_epochs": 2}
    apart = differences(solve(**arguments), solve(mesh("agents"), **arguments))
    assert apart < 2 * REGRESSION_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("axes", MESHES, ids="-".join)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"groups": 5},
        FITTED,
        FITTED | {"groups": 5, "step_size": "auto"},
        FITTED | INDEPENDENT | {"step_size": "auto"},
        FITTED | {"representation": "features"},
    ],
    ids=["td", "td-5", "fitted", "fitted-5", "fitted-independent", "features"],
)
def test_every_learner_is_equal_to_rounding(axes, arguments):
    most = REGRESSION_TOLERANCE if "representation" in arguments else TOLERANCE
    assert differences(solve(**arguments), solve(mesh(*axes), **arguments)) < most


@pytest.mark.slow
@pytest.mark.parametrize("axes", [("trajectories",), ("agents",)], ids="-".join)
def test_a_game_of_many_states_is_equal_to_rounding(axes):
    """More pairs than are counted by comparison, and tables read by look-ups."""
    game = cn.games.BeachBar.sample(jax.random.key(2), num_agents=N, horizon=3)
    for arguments in ({"groups": 3}, INDEPENDENT):
        one, several = (solve(on, game=game, **arguments) for on in (None, mesh(*axes)))
        assert differences(one, several) < 20 * TOLERANCE  # rewards are larger


def test_more_devices_than_trajectories():
    """10 trajectories leave two of four devices less to do in the last round, 3 leave one idle."""
    for arguments in ({"td_epochs": 3} | INDEPENDENT,):
        one, several = (solve(on, **arguments) for on in (None, mesh("trajectories")))
        assert differences(one, several) == 0.0


def test_a_run_goes_on_with_another_number_of_devices():
    """States are in the order of agents, wherever they lie."""
    whole = solve(num_epochs=3, **INDEPENDENT)
    part = solve(mesh("agents"), num_epochs=1, **INDEPENDENT)
    learner = cn.PolicyMirrorDescent(num_epochs=2, td_epochs=M, mixing=False, groups="independent")
    part = cn.solve(SIS, learner, key=KEY, state=part.state, mesh=mesh("trajectories"))
    learner = cn.PolicyMirrorDescent(num_epochs=3, td_epochs=M, mixing=False, groups="independent")
    part = cn.solve(SIS, learner, key=KEY, state=part.state)
    np.testing.assert_array_equal(tables(whole), tables(part))


def test_td_learning_shares_trajectories():
    policy = cn.TabularPolicy.uniform(SIS)
    one, several = (
        cn.td_learning(SIS, policy, key=KEY, num_epochs=M, mesh=on)
        for on in (None, mesh("trajectories"))
    )
    np.testing.assert_allclose(one, several, atol=TOLERANCE)
    assert float(np.ptp(one)) > 0.1


def test_a_certificate_shares_paths():
    """Paths are the same; their sums are added in another order, and a plan that rests on them
    moves a value by no more than H steps' errors, at each of H steps."""
    policy = solve(num_epochs=1, **INDEPENDENT).last_policy
    one, several = (
        cn.exploitability(SIS, policy, key=KEY, num_trajectories=M, own_influence_agents=2, mesh=on)
        for on in (None, mesh("trajectories"))
    )
    assert one.method == "paths"
    assert float(np.ptp(one.upper)) > 0.01
    for name in ("value", "lower", "upper", "standard_error"):
        np.testing.assert_allclose(
            getattr(several, name), getattr(one, name), atol=H * TOLERANCE, err_msg=name
        )
    for name in ("maximum", "mean"):
        ends = [(x.lower, x.upper) for x in (getattr(one, name), getattr(several, name))]
        np.testing.assert_allclose(*ends, atol=10 * H * TOLERANCE)  # of spreads times quantiles
    with pytest.raises(ValueError, match="exploitability shares trajectories alone"):
        cn.exploitability(SIS, policy, key=KEY, mesh=mesh("agents"))


def sums_in_loops(on, **arguments) -> tuple[list[int], int]:
    """All-reduces in the body of each loop of the compiled epoch that has any; those outside."""
    learner = cn.PolicyMirrorDescent(td_epochs=M, mixing=False, **arguments)
    state = learner.init(SIS, key=KEY)
    devices, game, state = learner.shared(SIS, state, on)
    size = chunk_size(N, M, devices)
    lowered = _run_shared.lower(devices, game, state, learner._numbers(0), size)
    text = lowered.compile().compiled.as_text()
    computations = {}
    for block in text.split("\n\n"):
        name = block.strip().removeprefix("ENTRY ").split(" ")[0]
        computations[name] = block.count(" all-reduce(") + block.count(" all-reduce-start(")
    bodies = {part.split(",")[0].strip() for part in text.split("body=")[1:]}
    inside = [computations[name] for name in bodies if computations[name]]
    return inside, sum(computations.values()) - sum(inside)


def test_messages_of_a_step():
    """Agents: one sum a step, in one loop, beside the mean return and the change of policy after
    it. Trajectories: none in any loop; statistics and mean return once an epoch."""
    assert sums_in_loops(mesh("agents"), **INDEPENDENT) == ([1], 2)
    inside, outside = sums_in_loops(mesh("trajectories"), **FITTED)
    assert inside == []
    assert 1 <= outside <= 4


def test_auto_shares_trajectories_where_all_fits_and_says_so():
    result = solve("auto", **INDEPENDENT)
    assert str(result.devices).startswith("4 devices share the trajectories (10 trajectories, and")
    few = solve("auto", td_epochs=3, **INDEPENDENT)
    assert str(few.devices) == "4 devices share the agents (3 trajectories are too few)"


def test_agents_with_tables_must_come_out_even():
    game = cn.games.SIS.sample(KEY, num_agents=26, horizon=2)
    line = "must be a multiple of the devices .* each agent has a table: 26 agents, 4 devices"
    with pytest.raises(ValueError, match=line):
        solve(mesh("agents"), game=game, **INDEPENDENT)
    solve(mesh("agents"), game=game)  # a shared table has no such limit
