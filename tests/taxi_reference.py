"""A-Taxi written the slow and obvious way: one taxi at a time, cells as (row, column), sets.

It reads the drawing of the city by itself and replays given random events.
"""

import numpy as np

MOVES = {0: (-1, 0), 1: (1, 0), 2: (0, -1), 3: (0, 1)}
WAIT = 4


class ReferenceTaxi:
    """Plays A-Taxi for parameters given as plain sequences, one entry a taxi."""

    def __init__(self, text, weights, pay1, pay2, cap):
        self.letter = {
            (r, c): letter
            for r, line in enumerate(text.split())
            for c, letter in enumerate(line.strip())
        }
        zones = [[cell for cell, x in sorted(self.letter.items()) if x == z] for z in "12"]
        self.order = zones[0] + zones[1]
        start = next(cell for cell, x in self.letter.items() if x == "S")
        self.weights, self.pay, self.cap = weights, {"1": pay1, "2": pay2}, cap
        self.cell = [start] * len(weights)
        self.customers = [set() for _ in weights]
        self.target: list = [None] * len(weights)

    def step(self, actions, jam, target, arrivals):
        """Rewards of one step; `arrivals` one set of cell numbers a taxi."""
        before = list(self.cell)
        return [
            self._act(i, actions[i], before, jam[i], target[i], arrivals[i])
            for i in range(len(before))
        ]

    def _act(self, i, action, before, jam, target, arrivals):
        here, reward = before[i], 0.0
        if action == WAIT:
            if self.target[i] == here:
                self.target[i] = None
                reward = self.pay[self.letter[here]][i]
            elif self.target[i] is None and here in self.customers[i]:
                self.customers[i].remove(here)
                zone = [x for x in self.order if self.letter[x] == self.letter[here] and x != here]
                self.target[i] = zone[int(np.float32(target) * np.float32(len(zone)))]
        else:
            weight = sum(w for w, cell in zip(self.weights, before, strict=True) if cell == here)
            goal = (here[0] + MOVES[action][0], here[1] + MOVES[action][1])
            if jam >= min(weight, self.cap) and self.letter.get(goal, "#") in "12":
                self.cell[i] = goal
        for number in arrivals:
            self.customers[i].add(self.order[number])
        return reward

    def number(self, cell):
        """A cell's number in the library; the start is the last one, no cell at all is -1."""
        if cell is None:
            return -1
        return self.order.index(cell) if cell in self.order else len(self.order)

    def state(self):
        """Positions, customers as bits and targets, as the library keeps them."""
        bits = [sum(1 << self.number(x) for x in customers) for customers in self.customers]
        return (
            np.array([self.number(x) for x in self.cell], np.int32),
            np.array(bits, np.uint32),
            np.array([self.number(x) for x in self.target], np.int32),
        )
