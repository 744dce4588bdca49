"""Gymnasium: the sub-environments of one vector environment as agents of one game."""

import gymnasium
import jax

import crowdnash as cn

sim = cn.simulators.gymnasium(lambda: gymnasium.make_vec("CartPole-v1", num_envs=8), horizon=50)
learner = cn.PPO(num_epochs=3, num_trajectories=4, minibatch_size=400, hidden_sizes=(32,))
result = cn.solve(sim, learner, key=jax.random.key(0))
gain = cn.exploitability(sim, result.policy, key=jax.random.key(1), budget_steps=10_000)
