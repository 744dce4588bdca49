"""PettingZoo (butterfly): knights and archers against zombies; agents die."""

import jax
from pettingzoo.butterfly import knights_archers_zombies_v11 as knights

import crowdnash as cn

sim = cn.simulators.pettingzoo(lambda: knights.parallel_env(max_cycles=60), horizon=60)
learner = cn.PPO(num_epochs=3, num_trajectories=4, minibatch_size=400, identity="one-hot")
result = cn.solve(sim, learner, key=jax.random.key(0))
gain = cn.exploitability(sim, result.policy, key=jax.random.key(1), budget_steps=10_000)
