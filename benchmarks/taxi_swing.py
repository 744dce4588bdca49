"""How far a fleet that learns A-Taxi by PPO swings between the zones, and what damps it.

A small A-Taxi (see `Size`): the best zone is the emptier one and everybody's policy moves at once.
Of every epoch the share of the fleet in zone 1 is kept, of those that left the start. A seed draws
the game and the learner's randomness; a fresh fleet is another draw of all taxis' parameters.

    python benchmarks/taxi_swing.py [--only TEXT ...] [--seeds K] [--limit-minutes X] [--quick]
    python benchmarks/taxi_swing.py --certify TEXT ... [--seeds K]
    python benchmarks/taxi_swing.py --summarise

The first form runs what is missing and appends one JSON line a run to results/taxi_swing.jsonl, so
it can be stopped and started again; the second appends what a few taxis can gain by deviating
alone (`exploitability(method="learned")`); the third prints the tables. `--quick` is tiny, into
results/partial.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import crowdnash as cn
from crowdnash.certificates.ppo_deviations import best_response_learner
from crowdnash.policies.identity import Identity
from measurement import RESULTS


@dataclass(frozen=True)
class Size:
    """How much a run does; a run is only compared with runs of the same size."""

    num_agents: int = 500
    horizon: int = 32
    num_epochs: int = 160
    later_epochs: int = 80
    minibatch_size: int = 4000
    hidden: int = 32
    learning_rate: float = 7e-4
    averaged: int = 20
    plays: int = 64
    deviators: int = 4
    deviation_epochs: int = 60
    deviation_plays: int = 32


QUICK = Size(
    num_agents=20,
    num_epochs=6,
    later_epochs=6,
    minibatch_size=160,
    averaged=2,
    plays=4,
    deviation_epochs=2,
)

# Changes of the settings, from the beginning.
VARIANTS: dict[str, Callable[[Size], dict[str, Any]]] = {
    "as it is": lambda s: {},
    "magnet 0.2": lambda s: {"magnet_weight": 0.2},
    "falling learning rate": lambda s: {"annealing_epochs": s.num_epochs},
    "parameters": lambda s: {"identity": "parameters"},
}
# Changes with which a fleet goes on that learned as it is: all begin from the same state.
LATER: dict[str, Callable[[Size], dict[str, Any]]] = {
    "then as it is": lambda s: {},
    "then learning rate / 4": lambda s: {"learning_rate": s.learning_rate / 4},
    "then 1 pass": lambda s: {"num_passes": 1},
    "then clip 0.05": lambda s: {"clip": 0.05},
    "then GAE's lambda 1": lambda s: {"gae_lambda": 1.0},
    "then magnet 0.2": lambda s: {"magnet_weight": 0.2},
    "then magnet 1": lambda s: {"magnet_weight": 1.0},
    "then 4 plays": lambda s: {"num_trajectories": 4, "minibatch_size": 4 * s.minibatch_size},
}
ALL = VARIANTS | LATER
ONE_ZONE = 0.95


def _fleet(size: Size, seed: int, *, fresh: bool = False) -> cn.games.Taxi:
    key = jax.random.key(seed + 1000 * fresh)
    return cn.games.Taxi.sample(key, num_agents=size.num_agents, horizon=size.horizon)


def _learner(size: Size, changes: dict[str, Any]) -> cn.PPO:
    settings: dict[str, Any] = {
        "num_epochs": size.num_epochs,
        "annealing_epochs": 0,
        "minibatch_size": size.minibatch_size,
        "hidden_sizes": (size.hidden, size.hidden),
        "learning_rate": size.learning_rate,
    }
    return cn.PPO(**(settings | changes))


def _for_fleet(policy: cn.NeuralPolicy, game: cn.games.Taxi, own: cn.games.Taxi) -> cn.NeuralPolicy:
    """The same network for the taxis of another fleet, measured by the own fleet's scale."""
    if not policy.identity.num_features:
        return policy
    before = np.asarray(own.agent_features)
    told = (np.asarray(game.agent_features) - before.mean(0)) / before.std(0)
    identity = eqx.tree_at(lambda i: i.features, policy.identity, jnp.asarray(told, jnp.float32))
    return eqx.tree_at(lambda p: p.identity, policy, identity)


def average_of(policies: list[cn.NeuralPolicy]) -> cn.NeuralPolicy:
    """Every agent plays one of these, agent i number i mod K: the fleet is their average."""
    actors = [policy.actor for policy in policies]
    count, like = policies[0].num_agents, policies[0].identity
    whose = np.arange(count) % len(actors)
    actor = jax.tree.map(lambda *x: jnp.stack(x)[whose], *actors)
    own = Identity(like.features, like.row, like.num_rows, True, "independent")
    return eqx.tree_at(lambda p: (p.actor, p.identity), policies[0], (actor, own))


@eqx.filter_jit
def _play(game: cn.games.Taxi, policy: cn.NeuralPolicy, key: jax.Array, plays: int) -> Any:
    """Of each play: mean reward of a step, the share in zone 1, and what both zones earned.

    The last two are mean total rewards of the taxis that ended there.
    """

    def one(key: jax.Array) -> tuple[jax.Array, ...]:
        reset_key, key = jax.random.split(key)

        def step(state: Any, now: tuple) -> Any:
            h, key = now
            draw_key, step_key = jax.random.split(key)
            agents = jnp.arange(game.num_agents)
            seen = game.observe(state)
            probs = jax.vmap(policy.probabilities, in_axes=(0, 0, None))(seen, agents, h)
            actions = jax.random.categorical(draw_key, jnp.log(probs))
            return game.step(state, actions, step_key)

        steps = (jnp.arange(game.horizon), jax.random.split(key, game.horizon))
        state, rewards = jax.lax.scan(step, game.reset(reset_key), steps)
        total, shares = rewards.sum(0), game.zone_shares(state)
        first, second = (total.mean(where=game.zone_of(state) == zone) for zone in (1, 2))
        return total.mean() / game.horizon, shares[1] / (shares[1] + shares[2]), first, second

    return jax.lax.map(one, jax.random.split(key, plays))


class Trained(NamedTuple):
    """What a run did in every epoch, its policies (the last and the average), and its state."""

    row: dict[str, Any]
    policies: dict[str, cn.NeuralPolicy]
    state: Any


def train(size: Size, variant: str, seed: int, begun: Any = None) -> Trained:
    """One run, from the beginning or on from a state."""
    game, changes = _fleet(size, seed), ALL[variant](size)
    skipped = size.num_epochs // 2
    if begun is not None:
        skipped = size.later_epochs // 4
        changes["num_epochs"] = size.num_epochs + size.later_epochs
        if "magnet_weight" in changes:
            begun = dataclasses.replace(begun, magnet=begun.networks.actor)
    learner, kept = _learner(size, changes), []

    def keep(state: Any, metrics: Any) -> None:
        if metrics.epoch >= learner.num_epochs - size.averaged:
            kept.append(learner.policies(game, state)["last"])

    start = time.perf_counter()
    result = cn.solve(game, learner, key=jax.random.key(100 + seed), state=begun, callback=keep)
    trace = [metrics.statistics for metrics in result.history]
    share = [s["zone_1_share"] / (s["zone_1_share"] + s["zone_2_share"]) for s in trace]
    row = {
        "variant": variant,
        "seed": seed,
        "size": asdict(size),
        "num_trajectories": learner.num_trajectories,
        "skipped": skipped,
        "share": np.round(share, 4).tolist(),
        "reward": [round(metrics.mean_reward, 5) for metrics in result.history],
        "entropy": result.history[-1].entropy,
        "seconds": round(time.perf_counter() - start, 1),
    }
    return Trained(row, {"last": result.policy, "average": average_of(kept)}, result.state)


def run(size: Size, variant: str, seed: int, begun: Any = None) -> Trained:
    """One run with its policies played by the own fleet, and by a fresh one."""
    trained = train(size, variant, seed, begun)
    own, fresh = _fleet(size, seed), _fleet(size, seed, fresh=True)
    for name, policy in trained.policies.items():
        for where, game in (("own", own), ("fresh", fresh)):
            moved = policy if game is own else _for_fleet(policy, game, own)
            found = _play(game, moved, jax.random.key(7), size.plays)
            trained.row[f"{name}_{where}"] = [float(jnp.nanmean(x)) for x in found]
    return trained


def _policies(size: Size, variant: str, seed: int) -> dict[str, cn.NeuralPolicy]:
    if variant in VARIANTS:
        return train(size, variant, seed).policies
    return train(size, variant, seed, train(size, "as it is", seed).state).policies


def certify(size: Size, variant: str, seed: int, names: list[str]) -> list[dict[str, Any]]:
    """What a few taxis gain by deviating alone, from the last policy and from the average."""
    game, rows = _fleet(size, seed), []
    policies = _policies(size, variant, seed)
    agents = np.arange(size.deviators) * size.num_agents // size.deviators
    for name in names:
        policy, begun = policies[name], time.perf_counter()
        found = cn.exploitability(
            game,
            policy,
            method="learned",
            agents=agents,
            num_trajectories=2 * size.plays,
            learner=best_response_learner(
                game,
                num_epochs=size.deviation_epochs,
                num_trajectories=size.deviation_plays,
            ),
            key=jax.random.key(5),
        )
        rows.append(
            {
                "variant": variant,
                "seed": seed,
                "size": asdict(size),
                "policy": name,
                "value": np.asarray(found.value).tolist(),
                "gain": np.asarray(found.lower).tolist(),
                "error": np.asarray(found.standard_error).tolist(),
                "lower": [found.maximum.lower, found.mean.lower],
                "seconds": round(time.perf_counter() - begun, 1),
            }
        )
    return rows


def swing(row: dict[str, Any]) -> dict[str, float]:
    """Standard deviation of the share without the first epochs of a run, and its period.

    `policy` is without the noise of drawing N M taxis' zones, whose variance is p (1 - p) / (N M).
    The period is that of the largest component of the spectrum.
    """
    share = np.asarray(row["share"])
    share = share[row["skipped"] :]
    mean = share.mean()
    drawn = mean * (1 - mean) / (row["size"]["num_agents"] * row["num_trajectories"])
    power = np.abs(np.fft.rfft(share - mean))[1:]
    return {
        "mean": mean,
        "played": share.std(),
        "policy": np.sqrt(max(share.var() - drawn, 0.0)),
        "period": len(share) / (1 + power.argmax()),
        "reward": np.mean(row["reward"][row["skipped"] :]),
    }


def _better_zone(first: float, second: float) -> float:
    """By how much one zone paid more than the other, in total reward (0 if one was empty)."""
    return abs(first - second) if np.isfinite(first - second) else np.nan


def collapsed(row: dict[str, Any]) -> bool:
    """Whether nearly all taxis were in one zone to the end: such a fleet has no swing to damp."""
    share = np.mean(row["share"][row["skipped"] :])
    return bool(max(share, 1 - share) > ONE_ZONE)


def _with_error(values: list[float], digits: int = 4) -> str:
    if len(values) < 2:  # one seed has no error
        return f"{np.mean(values):.{digits}f}"
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.{digits}f} ({error:.{digits}f})"


def tables(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The markdown tables: swings, fleets, and what taxis gain; of fleets in both zones."""
    yield "| variant | seeds | swing of the policy | swing as played | period | share | reward |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    played = [row for row in rows if "share" in row and not collapsed(row)]
    lost = [row for row in rows if "share" in row and collapsed(row)]
    stuck = {(row["variant"], row["seed"]) for row in lost}
    for variant in ALL:
        own = [row for row in played if row["variant"] == variant]
        if own:
            of = [swing(row) for row in own]
            cells = [
                _with_error([one[name] for one in of], digits)
                for name, digits in (("policy", 3), ("played", 3), ("period", 0), ("mean", 3))
            ]
            reward = _with_error([one["reward"] for one in of])
            seeds = f"{len(own)} of {len(own) + sum(r['variant'] == variant for r in lost)}"
            yield f"| {variant} | {seeds} | {' | '.join(cells)} | {reward} |"
    yield ""
    yield "| variant | policy | own fleet | fresh - own | share in zone 1 | better zone's gain |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for variant in ALL:
        own = [row for row in played if row["variant"] == variant]
        for name in ("last", "average") if own else ():
            here, there = ([row[f"{name}_{w}"][0] for row in own] for w in ("own", "fresh"))
            apart = _with_error([b - a for a, b in zip(here, there, strict=True)])
            share = _with_error([row[f"{name}_own"][1] for row in own], 3)
            gain = _with_error([_better_zone(*row[f"{name}_own"][2:]) for row in own], 3)
            cells = f"{_with_error(here)} | {apart} | {share} | {gain}"
            yield f"| {variant} | {name} | {cells} |"
    yield ""
    yield "| variant | policy | seeds | mean gain of a taxi | largest gain | value | gain / value |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for variant in ALL:
        for name in ("last", "average"):
            own = [r for r in rows if r["variant"] == variant and r.get("policy") == name]
            own = [r for r in own if (variant, r["seed"]) not in stuck]
            if own:
                mean, most = ([f(row["gain"]) for row in own] for f in (np.mean, np.max))
                value = [np.mean(row["value"]) for row in own]
                part = [a / b for a, b in zip(mean, value, strict=True)]
                cells = " | ".join(_with_error(x, 3) for x in (mean, most, value, part))
                yield f"| {variant} | {name} | {len(own)} | {cells} |"


def main() -> None:
    """Runs what is missing, or prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="*", default=[""], help="variants whose name has one")
    parser.add_argument("--certify", nargs="*", help="gains of deviations of these variants")
    parser.add_argument("--policies", nargs="*", default=["last", "average"], help="to certify")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--limit-minutes", type=float, default=1e9)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, into results/partial")
    parser.add_argument("--summarise", action="store_true")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else Size()
    folder: Path = RESULTS / "partial" if arguments.quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "taxi_swing.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    rows = [row for row in rows if row["size"] == asdict(size)]
    kind = "gain" if arguments.certify is not None else "share"
    done = {(row["variant"], row["seed"]) for row in rows if kind in row}
    wanted = arguments.only if arguments.certify is None else arguments.certify
    end = time.perf_counter() + 60 * arguments.limit_minutes
    for seed in () if arguments.summarise else arguments.seeds:
        asked = [v for v in ALL if any(x in v for x in wanted) and (v, seed) not in done]
        begun = None
        for variant in asked:
            if time.perf_counter() > end:
                break
            if arguments.certify is not None:
                new = certify(size, variant, seed, arguments.policies)
            else:
                if variant in LATER and begun is None:
                    begun = train(size, "as it is", seed).state
                trained = run(size, variant, seed, begun if variant in LATER else None)
                begun = trained.state if variant == "as it is" else begun
                new = [trained.row]
            rows += new
            with path.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in new)
            print(f"{variant}, seed {seed}: {new[-1]['seconds']} s", flush=True)
    print("\n".join(tables(rows)))


if __name__ == "__main__":
    main()
