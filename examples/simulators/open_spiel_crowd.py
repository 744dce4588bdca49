"""OpenSpiel: its mean-field game of crowd modelling, played by a hundred copies."""

import jax

import crowdnash as cn

sim = cn.simulators.open_spiel("mfg_crowd_modelling", num_agents=100)
learner = cn.PolicyMirrorDescent.practical(num_epochs=20, td_epochs=10, groups="symmetric")
result = cn.solve(sim, learner, key=jax.random.key(0))
gain = cn.exploitability(sim, result.policy, key=jax.random.key(1), budget_steps=20_000)
