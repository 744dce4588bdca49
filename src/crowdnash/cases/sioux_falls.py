"""Sioux Falls: 360,600 drivers on 76 links, judged by the published user equilibrium.

The network is that of LeBlanc, Morlok and Pierskalla (1975); times are in minutes.
"""

from concurrent.futures import Executor
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
from jaxtyping import Float, Int

from crowdnash.cases.planning import system_optimum
from crowdnash.cases.routes import (
    PHASES,
    Judgement,
    Phases,
    judge,
    learn_routes,
    policy_of,
    solve_routes,
)
from crowdnash.cases.sioux_falls_studies import Scene, Study, draw_case, study_roads, study_tolls
from crowdnash.cases.stages import Tell, certified, open_case, stage
from crowdnash.certificates.certificate import exploitability
from crowdnash.checks import check_choice, check_count
from crowdnash.files import write_atomically, write_json
from crowdnash.games.network import Network, checked_network
from crowdnash.games.route_choice import RouteChoice

USER_EQUILIBRIUM_OBJECTIVE = 4_231_335.28710744
"""Beckmann's objective at the best known user equilibrium that has been published."""

USER_EQUILIBRIUM_TIME = 7_480_225.345
SYSTEM_OPTIMUM_TIME = 7_194_256.053
"""Total travel times, in vehicle-minutes, to judge by; the second by a path-based solver."""

Scale = Literal["small", "full"]
_VEHICLES = {"small": 10, "full": 1}
# Fewer drivers try fewer routes in an epoch, and epochs are cheap.
_PHASES: dict[Scale, Phases] = {"small": (("auto", 150), (0.01, 150)), "full": PHASES}
_PATHS = 8


def network() -> Network:
    """The 76 links, nodes numbered from 0; times in minutes, capacities in vehicles."""
    links = _table("links")
    links["from_node"] = links["from_node"].astype(int) - 1
    links["to_node"] = links["to_node"].astype(int) - 1
    return checked_network(links)


def places() -> Float[np.ndarray, "V 2"]:
    """Where the nodes are on the map of LeBlanc, Morlok and Pierskalla (1975), in its units."""
    nodes = _table("nodes")
    return np.stack([nodes["x"], nodes["y"]], axis=1)


def game(
    scale: Scale = "full",
    *,
    num_routes: int = 10,
    roads: Network | None = None,
    **options: Any,
) -> RouteChoice:
    """The game of all drivers, 528 pairs of origin and destination.

    Args:
        scale: "full" is one agent a driver; "small" one for ten of them.
        num_routes: for each pair; the published equilibrium needs none but the 20 shortest.
        roads: other links between the same nodes, by default `network()`.
        **options: as for `RouteChoice` (tolls, value_of_time, horizon).

    Raises:
        ValueError: `scale` is none of these, or an option is wrong.
    """
    check_choice("scale", scale, tuple(_VEHICLES))
    trips = _table("trips")
    origins, destinations = _ends()
    vehicles = _VEHICLES[scale]
    pair = np.repeat(np.arange(len(trips["trips"])), trips["trips"].astype(int) // vehicles)
    options = {"num_routes": num_routes, "vehicles": vehicles, **options}
    roads = network() if roads is None else roads
    return RouteChoice(roads, origins, destinations, pair, **options)


def run(
    out: Path,
    *,
    scale: Scale = "full",
    seed: int = 0,
    study: Study = "none",
    tell: Tell = lambda line: None,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """Solve exactly, learn from play, certify what was learned; what is there is not done again.

    Writes `exact.npz`, `optimum.npz`, `learned.npz`, `links.csv` (the learned flows),
    `certificate.json`, `summary.json` and pictures.

    Args:
        out: a directory, new or of the same case, scale and seed.
        scale: see `game`.
        seed: decides all draws.
        study: what else to compute: "tolls", "roads", "all" or "none" (see `sioux_falls_studies`).
        tell: is called with a line about every stage.
        executor: computes the roads of the study; None: one after the other.

    Returns:
        The summary.

    Raises:
        ValueError: `scale`, `seed` or `study` is wrong, or `out` holds something else.
        OSError: `out` cannot be written.
    """
    check_choice("scale", scale, tuple(_VEHICLES))
    check_choice("study", study, get_args(Study))
    check_count("seed", seed, 0)
    settings = {"case": "sioux-falls", "scale": scale, "seed": seed}
    open_case(out, settings)
    keys = jax.random.split(jax.random.key(seed), 2)
    roads, played = network(), game(scale)
    settled = game(scale, num_routes=20)
    exact = judge(settled, stage(out, "exact", tell, lambda: solve_routes(settled)), network=roads)
    best = stage(out, "optimum", tell, lambda: system_optimum(on_roads, roads, exact).flows)
    learned = stage(out, "learned", tell, lambda: learn_routes(played, keys[0], _PHASES[scale]))
    judged = judge(played, learned, network=roads)
    _write_links(out / "links.csv", roads, judged)
    certificate = certified(
        out / "certificate.json",
        tell,
        f"{played.num_agents} drivers",
        lambda: exploitability(
            played,
            policy_of(played, learned),
            key=keys[1],
            num_trajectories=_PATHS,
            own_influence_agents=0,
        ),
    )
    frozen = certificate.frozen
    assert frozen is not None  # nobody's transitions feel the others
    best_time = float(best @ roads.times(best))
    summary = {
        **settings,
        "num_agents": played.num_agents,
        "exact": _figures(exact),
        "learned": _figures(judged),
        "largest_gain_minutes": [float(x) for x in frozen.maximum],
        "mean_gain_minutes": [float(x) for x in frozen.mean],
        "published_objective": USER_EQUILIBRIUM_OBJECTIVE,
        "optimum_total_time": best_time,
        "price_of_anarchy": exact.total_time / best_time,
    }
    scene = Scene(places(), roads, on_roads, exact, best)
    draw_case(out, scene, judged, certificate, np.asarray(played.pair), _ends())
    if study in ("tolls", "all"):
        summary["tolls"] = study_tolls(out, scene)
    if study in ("roads", "all"):
        summary["roads"] = study_roads(out, scene, tell, executor)
    write_json(out / "summary.json", summary)
    return summary


def on_roads(roads: Network, **options: Any) -> RouteChoice:
    """The small game on other roads, for studies: 36,060 drivers stand for all."""
    return game("small", roads=roads, **options)


def _ends() -> Int[np.ndarray, "2 P"]:
    """Origins and destinations of the pairs."""
    trips = _table("trips")
    return np.stack([trips["origin"], trips["destination"]]).astype(int) - 1


def _figures(judged: Judgement) -> dict[str, float]:
    return {
        "objective": judged.objective,
        "excess": judged.objective / USER_EQUILIBRIUM_OBJECTIVE - 1,
        "relative_gap": judged.relative_gap,
        "total_time": judged.total_time,
    }


def _write_links(path: Path, links: Network, judged: Judgement) -> None:
    rows = zip(
        np.asarray(links.from_node) + 1,
        np.asarray(links.to_node) + 1,
        judged.flows,
        links.times(judged.flows),
        strict=True,
    )
    lines = [f"{a},{b},{flow:.6f},{minutes:.9f}" for a, b, flow, minutes in rows]
    write_atomically(path, "\n".join(["from_node,to_node,flow,time", *lines, ""]).encode())


def _table(name: str) -> dict[str, np.ndarray]:
    path = resources.files("crowdnash.cases") / "data" / f"sioux_falls_{name}.csv"
    header, *lines = path.read_text().splitlines()
    columns = np.array([[float(x) for x in line.split(",")] for line in lines]).T
    return dict(zip(header.split(","), columns, strict=True))
