"""Figs. 1a and 2b again: PPO on A-Taxi with five treatments of the agents' identity.

One run for each treatment and seed, over the same number of agent-steps, with the paper's
settings (Table 2). The paper does not say over how many epochs it anneals the learning rate; here
that is a thousand, whatever part of them is run. Seeds change the game's draw and all of learning.

Axes: R seeds, E epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crowdnash.learners.ppo.learner import PPO
from crowdnash.reproduction.fig1a_pictures import LEARNERS, Curves, curves_of, draw
from crowdnash.reproduction.study import Conclusion, Point, Scale, Settings, Study, Table
from crowdnash.runs import experiment
from crowdnash.runs.config import RunConfig
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.metrics_log import Row, read_metrics

_ANNEALING_EPOCHS = 1000
_REACHED = 0.9
_KEPT = ("mean_return", "mean_reward", "entropy", "zone_1_share", "zone_2_share", "play_seconds")


class _Size(NamedTuple):
    num_agents: int
    horizon: int
    num_epochs: int
    num_seeds: int


_SIZES: Mapping[Scale, _Size] = {
    "smoke": _Size(100, 32, 8, 1),
    "small": _Size(1000, 128, 40, 1),
    "paper": _Size(1000, 128, 400, 2),
}


def points(scale: Scale, seed: int) -> tuple[Point, ...]:
    """A run for every seed and treatment."""
    size = _SIZES[scale]
    return tuple(
        Point.of(
            "learner",
            "seed",
            learner=learner,
            seed=seed + k,
            num_agents=size.num_agents,
            horizon=size.horizon,
            num_epochs=size.num_epochs,
        )
        for k in range(size.num_seeds)
        for learner in LEARNERS
    )


def measure(settings: Settings, folder: Path) -> Sequence[Row]:
    """Train one fleet in `folder`, or go on where that stopped; a row for every epoch."""
    learner = LEARNERS[str(settings["learner"])]
    changes: Any = {"identity": learner.identity}
    if learner.entropy_weight is not None:
        changes["entropy_weight"] = learner.entropy_weight
    epochs = {"num_epochs": int(settings["num_epochs"] or 0), "annealing_epochs": _ANNEALING_EPOCHS}
    config = RunConfig.create(
        "taxi",
        game_parameters={name: settings[name] for name in ("num_agents", "horizon")},  # pyright: ignore[reportArgumentType]
        learner=PPO(**(epochs | changes)),
        seed=int(settings["seed"] or 0),
    )
    if (folder / "config.json").exists():
        _check_run(folder, config)
        experiment.resume(folder, num_epochs=config.num_epochs)
    else:
        experiment.run(config, folder)
    rows = read_metrics(folder / "metrics.jsonl")
    return [
        {name: row[name] for name in ("epoch", "agent_steps", *_KEPT, "seconds")} for row in rows
    ]


def _check_run(folder: Path, config: RunConfig) -> None:
    """Raise `ValueError` unless the run in `folder` is this one, of as many epochs or fewer."""
    stored = experiment.load_config(RunDirectory.open(folder))
    same = stored.decisive_settings() == config.decisive_settings()
    if not same or stored.num_epochs > config.num_epochs:
        raise ValueError(
            f"{folder} is a run with other settings, of another version: use a new --out"
        )


def conclude(rows: Sequence[Row]) -> Conclusion:
    """Final rewards, epochs to 90% of the best, cost, and the paper's three findings."""
    curves = curves_of(rows)
    finals = {name: _final(curve) for name, curve in curves.items()}
    best = max(value.mean() for value in finals.values())
    facts: dict[str, Any] = {}
    for name, curve in curves.items():
        reached = [_first_at(values, _REACHED * best) for values in curve.reward]
        facts[name] = {
            "final_reward": finals[name].tolist(),
            "epochs_to_90_percent": reached,
            "seconds_per_epoch": float(np.median(curve.seconds[:, 1:])),
            "play_seconds_per_epoch": float(np.median(curve.play_seconds[:, 1:])),
            "final_zone_1_share": curve.zone_1_share[:, -_tail(curve) :].mean(1).tolist(),
            "final_entropy": curve.entropy[:, -1].tolist(),
        }
    table = Table(
        title="A-Taxi: the last tenth of the epochs, mean over seeds (each seed in brackets)",
        columns=(
            "learner",
            "mean reward of a step",
            f"epochs to {_REACHED:.0%} of the best",
            "seconds an epoch",
            "share in zone 1",
        ),
        rows=tuple(_table_row(name, facts[name]) for name in curves),
    )
    return Conclusion(facts=facts, tables=(table,), verdict=_verdict(curves, finals, facts))


def _table_row(name: str, fact: Mapping[str, Any]) -> tuple[str, ...]:
    rewards, reached = fact["final_reward"], fact["epochs_to_90_percent"]
    return (
        LEARNERS[name].title,
        f"{np.mean(rewards):.4f} ({', '.join(f'{x:.4f}' for x in rewards)})",
        ", ".join("not reached" if x is None else str(x) for x in reached),
        f"{fact['seconds_per_epoch']:.2f}",
        ", ".join(f"{x:.3f}" for x in fact["final_zone_1_share"]),
    )


def _tail(curve: Curves) -> int:
    return max(1, curve.reward.shape[1] // 10)


def _final(curve: Curves) -> np.ndarray:
    return curve.reward[:, -_tail(curve) :].mean(1)


def _first_at(values: np.ndarray, bar: float) -> int | None:
    places = np.flatnonzero(values >= bar)
    return int(places[0]) + 1 if places.size else None


def _verdict(
    curves: Mapping[str, Curves], finals: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> tuple[str, ...]:
    order = sorted(finals, key=lambda name: -finals[name].mean())
    ranked = ", ".join(f"{LEARNERS[n].title} {finals[n].mean():.4f}" for n in order)
    area = {name: float(curve.reward.mean()) for name, curve in curves.items()}
    quick = sorted(area, key=lambda name: -area[name])
    said = [
        f"Final mean reward, best first: {ranked}.",
        "Mean reward over all epochs, best first: "
        + ", ".join(f"{LEARNERS[n].title} {area[n]:.4f}" for n in quick)
        + ". The paper finds Symm-NN first and Ind-NN last.",
    ]
    if {"symmetric", "independent"} <= set(facts):
        ratio = facts["independent"]["seconds_per_epoch"] / facts["symmetric"]["seconds_per_epoch"]
        said.append(
            f"An epoch of Ind-NN takes {ratio:.1f} times as long as one of Symm-NN: Symm-NN saves "
            f"{1 - 1 / ratio:.0%} (the paper: over 95%, with the networks trained in turn)."
        )
    if {"symmetric", "no-entropy"} <= set(facts):
        shares = [facts[name]["final_zone_1_share"] for name in ("symmetric", "no-entropy")]
        texts = [", ".join(f"{x:.3f}" for x in share) for share in shares]
        said.append(
            f"Share of taxis in zone 1 at the end: Symm-NN {texts[0]}, Symm-NN-NR {texts[1]}. "
            "The paper finds that Symm-NN-NR collapses to one zone."
        )
    return tuple(said)


STUDY = Study(
    name="fig1a",
    summary="A-Taxi with PPO: learning curves of five treatments of identity, and zone shares "
    "(Fig. 2b)",
    points=points,
    measure=measure,
    conclude=conclude,
    draw=draw,
)
