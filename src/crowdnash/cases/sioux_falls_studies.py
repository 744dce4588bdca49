"""The pictures of Sioux Falls, and the studies that a planner may ask for besides.

Axes: L links, P pairs, N drivers, V nodes.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from crowdnash.cases.planning import (
    GameOn,
    RoadStudy,
    add_roads,
    close_roads,
    new_roads,
    who_pays_tolls,
)
from crowdnash.cases.routes import Judgement
from crowdnash.certificates.result import Exploitability
from crowdnash.files import write_atomically, write_json
from crowdnash.games.network import Network
from crowdnash.reports.roads import (
    change_map,
    road_changes,
    saturation_map,
    who_could_gain,
    who_pays,
)
from crowdnash.reports.still import draw
from crowdnash.reports.style import save_figure

Study = Literal["none", "tolls", "roads", "all"]

_LONGEST_NEW_ROAD = 2.3


class Scene(NamedTuple):
    """What the studies share.

    Attributes:
        places: of the nodes.
        roads: the links.
        game_on: makes the drivers' game on any links.
        settled: the user equilibrium.
        optimum: flows of the system optimum.
    """

    places: Float[np.ndarray, "V 2"]
    roads: Network
    game_on: GameOn
    settled: Judgement
    optimum: Float[np.ndarray, " L"]


def draw_case(
    out: Path,
    scene: Scene,
    learned: Judgement,
    certificate: Exploitability,
    pair: Int[np.ndarray, " N"],
    ends: Int[np.ndarray, "2 P"],
) -> None:
    """Draw `flows.png`, `optimum.png` and `gains.png`.

    Args:
        out: a directory.
        scene: the case.
        learned: what was learned from play.
        certificate: of that, for all drivers.
        pair: of every driver.
        ends: origins and destinations of the pairs.
    """
    places, roads = scene.places, scene.roads
    title = "Learned from play: flow (width) and saturation"
    save_figure(saturation_map(places, roads, learned.flows, title), out / "flows.png")
    change = scene.optimum - scene.settled.flows
    title = "What the system optimum would change"
    figure = change_map(places, roads, change, title, "vehicles more or fewer")
    save_figure(figure, out / "optimum.png")
    assert certificate.frozen is not None
    lower = np.bincount(pair, certificate.frozen.lower) / np.bincount(pair)
    panels = who_could_gain(lower, ends[0], ends[1], len(places))
    save_figure(draw(panels), out / "gains.png")


def study_tolls(out: Path, scene: Scene) -> dict[str, Any]:
    """Marginal-cost tolls and lognormal values of time: `tolls.json` and `tolls.png`.

    Args:
        out: a directory.
        scene: the case.

    Returns:
        What `tolls.json` holds.
    """
    study = who_pays_tolls(scene.game_on, scene.roads, scene.settled, scene.optimum)
    columns = {name: getattr(study, name) for name in study._fields}
    columns |= {"loss": study.loss, "loss_after_refund": study.loss_after_refund}
    figures = {name: np.asarray(x).tolist() for name, x in columns.items()}
    write_json(out / "tolls.json", figures)
    minutes = (study.minutes_before, study.minutes)
    panels = who_pays(study.value_of_time, study.loss, study.loss_after_refund, *minutes)
    save_figure(draw(panels), out / "tolls.png")
    return figures


def study_roads(
    out: Path,
    scene: Scene,
    tell: Callable[[str], Any] = lambda line: None,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """Every road closed, and short ones added: `roads.csv` and `roads.png`.

    Args:
        out: a directory.
        scene: the case.
        tell: is called with a line about every road.
        executor: computes the roads; None: one after the other.

    Returns:
        The share by which the total time grows, by road, for closing and adding.
    """
    closed = close_roads(scene.game_on, scene.roads, tell, executor)
    candidates = new_roads(scene.places, scene.roads, _LONGEST_NEW_ROAD)
    added = add_roads(scene.game_on, scene.roads, candidates, tell, executor)
    changes = [_changes(study, scene.settled) for study in (closed, added)]
    lines = ["change,one,other,total_time_change"]
    for name, studies, shares in zip(("close", "add"), (closed, added), changes, strict=True):
        lines += [
            f"{name},{x.road[0] + 1},{x.road[1] + 1},{share:.6f}"
            for x, share in zip(studies, shares, strict=True)
        ]
    write_atomically(out / "roads.csv", "\n".join([*lines, ""]).encode())
    roads = [[x.road for x in study] for study in (closed, added)]
    figure = road_changes(scene.places, roads[0], changes[0], roads[1], changes[1])
    save_figure(figure, out / "roads.png")
    return {
        name: {f"{a + 1}-{b + 1}": float(x) for (a, b), x in zip(ends, shares, strict=True)}
        for name, ends, shares in zip(("close", "add"), roads, changes, strict=True)
    }


def _changes(studies: list[RoadStudy], settled: Judgement) -> Float[np.ndarray, " R"]:
    return np.array([study.total_time for study in studies]) / settled.total_time - 1
