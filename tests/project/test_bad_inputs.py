"""Bad inputs at every public function: each ends in one line that names the argument.

One table: a function, arguments that are right, and for each argument values that are wrong.
Types are unchecked here, as they are for users. Nothing is compiled before an input is refused.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from crowdnash import games, mean_field
from small_games import Drift, DriftByLaw, DriftSimulator

KEY = jax.random.key(0)
GAME = Drift()
POLICY = cn.TabularPolicy.symmetric(np.full((4, 3, 2), 0.5), 4)
TABLE = np.full((2, 4, 3, 2), 0.5)
PLAY = SimpleNamespace(
    states=np.zeros((16, 3, 4), int),
    actions=np.zeros((16, 3, 4), int),
    rewards=np.zeros((16, 3, 4)),
)
MFG = mean_field.TabularMeanFieldGame(np.full((2, 2, 2), 0.5), np.zeros((2, 2)), np.full(2, 0.5), 3)
STATES = np.zeros(4, int)
FLOW = np.full((3, 2, 2), 0.25)
PROBS = np.full((3, 2, 2), 0.5)

# What no integer is, what no number is, ...
COUNT = (None, "3", 2.5, True, [3], float("nan"))
NUMBER = (None, "0.5", True, [0.5, 0.5], float("nan"), float("inf"))
POSITIVE = (*NUMBER, 0.0, -1.0)
AT_LEAST_0 = (*NUMBER, -1.0)
SHARE = (*NUMBER, 0.0, 1.5)  # in (0, 1] or (0, 1)
FLAG = (None, "yes", 2)
NAME = (None, 3, "", "of my own", ["paths"])
KEYS = (None, 0, "key", np.zeros(2), jax.random.split(KEY))
GAMES = (None, "sis", games.SIS, {}, POLICY)
POLICIES = (None, "uniform", cn.TabularPolicy, TABLE[0], GAME)
ARRAY = (None, "abc", [[1.0], [1.0, 2.0]], {}, [None, None])
PATHS = (None, 3, "", b"")
INDICES = ("first", 1.5, [], [0, 0], [0, 4], [-1], [[0, 1]], [True, False, True, False])
MAPS = (
    "pairs",
    2.5,
    True,
    0,
    5,
    [0, 1],
    [0, 0, 2, 2],
    [0.0, 0, 1, 1],
    [2**32, 0, 0, 0],
    [0, 0, 0, -1],
)
MEAN_FIELDS = (None, GAME, "sis")

SAMPLED = {"key": KEYS, "num_agents": (*COUNT, 1, -3), "horizon": (*COUNT, 0)}
HALF_WIDTH = (None, "some", -0.1, float("nan"), {"colour": 0.1})


def act(observations=STATES, step=0, key=KEY, agents=None):
    return POLICY.act(observations, step, key, agents)


TAXI = {"jam_weight": np.ones(3), "zone1_multiplier": np.ones(3), "zone2_multiplier": np.ones(3)}
SIS = dict.fromkeys(("susceptibility", "recovery", "isolation_aversion"), np.full(3, 0.5))
RPS = {"crowding": np.ones(3), "loss": np.ones((3, 3)), "win": np.ones((3, 3))}
BEACH = dict.fromkeys(("attraction", "movement_cost", "crowd_aversion", "noise"), np.full(3, 0.5))
CROWD = {"preference": np.ones((3, 4)), "size": 4} | dict.fromkeys(
    ("movement_cost", "crowd_aversion", "noise"), np.full(3, 0.5)
)
CONGESTION = {
    "transitions": np.full((3, 2, 2, 2), 0.5),
    "congestion": np.zeros((3, 2, 2, 2)),
    "base": np.zeros((3, 2, 2)),
}
GARNET = {
    "transitions": np.full((3, 2, 2, 2), 0.5),
    "rewards": np.zeros((3, 2, 2)),
    "payoff": np.zeros((2, 2, 4)),
    "sensitivity": np.ones(3),
}

TABLE_OF_FUNCTIONS = [
    (cn.simulate, {"game": GAME, "policy": POLICY, "key": KEY, "num_trajectories": 2},
     {"game": GAMES, "policy": POLICIES, "key": KEYS, "num_trajectories": (*COUNT, 0, -1)}),
    (cn.check_game, {"game": GAME}, {"game": GAMES, "key": KEYS[1:]}),
    (cn.td_learning, {"game": GAME, "policy": POLICY, "key": KEY, "num_epochs": 2},
     {"game": GAMES, "policy": POLICIES, "key": KEYS, "num_epochs": (*COUNT, 0),
      "temperature": AT_LEAST_0, "agents": INDICES, "step_size": NAME, "delta": SHARE}),
    (cn.exploitability, {"game": GAME, "policy": POLICY, "key": KEY},
     {"game": GAMES, "policy": POLICIES, "key": KEYS, "num_trajectories": (*COUNT, 1),
      "agents": INDICES, "confidence": (*SHARE, 1.0), "own_influence_agents": (*COUNT, -1),
      "method": NAME}),
    (cn.exploitability, {"game": DriftSimulator(), "policy": POLICY, "key": KEY},
     {"learner": ("PPO", cn.PPO, cn.PolicyMirrorDescent()), "num_trajectories": COUNT,
      "method": ("paths", "exact", "enumerate")}),
    (cn.solve, {"game": GAME, "learner": cn.PolicyMirrorDescent(num_epochs=1), "key": KEY},
     {"game": GAMES, "learner": (None, "PPO", cn.PPO, POLICY), "key": KEYS, "state": (3, "old")}),
    (cn.solve_together, {"games": [GAME], "learner": cn.PPO(num_epochs=1), "keys": [KEY]},
     {"games": (None, [], [None], [GAME, GAME]), "learner": (None, "PPO"),
      "keys": (None, [], [0], [KEY, KEY])}),
    (cn.induced_game, {"game": GAME}, {"game": (*GAMES, DriftByLaw()), "groups": MAPS}),
    (cn.induced_game_from_queries, {"game": GAME},
     {"game": GAMES, "method": NAME, "extension": NAME, "key": KEYS[1:],
      "num_permutations": (*COUNT, 1)}),
    (cn.OptimisticQLearning, {},
     {"num_episodes": (*COUNT, 0), "bonus_scale": AT_LEAST_0, "batch_size": (*COUNT[1:], 0),
      "reward_range": ("wide", 1.0, (1.0, 0.0), (0.0, 1.0, 2.0), (0.0, float("inf")))}),
    (cn.symmetry, {"game": GAME},
     {"game": GAMES, "groups": MAPS, "method": NAME, "num_populations": (*COUNT, 0),
      "num_permutations": (*COUNT, 1), "transition_modulus": AT_LEAST_0[1:],
      "reward_modulus": AT_LEAST_0[1:], "seed": (*COUNT, -1)}),
    (cn.nash_bound, {"game": GAME, "sym": None},
     {"game": GAMES, "sym": (None, 0.1, "exact"), "end": NAME}),
    (cn.symmetry_against_groups, {"game": GAME, "group_counts": [1], "key": KEY},
     {"game": (*GAMES, DriftByLaw()), "group_counts": (None, [], 3, [0], [5], [1, 1], ["1"], [1.5]),
      "key": KEYS}),
    (cn.symmetry_from_trajectories, {"trajectories": PLAY, "num_states": 3, "num_actions": 2},
     {"trajectories": (None, 3, "play"), "num_states": (*COUNT, 0), "num_actions": (*COUNT, 0),
      "groups": MAPS, "num_bins": (*COUNT, 0), "min_visits": (*COUNT, 1), "time_dependent": FLAG,
      "confidence": SHARE}),
    (mean_field.estimate_mean_field_game,
     {"trajectories": PLAY, "num_states": 3, "num_actions": 2},
     {"trajectories": (None, 3, "play"), "num_states": (*COUNT, 0), "num_actions": (*COUNT, 0),
      "groups": MAPS, "time_dependent": FLAG, "shrinkage": POSITIVE}),
    (mean_field.TabularMeanFieldGame,
     {"transition": np.full((2, 2, 2), 0.5), "reward": np.zeros((2, 2)),
      "initial_distribution": [0.5, 0.5], "horizon": 3},
     {"transition": ARRAY, "reward": ARRAY, "initial_distribution": (*ARRAY, [0.5, 0.6]),
      "horizon": (*COUNT, 0), "reward_slope": ARRAY[1:], "group_weights": ARRAY[1:]}),
    (mean_field.population_flow, {"mfg": MFG, "probs": PROBS},
     {"mfg": MEAN_FIELDS, "probs": (*ARRAY, FLOW, PROBS[:2], 0 * PROBS, -PROBS)}),
    (mean_field.evaluate, {"mfg": MFG, "probs": PROBS}, {"mfg": MEAN_FIELDS, "probs": ARRAY}),
    (mean_field.exploitability, {"mfg": MFG, "probs": PROBS}, {"mfg": MEAN_FIELDS, "probs": ARRAY}),
    (mean_field.best_response, {"mfg": MFG, "flow": FLOW},
     {"mfg": MEAN_FIELDS, "flow": (*ARRAY, 2 * FLOW)}),
    (mean_field.q_values, {"mfg": MFG, "probs": PROBS},
     {"mfg": MEAN_FIELDS, "probs": ARRAY, "temperature": AT_LEAST_0, "flow": ARRAY[1:],
      "own_entropy": FLAG}),
    (mean_field.values, {"mfg": MFG, "probs": PROBS},
     {"mfg": MEAN_FIELDS, "temperature": ("1", -1)}),
    (mean_field.laws_at, {"mfg": MFG, "mu": FLOW[0]},
     {"mfg": MEAN_FIELDS, "mu": (*ARRAY, 2 * FLOW[0]), "step": (*COUNT, -1, 3)}),
    (mean_field.solve, {"mfg": MFG},
     {"mfg": MEAN_FIELDS, "method": NAME, "num_iterations": (*COUNT, -1), "tolerance": AT_LEAST_0,
      "temperature": (None, "hot", -1.0), "step_size": ("large", [1.0], 0.0), "mixing": FLAG,
      "output": NAME, "check_every": (*COUNT, 0), "initial": (*ARRAY[1:], FLOW)}),
    (cn.PolicyMirrorDescent, {},
     {"num_epochs": (*COUNT, -1), "td_epochs": (*COUNT, 0), "temperature": AT_LEAST_0,
      "step_size": (*POSITIVE, "fast"), "mixing": FLAG, "td_step_size": NAME, "td_delta": SHARE,
      "iterate": NAME}),
    (cn.PPO, {},
     {"num_epochs": (*COUNT, -1), "num_trajectories": (*COUNT, 0), "identity": (*NAME, "foo"),
      "num_passes": (*COUNT, 0), "minibatch_size": (*COUNT, 0), "learning_rate": POSITIVE,
      "annealing_epochs": COUNT[1:], "discount": (*NUMBER, 1.1), "gae_lambda": (*NUMBER, -0.1),
      "entropy_weight": AT_LEAST_0, "value_weight": AT_LEAST_0, "magnet_weight": AT_LEAST_0,
      "magnet_rate": (*NUMBER, 1.1), "magnet_start": (*COUNT, -1), "max_gradient_norm": POSITIVE,
      "clip": POSITIVE, "clip_values": FLAG, "normalise_advantages": FLAG,
      "hidden_sizes": (None, 64, (), "wide", (0,), (2.5,)), "horizon_is_end": FLAG,
      "matrix_dtype": NAME}),
    (cn.TabularPolicy.symmetric, {"probs": TABLE[0], "num_agents": 4},
     {"probs": (*ARRAY, TABLE, 2 * TABLE[0], -TABLE[0]), "num_agents": (*COUNT, 0)}),
    (cn.TabularPolicy.grouped, {"probs": TABLE, "groups": [0, 1]},
     {"probs": (*ARRAY, TABLE[0], np.nan * TABLE),
      "groups": (None, "ab", 1, [], [0, 2], [0, -1], [0.0, 1.0], [True, False], [2**32, 0])}),
    (cn.TabularPolicy.independent, {"probs": TABLE}, {"probs": (*ARRAY, TABLE[0], TABLE + 1)}),
    (cn.TabularPolicy.uniform, {"game": GAME}, {"game": GAMES}),
    (cn.TabularPolicy.load, {"path": "p.npz"}, {"path": PATHS}),
    (cn.NeuralPolicy.load, {"path": "p.npz"}, {"path": PATHS}),
    (POLICY.save, {"path": "p.npz"}, {"path": PATHS}),
    (act, {}, {"observations": (*ARRAY, [0.5] * 4, [0, 1], [3] * 4), "step": (*COUNT, -1, 4),
               "key": KEYS, "agents": ("all", [0, 1], [0, 1, 2, 4], [0.0] * 4)}),
    (games.lookup, {"name": "sis"}, {"name": (None, 3, "chess", ["sis"])}),
    (games.SIS.sample, {"key": KEY, "num_agents": 3},
     SAMPLED | {"heterogeneity": HALF_WIDTH, "susceptibility": (None, "0.5", [0.5], float("nan"))}),
    (games.RockPaperScissors.sample, {"key": KEY, "num_agents": 3}, SAMPLED | {"payoffs": NAME}),
    (games.Congestion.sample, {"key": KEY, "num_agents": 3},
     SAMPLED | {"num_states": (*COUNT, 0), "num_actions": (*COUNT, 0), "congestion": NUMBER,
                "power": POSITIVE, "num_counts": (*COUNT, 1)}),
    (games.BeachBar.sample, {"key": KEY, "num_agents": 3},
     {"num_positions": (*COUNT, 2), "bar": (*COUNT, 10), "beach": NAME, "least_share": SHARE}),
    (games.CrowdModelling.sample, {"key": KEY, "num_agents": 3},
     {"size": (*COUNT, 2), "dimensions": (*COUNT, 3), "least_share": SHARE}),
    (games.Garnet.sample, {"key": KEY, "num_agents": 3},
     SAMPLED | {"num_states": (*COUNT, 0), "branching": (*COUNT, 0, 6), "sparsity": (*COUNT, 16),
                "monotone": FLAG}),
    (games.Taxi.sample, {"key": KEY, "num_agents": 3},
     {"key": KEYS, "num_agents": (*COUNT, 1), "customer_rate": NUMBER, "zone1_pay": AT_LEAST_0,
      "jam_cap": NUMBER, "total_weight": NUMBER, "map_text": (None, 3, "no map")}),
    (games.SIS, SIS, dict.fromkeys(SIS, (*ARRAY, np.full(3, 2.0)))
     | {"horizon": (*COUNT, 0), "initial_distribution": (*ARRAY, [0.5, 0.6])}),
    (games.RockPaperScissors, RPS, dict.fromkeys(RPS, ARRAY) | {"horizon": COUNT}),
    (games.BeachBar, BEACH, dict.fromkeys(BEACH, ARRAY)),
    (games.CrowdModelling, CROWD, {"preference": ARRAY, "movement_cost": ARRAY, "size": COUNT}),
    (games.Congestion, CONGESTION, dict.fromkeys(CONGESTION, ARRAY)),
    (games.Garnet, GARNET, dict.fromkeys(GARNET, ARRAY)),
    (games.Taxi, TAXI, dict.fromkeys(TAXI, ARRAY) | {"horizon": (*COUNT, 0)}),
]  # fmt: skip

CASES = [
    (function, right, argument, value)
    for function, right, wrong in TABLE_OF_FUNCTIONS
    for argument, values in wrong.items()
    for value in values
]

# An argument that is refused by the name of what it becomes.
SPOKEN_OF_AS = {
    ("act", "agents"): "observations must have one entry an agent|agents must",
    ("td_learning", "step_size"): "td_step_size",
    ("PolicyMirrorDescent", "td_delta"): "delta",
    ("lookup", "name"): "game must be one of",
}


def test_the_table_is_long():
    assert len(CASES) >= 300


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_bad_input_ends_in_one_line_that_names_it(number):
    function, right, argument, value = CASES[number]
    expected = SPOKEN_OF_AS.get((function.__name__, argument), rf"\b{argument}\b")
    with pytest.raises(ValueError, match=expected) as raised:
        function(**(right | {argument: value}))
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: cn.simulate(GAME, POLICY, num_trajectories=1), "key"),
        (lambda: cn.solve(GAME, cn.PPO()), "key"),
        (lambda: cn.exploitability(GAME, POLICY), "key"),
        (lambda: cn.td_learning(GAME, POLICY, key=KEY), "num_epochs"),
        (lambda: games.SIS.sample(), "key"),
    ],
)
def test_python_itself_names_a_missing_argument(call, argument):
    with pytest.raises(TypeError, match=f"missing .* '{argument}'"):
        call()


@pytest.mark.usefixtures("no_type_checks")
def test_numbers_of_numpy_and_jax_are_right():
    cn.PolicyMirrorDescent(num_epochs=np.int64(3), temperature=np.float32(0.5), mixing=np.True_)
    games.SIS.sample(KEY, num_agents=np.int32(3), heterogeneity=jnp.float32(0.1))
    assert cn.TabularPolicy.symmetric(TABLE[0].tolist(), np.int8(4)).num_agents == 4
