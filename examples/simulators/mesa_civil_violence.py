"""Mesa: citizens of Epstein's model decide themselves whether to rebel, where a rule did.

Hardship and risk aversion are each citizen's own; the same citizens live in every episode. To be
active pays the grievance, in jail every step costs the risk aversion.
"""

import jax
from mesa.examples.advanced.epstein_civil_violence import agents, model

import crowdnash as cn


def make(seed):
    """A model with the same citizens in every episode."""
    made = model.EpsteinCivilViolence(width=16, height=16, max_jail_term=5, seed=1)
    made.random.seed(seed)
    return made


rules = {
    "act": lambda citizen, rebels: setattr(citizen, "threshold", -9 if rebels else 9),
    "observe": lambda citizen: int(citizen.jail_sentence > 0),
    "reward": lambda one: [0, one.grievance, 0, -one.risk_aversion][one.state.value],
}
more = {"num_actions": 2, "num_states": 2, "horizon": 10, "features": ["hardship", "risk_aversion"]}
sim = cn.simulators.mesa(make, agents.Citizen, **rules, **more)
learner = cn.PolicyMirrorDescent.practical(num_epochs=6, td_epochs=4)
result = cn.solve(sim, learner, key=jax.random.key(0))
gain = cn.exploitability(sim, result.policy, key=jax.random.key(1), budget_steps=1_500)
