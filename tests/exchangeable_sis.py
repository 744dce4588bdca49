"""A-SIS with N identical agents by counts, in plain NumPy: Def. 2 where enumeration cannot reach.

What one agent sees of N-1 others who are alike is how many of them are infected, k. Given k and
the number m of infected others who go out, each infected other recovers and each healthy other who
goes out is infected with probability susceptibility * (m + own) / (N-1), independently; own is 1 if
the agent itself is infected and out. Nothing of the library is used.
"""

import itertools

import numpy as np
import scipy.stats


def exploitability(
    num_agents: int,
    susceptibility: float,
    recovery: float,
    aversion: float,
    initial: tuple[float, float],
    policy: np.ndarray,
) -> tuple[float, float]:
    """J of everybody's `policy` [H,S,A] and the most a single agent can gain; states (I,H)."""
    others, horizon = num_agents - 1, len(policy)
    counts = np.arange(num_agents)
    rules = np.array(list(itertools.product(range(2), repeat=2 * horizon))).reshape(-1, horizon, 2)
    tables = np.concatenate([policy[None], np.eye(2)[rules]])  # the policy itself first
    start = scipy.stats.binom.pmf(counts, others, initial[0])
    now = np.einsum("p,s,k->psk", np.ones(len(tables)), np.asarray(initial), start)
    total = np.zeros(len(tables))
    for h in range(horizon):
        out_infected, out_healthy = policy[h, 0, 1], policy[h, 1, 1]
        out = scipy.stats.binom.pmf(counts[None], counts[:, None], out_infected)  # [k,m]
        after = np.zeros_like(now)
        for s, a in itertools.product(range(2), repeat=2):
            mass = now[:, s] * tables[:, h, s, a, None]  # [policies,k]
            total += mass.sum(1) * (-(s == 0) - aversion * (a == 0))
            own = int(s == 0 and a == 1)
            for m in counts:
                caught = min(1.0, out_healthy * susceptibility * (m + own) / others)
                weight = mass * out[:, m]  # [policies,k]
                nxt = weight @ _next_counts(others, recovery, caught)
                infected = 1 - recovery if s == 0 else susceptibility * m / others * (a == 1)
                after[:, 0] += infected * nxt
                after[:, 1] += (1 - infected) * nxt
        now = after
    return float(total[0]), float(total[1:].max() - total[0])


def _next_counts(others: int, recovery: float, caught: float) -> np.ndarray:
    """P(k' | k): those who stay infected plus the healthy who are infected, [k,k']."""
    table = np.zeros((others + 1, others + 1))
    for k in range(others + 1):
        stay = scipy.stats.binom.pmf(np.arange(k + 1), k, 1 - recovery)
        new = scipy.stats.binom.pmf(np.arange(others - k + 1), others - k, caught)
        table[k] = np.convolve(stay, new)
    return table
