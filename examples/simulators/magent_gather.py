"""MAgent2: 495 foragers eat what is there, or each other."""

import jax
from magent2.environments import gather_v5

import crowdnash as cn

sim = cn.simulators.pettingzoo(lambda: gather_v5.parallel_env(max_cycles=30), horizon=30)
learner = cn.PPO(num_epochs=3, num_trajectories=2, minibatch_size=4096, hidden_sizes=(32,))
result = cn.solve(sim, learner, key=jax.random.key(0))
gain = cn.exploitability(sim, result.policy, key=jax.random.key(1), budget_steps=4_000)
