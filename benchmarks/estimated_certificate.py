"""Method "estimated" judged where laws are known: they are hidden, and the intervals compared.

A game is played as if nothing were known of its laws; what comes out is laid beside the white-box
certificate of the same policy ("exact", or "paths" with many trajectories). Counted over keys: how
often the interval of the largest gain contains the truth, or the middle of the white-box interval.

    python benchmarks/estimated_certificate.py [--keys 20] [--plays 128]

prints a table.
"""

import argparse
from typing import Any

import jax
import numpy as np

import crowdnash as cn

GAMES = {
    "A-SIS, N=50, H=6": (cn.games.SIS, {"num_agents": 50, "horizon": 6}),
    "A-SIS, N=200, H=10": (cn.games.SIS, {"num_agents": 200, "horizon": 10}),
    "A-RPS, N=20, H=4": (cn.games.RockPaperScissors, {"num_agents": 20, "horizon": 4}),
    "beach bar, N=50, H=5": (
        cn.games.BeachBar,
        {"num_agents": 50, "horizon": 5, "num_positions": 5, "bar": 2},
    ),
}


def policies(game: Any) -> dict[str, Any]:
    """One far from equilibrium and one close to it."""
    learner = cn.PolicyMirrorDescent.practical(num_epochs=60)
    learned = cn.solve(game, learner, key=jax.random.key(1)).policy
    return {"uniform": cn.TabularPolicy.uniform(game), "learned": learned}


def row(name: str, game: Any, policy: Any, label: str, keys: int, plays: int) -> str:
    """One line of the table."""
    white = cn.exploitability(game, policy, key=jax.random.key(9), num_trajectories=1024)
    truth = sum(white.maximum) / 2
    ends = np.array(
        [
            cn.exploitability(
                game,
                policy,
                key=jax.random.key(100 + k),
                num_trajectories=plays,
                method="estimated",
            ).maximum
            for k in range(keys)
        ]
    )
    contains = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
    above = (ends[:, 1] >= white.maximum.upper).mean()
    low, high = ends.mean(0)
    cells = (
        f"{white.maximum.lower:.3f} to {white.maximum.upper:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{contains:.0%}",
        f"{above:.0%}",
    )
    return f"| {name} | {label} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description='Method "estimated" where laws are known.')
    parser.add_argument("--keys", type=int, default=20)
    parser.add_argument("--plays", type=int, default=128)
    arguments = parser.parse_args()
    print("| game | policy | white box | estimated, mean ends | contains | upper end above |")
    print("|---|---|---|---|---|---|")
    for name, (kind, sizes) in GAMES.items():
        game = kind.sample(jax.random.key(0), **sizes)
        for label, policy in policies(game).items():
            line = row(name, game, policy, label, arguments.keys, arguments.plays)
            print(line, flush=True)


if __name__ == "__main__":
    main()
