"""Sioux Falls: 360,600 drivers on 76 links, judged by the published user equilibrium.

The network is that of LeBlanc, Morlok and Pierskalla (1975); times are in minutes.
"""

import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from crowdnash.cases.routes import (
    PHASES,
    Judgement,
    judge,
    learn_routes,
    network_of,
    policy_of,
    solve_routes,
)
from crowdnash.certificates.certificate import exploitability
from crowdnash.checks import check_choice, check_count
from crowdnash.files import read_arrays, read_json, write_arrays, write_atomically, write_json
from crowdnash.games.network import Network, checked_network
from crowdnash.games.route_choice import RouteChoice

USER_EQUILIBRIUM_OBJECTIVE = 4_231_335.28710744
"""Beckmann's objective at the best known user equilibrium that has been published."""

USER_EQUILIBRIUM_TIME = 7_480_225.345
SYSTEM_OPTIMUM_TIME = 7_194_256.053
"""Total travel times, in vehicle-minutes; the second by an independent path-based solver."""

Scale = Literal["small", "full"]
_VEHICLES = {"small": 10, "full": 1}
# Fewer drivers try fewer routes in an epoch, and epochs are cheap.
_PHASES = {"small": ((0.001, 50), (0.005, 50), (0.02, 200), (0.01, 100)), "full": PHASES}
_PATHS = {"small": 8, "full": 4}


def network() -> Network:
    """The 76 links, nodes numbered from 0; times in minutes, capacities in vehicles."""
    links = _table("links")
    links["from_node"] = links["from_node"].astype(int) - 1
    links["to_node"] = links["to_node"].astype(int) - 1
    return checked_network(links)


def game(scale: Scale = "full", *, num_routes: int = 10, **options: Any) -> RouteChoice:
    """The game of all drivers, 528 pairs of origin and destination.

    Args:
        scale: "full" is one agent a driver; "small" one for ten of them.
        num_routes: for each pair; the published equilibrium uses none but the 20 shortest.
        **options: as for `RouteChoice` (tolls, value_of_time, horizon).

    Raises:
        ValueError: `scale` is none of these, or an option is wrong.
    """
    check_choice("scale", scale, tuple(_VEHICLES))
    trips = _table("trips")
    origins, destinations = (trips[name].astype(int) - 1 for name in ("origin", "destination"))
    vehicles = _VEHICLES[scale]
    pair = np.repeat(np.arange(len(trips["trips"])), trips["trips"].astype(int) // vehicles)
    options = {"num_routes": num_routes, "vehicles": vehicles, **options}
    return RouteChoice(network(), origins, destinations, pair, **options)


def run(
    out: Path,
    *,
    scale: Scale = "full",
    seed: int = 0,
    tell: Callable[[str], Any] = lambda line: None,
) -> dict[str, Any]:
    """Solve exactly, learn from play, certify what was learned; what is there is not done again.

    Writes `exact.npz`, `learned.npz`, `links.csv` (the learned flows), `certificate.json` and
    `summary.json`.

    Args:
        out: a directory, new or of the same case, scale and seed.
        scale: see `game`.
        seed: decides all draws.
        tell: is called with a line about every stage.

    Returns:
        The summary.

    Raises:
        ValueError: `scale` or `seed` is wrong, or `out` holds something else.
        OSError: `out` cannot be written.
    """
    check_choice("scale", scale, tuple(_VEHICLES))
    check_count("seed", seed, 0)
    settings = {"case": "sioux-falls", "scale": scale, "seed": seed}
    out.mkdir(parents=True, exist_ok=True)
    if (out / "case.json").exists():
        if read_json(out / "case.json") != settings:
            raise ValueError(f"--out must be new or of the same case, scale and seed: {out}")
    elif any(out.iterdir()):
        raise ValueError(f"--out must be new or empty: {out}")
    write_json(out / "case.json", settings)
    keys = jax.random.split(jax.random.key(seed), 2)
    played = game(scale)
    exact_game = game(scale, num_routes=20)
    exact = _stage(out, "exact", tell, lambda: solve_routes(exact_game))
    learned = _stage(out, "learned", tell, lambda: learn_routes(played, keys[0], _PHASES[scale]))
    judged = judge(played, learned)
    _write_links(out / "links.csv", network_of(played), judged)
    begun = time.perf_counter()
    certificate = exploitability(
        played,
        policy_of(played, learned),
        key=keys[1],
        num_trajectories=_PATHS[scale],
        own_influence_agents=0,
    )
    certificate.save(out / "certificate.json")
    tell(f"certified {played.num_agents} drivers in {time.perf_counter() - begun:.1f} s")
    frozen = certificate.frozen
    assert frozen is not None  # nobody's transitions feel the others
    summary = {
        **settings,
        "num_agents": played.num_agents,
        "exact": _figures(judge(exact_game, exact)),
        "learned": _figures(judged),
        "largest_gain_minutes": [float(x) for x in frozen.maximum],
        "mean_gain_minutes": [float(x) for x in frozen.mean],
        "published_objective": USER_EQUILIBRIUM_OBJECTIVE,
        "price_of_anarchy": judge(exact_game, exact).total_time / SYSTEM_OPTIMUM_TIME,
    }
    write_json(out / "summary.json", summary)
    return summary


def _stage(
    out: Path, name: str, tell: Callable[[str], Any], work: Callable[[], np.ndarray]
) -> np.ndarray:
    path = out / f"{name}.npz"
    if path.exists():
        tell(f"{name}: done before")
        return read_arrays(path)["probs"]
    begun = time.perf_counter()
    probs = work()
    write_arrays(path, {"probs": probs})
    tell(f"{name}: {time.perf_counter() - begun:.1f} s")
    return probs


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
