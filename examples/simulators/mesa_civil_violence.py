"""Mesa: citizens of Epstein's model decide whether to rebel, or let the model's rule decide.

Hardship and risk aversion are each citizen's own; the same citizens live in every episode. To be
active pays the grievance, in jail every step costs the risk aversion. The rule and what was learned
are certified alike, by the two citizens that earn least. Mesa's example needs networkx.
"""

import jax
from mesa.examples.advanced.epstein_civil_violence import agents, model

import crowdnash as cn


def make(seed):
    """A model with the same citizens in every episode."""
    some = {"citizen_vision": 4, "cop_vision": 4, "legitimacy": 0.3, "max_jail_term": 5}
    made = model.EpsteinCivilViolence(width=16, height=16, seed=1, **some)
    made.random.seed(seed)
    return made


rules = {
    "act": lambda citizen, choice: setattr(citizen, "threshold", (9, -9, 0.1)[choice]),
    "observe": lambda citizen: int(citizen.jail_sentence > 0),
    "reward": lambda one: [0, one.grievance, 0, -one.risk_aversion][one.state.value],
}
more = {"num_actions": 3, "num_states": 2, "horizon": 10, "features": ["hardship", "risk_aversion"]}
sim = cn.simulators.mesa(make, agents.Citizen, **rules, **more)
rule = cn.TabularPolicy.symmetric([[[0, 0, 1]] * 2] * 10, sim.num_agents)
learner = cn.PolicyMirrorDescent.practical(num_epochs=30, td_epochs=8, step_size=1.0)
result = cn.solve(sim, learner, key=jax.random.key(0))
gains = []
for policy in (rule, result.policy):  # of the two who earn least
    earned = cn.simulate(sim, policy, key=jax.random.key(1), num_trajectories=16).rewards.sum(1)
    worst, key = earned.mean(0).argsort()[:2], jax.random.key(2)
    gains.append(cn.exploitability(sim, policy, key=key, agents=worst, budget_steps=4_000))
