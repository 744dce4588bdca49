"""OpenSpiel: goofspiel with four players, whose cards shrink."""

import jax

import crowdnash as cn

parameters = {"players": 4, "num_cards": 4, "imp_info": True, "points_order": "descending"}
sim = cn.simulators.open_spiel("goofspiel", parameters=parameters)
learner = cn.PPO(num_epochs=10, num_trajectories=32, minibatch_size=192, hidden_sizes=(32,))
result = cn.solve(sim, learner, key=jax.random.key(0))
gain = cn.exploitability(sim, result.policy, key=jax.random.key(1), budget_steps=20_000)
