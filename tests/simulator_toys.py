"""Small simulators in plain NumPy, with answers that are known by hand."""

import random

import numpy as np

import crowdnash as cn


class Drivers:
    """N drivers in two zones, as in a `PopulationGame` twin below; draws from its own generator."""

    num_actions, num_states = 2, 2

    def __init__(self, num_agents=20, horizon=5):
        self.num_agents, self.horizon = num_agents, horizon
        self.agent_features = np.linspace(0.0, 1.0, num_agents)[:, None]

    def reset(self, seed):
        self.rng = np.random.default_rng(seed)
        self.zones = self.rng.integers(0, 2, self.num_agents)
        return self.zones

    def step(self, actions):
        moved = (actions == 1) & (self.rng.random(self.num_agents) < 0.9)
        self.zones = np.where(moved, 1 - self.zones, self.zones)
        share = np.bincount(self.zones, minlength=2) / self.num_agents
        rewards = 1 - share[self.zones] - 0.1 * actions
        return self.zones, rewards, np.ones(self.num_agents, bool), None


class Mortals:
    """Action 1 pays 1.5 and ends the agent, action 0 pays 1: the best is to die at the last step.

    With H = 6 that earns 5 * 1 + 1.5 = 6.5; dying at once earns 1.5.
    """

    num_agents, num_actions, horizon, num_states = 10, 2, 6, 1

    def reset(self, seed):
        self.living = np.ones(self.num_agents, bool)
        return np.zeros(self.num_agents, int)

    def step(self, actions):
        rewards = np.where(self.living, np.where(actions == 1, 1.5, 1.0), 0.0)
        self.living = self.living & (actions == 0)
        return np.zeros(self.num_agents, int), rewards, self.living, None


class Cards:
    """Every agent holds 3 cards and plays each once; card k pays k at step 2 and 0 before.

    The best keeps card 2 to the end and earns 2. Playing a card twice raises.
    """

    num_agents, num_actions, horizon = 4, 3, 3

    def reset(self, seed):
        self.held, self.round = np.ones((self.num_agents, 3), bool), 0
        return self._seen()

    def legal(self):
        return self.held

    def step(self, actions):
        agents = np.arange(self.num_agents)
        if not self.held[agents, actions].all():
            raise RuntimeError("a card was played twice")
        self.held[agents, actions] = False
        self.round += 1
        rewards = np.where(self.round == 3, actions, 0)
        alive = np.full(self.num_agents, self.round < 3)
        return self._seen(), rewards, alive, self.held.copy()

    def _seen(self):
        return {"held": self.held.astype(np.float32), "round": np.full(self.num_agents, self.round)}


def uniform(sim):
    """The uniform policy in tables."""
    return cn.TabularPolicy.uniform(cn.simulators.as_game(sim))


class Doors:
    """In state 0 actions 0 and 1 are legal, in state 1 actions 0 and 2; they pay .2, .5 and 1.

    States alternate whatever is done, so that the best earns .5 + 1 in two steps.
    """

    num_agents, num_actions, horizon, num_states = 6, 3, 2, 2

    def reset(self, seed):
        self.states = np.arange(self.num_agents) % 2
        return self.states

    def legal(self):
        return np.array([[True, True, False], [True, False, True]])[self.states]

    def step(self, actions):
        if not self.legal()[np.arange(self.num_agents), actions].all():
            raise RuntimeError("no such door")
        rewards = np.array([0.2, 0.5, 1.0])[actions]
        self.states = 1 - self.states
        return self.states, rewards, np.ones(self.num_agents, bool), self.legal()


class Dice:
    """Pays what the global generators throw; cannot be copied if `alone`."""

    num_agents, num_actions, horizon, num_states = 3, 2, 4, 5

    def __init__(self, alone=False):
        self.alone = alone

    def __deepcopy__(self, memo):
        if self.alone:
            raise TypeError("holds a C object")
        return Dice()

    def reset(self, seed):
        return np.random.randint(0, 5, 3)  # noqa: NPY002

    def step(self, actions):
        rewards = np.random.random(3) + random.random()  # noqa: NPY002
        return np.random.randint(0, 5, 3), rewards, np.ones(3, bool), None  # noqa: NPY002


class Stairs:
    """Everybody climbs stairs alone and looks at the others: height pays, theirs hurts.

    Climbing costs .1, and leads up in 9 of 10 cases, else down. What is paid is noisy, and what the
    others do to it is not seen.
    """

    num_agents, num_actions, horizon, num_states = 12, 2, 5, 5

    def reset(self, seed):
        self.rng = np.random.default_rng(seed)
        self.heights = np.zeros(self.num_agents, int)
        return self.heights

    def step(self, actions):
        up = np.where(self.rng.random(self.num_agents) < 0.9, 1, -1)
        noise = 0.5 * self.rng.standard_normal(self.num_agents)
        others = (self.heights.sum() - self.heights) / (self.num_agents - 1)
        rewards = self.heights / 4 - 0.1 * actions - 0.2 * others + noise
        self.heights = np.clip(self.heights + actions * up, 0, 4)
        return self.heights, rewards, np.ones(self.num_agents, bool), None


def stairs_values(probs):
    """By induction: what a policy [H,S,A] earns from its own height, and what the best one does."""
    own, best, plans = np.zeros(5), np.zeros(5), []
    for rows in probs[::-1]:
        ends = np.clip(np.arange(5)[:, None] + [1, -1], 0, 4)
        q = [
            np.stack([np.arange(5) / 4 + v, np.arange(5) / 4 - 0.1 + v[ends] @ [0.9, 0.1]], 1)
            for v in (own, best)
        ]
        own, best = (rows * q[0]).sum(1), q[1].max(1)
        plans.append(q[1].argmax(1))
    return own[0], best[0], np.array(plans[::-1])


class Meeting:
    """Four walk on a field of ten by ten, and slip now and then; far from (5, 5) costs.

    Where one begins is drawn from all of the field.
    """

    num_agents, num_actions, horizon, num_states = 4, 4, 20, 100
    moves = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])

    def reset(self, seed):
        self.rng = np.random.default_rng(seed)
        self.places = self.rng.integers(0, 10, (4, 2))
        return self.places @ np.array([10, 1])

    def step(self, actions):
        slips, instead = self.rng.random(4) < 0.1, self.rng.integers(0, 4, 4)
        rewards = -np.abs(self.places - 5).sum(1) / 10
        moved = self.places + self.moves[np.where(slips, instead, actions)]
        self.places = np.clip(moved, 0, 9)
        return self.places @ np.array([10, 1]), rewards, np.ones(4, bool), None


def meeting_values():
    """By induction: what uniform play earns there, and what the best does."""
    places = np.stack(np.divmod(np.arange(100), 10), 1)
    ends = np.clip(places[:, None] + Meeting.moves, 0, 9) @ np.array([10, 1])
    paid = -np.abs(places - 5).sum(1, keepdims=True) / 10
    own, best = np.zeros(100), np.zeros(100)
    for _ in range(20):
        q = [paid + 0.9 * v[ends] + 0.1 * v[ends].mean(1, keepdims=True) for v in (own, best)]
        own, best = q[0].mean(1), q[1].max(1)
    return own.mean(), best.mean()
