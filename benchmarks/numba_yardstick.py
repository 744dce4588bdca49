"""Two yardsticks: A-SIS and A-RPS as plain loops, compiled by Numba, on one core and on all.

Nothing here is general. Each game (paper, section 3) is written out by hand, one trajectory after
the other, one agent after the other, for one policy table that all agents play (G = 1). What the
library derives from a game's definition is measured against it.

On one core a trajectory is learned from as soon as it is played. With `parallel=True` the
trajectories are played side by side (`prange`), each into visit statistics of its own, and
Algorithm 1 replays those afterwards.

Random numbers are splitmix64 outputs, one 64-bit word per agent and step: its upper half chooses
the action, its lower half the move. Axes: N agents, H steps, S states, A actions, X = S * A pairs,
pair index = state * A + action.

    python benchmarks/numba_yardstick.py [--quick]
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numba import njit, prange

# The constants of splitmix64, and the factor that makes a float32 in [0, 1) of 24 bits.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
UNIT = np.float32(2.0**-24)


@dataclass(frozen=True)
class SISArrays:
    """A-SIS, H steps: susceptibility, recovery and isolation aversion of every agent, each [N]."""

    susceptibility: np.ndarray
    recovery: np.ndarray
    aversion: np.ndarray
    horizon: int

    @classmethod
    def sample(cls, num_agents: int, horizon: int, half_width: float, seed: int) -> "SISArrays":
        """Parameters uniform around the centres 0.81, 0.3 and 0.5."""
        draw = np.random.default_rng(seed)
        parameters = [
            (centre + half_width * draw.uniform(-1, 1, num_agents)).astype(np.float32)
            for centre in (0.81, 0.3, 0.5)
        ]
        susceptibility, recovery, aversion = parameters
        return cls(susceptibility, recovery, aversion, horizon)


@dataclass(frozen=True)
class RockPaperScissorsArrays:
    """A-RPS, H steps: crowding [N], loss [N,3] and win [N,3]."""

    crowding: np.ndarray
    loss: np.ndarray
    win: np.ndarray
    horizon: int

    @classmethod
    def sample(
        cls, num_agents: int, horizon: int, half_width: float, seed: int
    ) -> "RockPaperScissorsArrays":
        """Parameters uniform around crowding 3, loss (2, 4, 6) and win (1, 2, 3)."""
        draw = np.random.default_rng(seed)

        def around(centre: list[float]) -> np.ndarray:
            noise = draw.uniform(-1, 1, (num_agents, len(centre)))
            return (np.asarray(centre) + half_width * noise).astype(np.float32)

        return cls(around([3.0])[:, 0], around([2.0, 4.0, 6.0]), around([1.0, 2.0, 3.0]), horizon)


@dataclass(frozen=True)
class Epoch:
    """One epoch of Symm-PMD: the next policy [H,S,A], the values [H,S,A] and the mean return."""

    policy: np.ndarray
    values: np.ndarray
    mean_return: float


@njit(inline="always")
def _word(counter):
    """The splitmix64 output with this counter."""
    z = counter * GOLDEN
    z = (z ^ (z >> np.uint64(30))) * MIX_1
    z = (z ^ (z >> np.uint64(27))) * MIX_2
    return z ^ (z >> np.uint64(31))


@njit(inline="always")
def _upper(word):
    return np.float32(word >> np.uint64(40)) * UNIT


@njit(inline="always")
def _lower(word):
    return np.float32(word & np.uint64(0xFFFFFF)) * UNIT


@njit
def _play_sis(
    susceptibility, recovery, aversion, go_out, counter, state, pair, draw, rewards, transitions
):
    """One trajectory; `go_out` [H,2] is the probability of U in I and in H.

    Adds to `rewards` [H,4] (sums by pair) and to `transitions` [H,4,4] (pairs at h and h+1; the
    last step has its visits on the diagonal). `state`, `pair` (uint8) and `draw` (float32), each
    [N], are working memory.
    """
    num_agents = susceptibility.size
    horizon = go_out.shape[0]
    one = np.float32(1)
    for i in range(num_agents):
        state[i] = _word(counter + np.uint64(i)) >> np.uint64(63)
    counter += np.uint64(num_agents)
    for h in range(horizon):
        infected_out = 0
        for i in range(num_agents):
            word = _word(counter + np.uint64(i))
            draw[i] = _lower(word)
            s = state[i]
            a = np.uint8(_upper(word) < go_out[h, s])
            x = np.uint8(2 * s + a)
            infected_out += x == 1
            rewards[h, x] -= (one - s) + aversion[i] * (one - a)
            if h > 0:
                transitions[h - 1, pair[i], x] += 1
            pair[i] = x
        counter += np.uint64(num_agents)
        # Only healthy agents read the share of (I, U), and they are not part of it themselves.
        share = np.float32(infected_out) / np.float32(num_agents - 1)
        for i in range(num_agents):
            x = pair[i]
            falls_ill = susceptibility[i] * share if x == 3 else np.float32(0)
            heals = recovery[i]
            state[i] = draw[i] < heals if x < 2 else draw[i] >= falls_ill
    for i in range(num_agents):
        transitions[horizon - 1, pair[i], pair[i]] += 1
    return counter


@njit
def _play_rps(crowding, loss, win, cumulative, counter, state, pair, draw, rewards, transitions):
    """One trajectory; `cumulative` [H,3,3] is the policy summed over actions.

    Adds to `rewards` [H,9] and `transitions` [H,9,9] as `_play_sis` does. `draw` is not used.
    """
    num_agents = crowding.size
    horizon = cumulative.shape[0]
    others = np.float32(num_agents - 1)
    for i in range(num_agents):
        state[i] = np.uint8(_upper(_word(counter + np.uint64(i))) * np.float32(3))
    counter += np.uint64(num_agents)
    for h in range(horizon):
        in_state = np.zeros(3, np.int64)
        with_action = np.zeros(3, np.int64)
        for i in range(num_agents):
            uniform = _upper(_word(counter + np.uint64(i)))
            s = state[i]
            a = np.uint8(uniform >= cumulative[h, s, 0]) + np.uint8(uniform >= cumulative[h, s, 1])
            x = np.uint8(3 * s + a)
            in_state[s] += 1
            with_action[a] += 1
            if h > 0:
                transitions[h - 1, pair[i], x] += 1
            pair[i] = x
        counter += np.uint64(num_agents)
        for i in range(num_agents):
            x = pair[i]
            s, a = x // 3, x % 3
            # Whoever is in the state that beats s, or loses to it, is not in s: no own share there.
            beaten_by = np.float32(in_state[(s + 1) % 3]) / others
            beats = np.float32(in_state[(s + 2) % 3]) / others
            crowd = np.float32(with_action[a] - 1) / others
            rewards[h, x] += win[i, s] * beats - loss[i, s] * beaten_by - crowding[i] * crowd
            state[i] = a
    for i in range(num_agents):
        transitions[horizon - 1, pair[i], pair[i]] += 1
    return counter


@njit
def _update_values(values, visited, probs, entropy, rewards, transitions, temperature):
    """One update of Algorithm 1 from all agents of one trajectory, steps by visits.

    `values` [H+1,X] (its last row stays 0) and `visited` [H,X] are updated in place.
    """
    horizon, num_pairs = rewards.shape
    num_actions = probs.shape[2]
    for h in range(horizon):  # forwards: row h+1 is still the old one
        for x in range(num_pairs):
            visits = 0
            target = np.float32(0)
            for y in range(num_pairs):
                visits += transitions[h, x, y]
                target += transitions[h, x, y] * values[h + 1, y]
            if visits == 0:
                continue
            target = (target + rewards[h, x]) / visits + temperature * entropy[h, x // num_actions]
            step_size = (horizon + 1) / (horizon + 1 + visited[h, x])
            values[h, x] += np.float32(step_size * (target - values[h, x]))
            visited[h, x] += 1


def _entropy(probs: np.ndarray) -> np.ndarray:
    return -(probs * np.log(np.maximum(probs, np.float32(1e-30)))).sum(-1)


def _mirror_step(
    probs: np.ndarray, values: np.ndarray, temperature: float, step_size: float
) -> np.ndarray:
    """The closed form of Algorithm 2's mirror step, without the mixing."""
    entropy_free = values - temperature * _entropy(probs)[..., None]
    log_probs = np.log(np.maximum(probs, np.float32(1e-30)))
    logits = (1 - temperature * step_size) * log_probs + step_size * entropy_free
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def _player(game: SISArrays | RockPaperScissorsArrays, probs: np.ndarray):
    """The compiled trajectory of this game, with its parameters and its form of the policy."""
    if isinstance(game, SISArrays):
        agents = (game.susceptibility, game.recovery, game.aversion)
        return _play_sis, (*agents, np.ascontiguousarray(probs[..., 1]))
    cumulative = np.cumsum(probs, axis=-1, dtype=np.float32)
    return _play_rps, (game.crowding, game.loss, game.win, cumulative)


@njit
def _simulate(play, inputs, shape, num_trajectories, counter):
    """The sum over agents and trajectories of the returns."""
    num_agents, horizon, num_pairs = shape
    state = np.empty(num_agents, np.uint8)
    pair = np.empty(num_agents, np.uint8)
    draw = np.empty(num_agents, np.float32)
    rewards = np.zeros((horizon, num_pairs))
    transitions = np.zeros((horizon, num_pairs, num_pairs), np.int32)
    total = 0.0
    for _ in range(num_trajectories):
        rewards[:] = 0
        counter = play(*inputs, counter, state, pair, draw, rewards, transitions)
        total += rewards.sum()
    return total


@njit
def _evaluate(play, inputs, shape, num_trajectories, counter, probs, entropy, temperature):
    """Algorithm 1: values [H,X] and the sum over agents and trajectories of the returns."""
    num_agents, horizon, num_pairs = shape
    state = np.empty(num_agents, np.uint8)
    pair = np.empty(num_agents, np.uint8)
    draw = np.empty(num_agents, np.float32)
    rewards = np.zeros((horizon, num_pairs))
    transitions = np.zeros((horizon, num_pairs, num_pairs), np.int32)
    values = np.zeros((horizon + 1, num_pairs), np.float32)
    visited = np.zeros((horizon, num_pairs), np.int32)
    total = 0.0
    for _ in range(num_trajectories):
        rewards[:] = 0
        transitions[:] = 0
        counter = play(*inputs, counter, state, pair, draw, rewards, transitions)
        _update_values(values, visited, probs, entropy, rewards, transitions, temperature)
        total += rewards.sum()
    return values[:horizon], total


@njit(parallel=True)
def _play_side_by_side(play, inputs, shape, num_trajectories, counter):
    """Visit statistics of all trajectories: rewards [M,H,X] and transitions [M,H,X,X]."""
    num_agents, horizon, num_pairs = shape
    rewards = np.zeros((num_trajectories, horizon, num_pairs))
    transitions = np.zeros((num_trajectories, horizon, num_pairs, num_pairs), np.int32)
    for m in prange(num_trajectories):
        state = np.empty(num_agents, np.uint8)
        pair = np.empty(num_agents, np.uint8)
        draw = np.empty(num_agents, np.float32)
        first = counter + np.uint64(m) * np.uint64(num_agents * (horizon + 1))
        play(*inputs, first, state, pair, draw, rewards[m], transitions[m])
    return rewards, transitions


@njit
def _replay(rewards, transitions, probs, entropy, temperature):
    """Algorithm 1 from the visit statistics of all trajectories, one after the other: [H,X]."""
    num_trajectories, horizon, num_pairs = rewards.shape
    values = np.zeros((horizon + 1, num_pairs), np.float32)
    visited = np.zeros((horizon, num_pairs), np.int32)
    for m in range(num_trajectories):
        _update_values(values, visited, probs, entropy, rewards[m], transitions[m], temperature)
    return values[:horizon]


def _shape(game: SISArrays | RockPaperScissorsArrays, probs: np.ndarray) -> tuple[int, int, int]:
    parameters = game.recovery if isinstance(game, SISArrays) else game.crowding
    return parameters.size, game.horizon, probs.shape[1] * probs.shape[2]


def simulate(
    game: SISArrays | RockPaperScissorsArrays,
    probs: np.ndarray,
    num_trajectories: int,
    seed: int,
    *,
    parallel: bool = False,
) -> float:
    """Mean return over agents and `num_trajectories` trajectories of the policy probs [H,S,A]."""
    play, inputs = _player(game, probs)
    shape = _shape(game, probs)
    counter = np.uint64(seed) << np.uint64(40)
    if parallel:
        total = _play_side_by_side(play, inputs, shape, num_trajectories, counter)[0].sum()
    else:
        total = _simulate(play, inputs, shape, num_trajectories, counter)
    return total / (shape[0] * num_trajectories)


def symmetric_epoch(
    game: SISArrays | RockPaperScissorsArrays,
    probs: np.ndarray,
    num_trajectories: int,
    seed: int,
    *,
    temperature: float = 0.01,
    step_size: float = 0.3,
    parallel: bool = False,
) -> Epoch:
    """One epoch of Symm-PMD: simulate, TD from all agents with steps by visits, mirror step."""
    play, inputs = _player(game, probs)
    shape = _shape(game, probs)
    counter = np.uint64(seed) << np.uint64(40)
    learning = (probs, _entropy(probs), np.float32(temperature))
    if parallel:
        played = _play_side_by_side(play, inputs, shape, num_trajectories, counter)
        values, total = _replay(*played, *learning), played[0].sum()
    else:
        values, total = _evaluate(play, inputs, shape, num_trajectories, counter, *learning)
    values = values.reshape(probs.shape)
    policy = _mirror_step(probs, values, temperature, step_size)
    return Epoch(policy, values, total / (shape[0] * num_trajectories))


def uniform_probs(game: SISArrays | RockPaperScissorsArrays) -> np.ndarray:
    """The uniform policy [H,S,A] of this game."""
    size = 2 if isinstance(game, SISArrays) else 3
    return np.full((game.horizon, size, size), 1 / size, np.float32)


def main() -> None:
    """Prints ns per agent-step of the two games, and mean returns to hold against known ones."""
    parser = argparse.ArgumentParser(description="the Numba yardstick on its own")
    parser.add_argument("--quick", action="store_true", help="few trajectories")
    trajectories = 100 if parser.parse_args().quick else 1000
    # Without heterogeneity and for many agents: -8.1204 and -16.6667 in the mean field.
    games = (SISArrays.sample(1000, 20, 0.0, 0), RockPaperScissorsArrays.sample(2000, 10, 0.0, 0))
    for game in games:
        probs = uniform_probs(game)
        agent_steps = _shape(game, probs)[0] * game.horizon * trajectories
        for parallel in (False, True):
            for name, action in (
                (
                    "simulation",
                    lambda g=game, p=probs, c=parallel: simulate(g, p, trajectories, 1, parallel=c),
                ),
                (
                    "epoch",
                    lambda g=game, p=probs, c=parallel: (
                        symmetric_epoch(g, p, trajectories, 1, parallel=c).mean_return
                    ),
                ),
            ):
                action()
                begin = time.perf_counter()
                mean_return = action()
                nanoseconds = (time.perf_counter() - begin) / agent_steps * 1e9
                cores = "all cores" if parallel else "one core"
                print(
                    f"{type(game).__name__:>24} {name:>10}, {cores:>9}: {nanoseconds:5.2f} ns "
                    f"per agent-step, mean return {mean_return:.4f}"
                )


if __name__ == "__main__":
    main()
