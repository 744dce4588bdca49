"""MFGLib: its beach bar with a thousand guests, certified from both sides."""

import jax
from mfglib.env import Environment

import crowdnash as cn

game = cn.simulators.mfglib(Environment.beach_bar(), num_agents=1000)
result = cn.solve(game, cn.PolicyMirrorDescent.practical(num_epochs=20), key=jax.random.key(0))
gain = cn.exploitability(game, result.policy, key=jax.random.key(1))
