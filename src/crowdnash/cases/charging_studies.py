"""Which learner finds the fleet's equilibrium, and after how much play."""

from collections.abc import Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PRNGKeyArray, UInt32

from crowdnash.cases.charging import first_state
from crowdnash.cases.stages import Tell, write_table
from crowdnash.certificates.certificate import exploitability
from crowdnash.files import read_json, write_json
from crowdnash.games.fleet_charging import FleetCharging
from crowdnash.learners.driver import solve as learn
from crowdnash.learners.mirror_descent import EpochMetrics, PolicyMirrorDescent
from crowdnash.learners.mirror_state import MirrorDescentState
from crowdnash.reports.chart import Axis, Chart, Marker, Panels, Series
from crowdnash.reports.still import draw
from crowdnash.reports.style import save_figure

_EPOCHS = 200
_LOOKS = (1, 2, 5, 10, 20, 50, 100, 200)
_STEP, _TEMPERATURE = 5.0, 0.002
_COLUMNS = ("agent_steps", "largest", "mean")


class _Learner(NamedTuple):
    """What is compared, and how its curves look.

    Attributes:
        tables: who shares one: cars of a "type", no two cars ("car"), or nobody has one ("mixed").
        evaluation: see `PolicyMirrorDescent`.
        look: colour and marker.
    """

    tables: str
    evaluation: str
    look: tuple[str, Marker]


LEARNERS: Mapping[str, _Learner] = MappingProxyType(
    {
        "a table a type, fitted": _Learner("type", "fitted", ("blue", "circle")),
        "a table a type, TD": _Learner("type", "td", ("cyan", "square")),
        "a table a car, fitted": _Learner("car", "fitted", ("red", "triangle-up")),
        "a table a car, TD": _Learner("car", "td", ("yellow", "triangle-down")),
        "mixed model of the car's parameters": _Learner("mixed", "fitted", ("green", "diamond")),
    }
)
"""Tables start from the policy that spreads charging, the mixed model from the uniform one; a step
of 5 and a temperature of 0.002 EUR, the mixed model's step is automatic."""


def compare_learners(
    out: Path,
    game: FleetCharging,
    types: Int[np.ndarray, " N"],
    key: PRNGKeyArray,
    tell: Tell,
    executor: Executor | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Certify what each learner has learned after 1, 2, 5, ... 200 nights.

    Writes `learners.csv`, `learners.png` and, for each learner, `learner-K.json`; one that is there
    is not learned again.

    Args:
        out: the case's directory.
        game: only simulated by the learners; the certificate is exact.
        types: of the cars.
        key: decides the play.
        tell: is called with a line about every learner.
        executor: runs the learners; None: one after the other.

    Returns:
        For each learner agent-steps, largest and mean gain of a car in EUR.

    Raises:
        OSError: `out` cannot be written.
    """
    each = map if executor is None else executor.map
    paths = [out / f"learner-{number}.json" for number in range(len(LEARNERS))]
    work = partial(_learned, game, types, np.asarray(jax.random.key_data(key)))
    curves = {}
    for name, path in zip(LEARNERS, each(work, LEARNERS, paths), strict=True):
        curves[name] = read_json(path)
        tell(f"{name}: at last a car could save {curves[name]['largest'][-1]:.4f} EUR")
    rows = [
        (name.replace(",", ""), *row)
        for name, curve in curves.items()
        for row in zip(*(curve[column] for column in _COLUMNS), strict=True)
    ]
    write_table(out / "learners.csv", "learner,agent_steps,largest_gain,mean_gain", rows)
    save_figure(draw(_panels(curves)), out / "learners.png")
    return curves


def _learned(
    game: FleetCharging,
    types: Int[np.ndarray, " N"],
    key: UInt32[np.ndarray, "2"],
    name: str,
    path: Path,
) -> Path:
    """Write a learner's curve unless it is there; all arguments can go to another process."""
    if not path.exists():
        write_json(
            path, _curve(game, types, LEARNERS[name], jax.random.wrap_key_data(jnp.asarray(key)))
        )
    return path


def _curve(
    game: FleetCharging, types: Int[np.ndarray, " N"], chosen: _Learner, key: PRNGKeyArray
) -> dict[str, list[float]]:
    groups = {"type": types, "car": np.arange(game.num_agents)}.get(chosen.tables)
    settings: dict[str, Any] = {"num_epochs": _EPOCHS, "td_epochs": 1, "temperature": _TEMPERATURE}
    if groups is not None:
        settings |= {"groups": groups, "step_size": _STEP}
    learner = PolicyMirrorDescent.practical(evaluation=chosen.evaluation, **settings)
    state = None if groups is None else first_state(game, groups, learner, key)
    curve: dict[str, list[float]] = {column: [] for column in _COLUMNS}

    def look(state: MirrorDescentState, metrics: EpochMetrics) -> None:
        done = metrics.epoch + 1
        if done not in _LOOKS:
            return
        policy = learner.policies(game, state)["last"]
        certificate = exploitability(game, policy, key=jax.random.key(0))
        curve["agent_steps"].append(float(done * metrics.agent_steps))
        curve["largest"].append(float(certificate.maximum.lower))
        curve["mean"].append(float(certificate.mean.lower))

    learn(game, learner, key=key, state=state, callback=look)
    return curve


def _panels(curves: Mapping[str, Mapping[str, list[float]]]) -> Panels:
    charts = [
        Chart(
            f"The {column} gain",
            Axis("agent-steps of play", scale="log"),
            Axis("certified gain of a car, EUR", scale="log"),
            [
                Series(
                    name,
                    np.asarray(curve["agent_steps"]),
                    np.asarray(curve[column]),
                    LEARNERS[name].look[0],
                    "solid",
                    LEARNERS[name].look[1],
                )
                for name, curve in curves.items()
            ],
        )
        for column in ("largest", "mean")
    ]
    return Panels(charts, "What a car could still save while the fleet learns", 2, legend="below")
