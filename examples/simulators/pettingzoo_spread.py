"""PettingZoo (mpe2): three agents cover three landmarks."""

import jax
from mpe2 import simple_spread_v3

import crowdnash as cn

sim = cn.simulators.pettingzoo(lambda: simple_spread_v3.parallel_env(max_cycles=25), horizon=25)
learner = cn.PPO(num_epochs=60, num_trajectories=32, minibatch_size=800, learning_rate=3e-3)
result = cn.solve(sim, learner, key=jax.random.key(0))
gain = cn.exploitability(sim, result.policy, key=jax.random.key(1), budget_steps=20_000)
