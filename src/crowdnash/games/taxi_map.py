"""City maps for A-Taxi: a drawing in text, checked and turned into tables.

Axes: P positions (the zone cells, then the start), C = P-1 zone cells.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Int

ZONES = ("1", "2")
WALL, START = "#", "S"
MAX_ZONE_CELLS = 31
"""A customer map is one 32-bit word, and the start's bit in it stays 0."""

UP, DOWN, LEFT, RIGHT, WAIT = range(5)
_SHIFTS = ((-1, 0), (1, 0), (0, -1), (0, 1))

PAPER_MAP = """
111
111
111
#S#
222
222
222
"""
"""Rows 0-2 are zone 1, rows 4-6 zone 2; they meet only in the start (Yardim & He, E.2)."""

Cell = tuple[int, int]


@dataclass(frozen=True, eq=False)
class TaxiMap:
    """A city as tables over positions 0..P-1.

    Positions 0..n-1 are the n cells of zone 1 row by row, the next ones those of zone 2, and the
    last, P-1, is the start. `cells` [P,2] row and column; `zone` [P] 1 or 2, at the start 0;
    `destination` [P,5] where an action (up, down, left, right, wait) leads if nothing jams it;
    `walls` [rows,columns].
    """

    cells: Int[np.ndarray, "P 2"]
    zone: Int[np.ndarray, " P"]
    destination: Int[np.ndarray, "P 5"]
    walls: Bool[np.ndarray, "rows columns"]

    @property
    def num_positions(self) -> int:
        """P, the zone cells and the start."""
        return len(self.zone)

    @property
    def start(self) -> int:
        """The position where all agents start, P-1."""
        return self.num_positions - 1

    @property
    def zone_sizes(self) -> tuple[int, int]:
        """The number of cells of zone 1 and of zone 2."""
        return int((self.zone == 1).sum()), int((self.zone == 2).sum())


@cache
def read_map(map_text: str) -> TaxiMap:
    """Read a drawing: "1" and "2" are cells of the zones, "#" a wall, "S" the start.

    One line a row, blanks around it ignored. Moves lead to the four neighbours; walls, the edge
    and the start cannot be entered. A zone may touch the other one: a taxi can then cross.

    Raises:
        ValueError: naming the rule and the place (row and column, from 0): rows differ in length,
            a letter is unknown, there is not exactly one start, a zone has fewer than two cells
            (a customer needs somewhere to go), the zones have more than 31 cells together, a cell
            cannot be reached from the start, or a cell of a zone from another one without the
            start.
    """
    rows = [line.strip() for line in map_text.strip().splitlines()]
    letters = _letters(rows)
    start = _start(letters)
    zones = [[cell for cell, letter in letters.items() if letter == zone] for zone in ZONES]
    _check_sizes(zones)
    _check_ways(start, zones)
    cells = [*zones[0], *zones[1]]
    places = {cell: k for k, cell in enumerate(cells)}
    cells.append(start)
    destination = [
        [*(places.get(goal, k) for goal in _neighbours(cell)), k] for k, cell in enumerate(cells)
    ]
    zone = [1] * len(zones[0]) + [2] * len(zones[1]) + [0]
    walls = np.array([[letter == WALL for letter in row] for row in rows])
    return TaxiMap(_table(cells), _table(zone), _table(destination), _read_only(walls))


def _table(entries: list) -> np.ndarray:
    return _read_only(np.array(entries, np.int32))


def _read_only(table: np.ndarray) -> np.ndarray:
    table.flags.writeable = False  # one record serves all games on the same map
    return table


def _letters(rows: list[str]) -> dict[Cell, str]:
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(
                "map_text must have rows of equal length: "
                f"row 0 has {len(rows[0])} cells, row {number} has {len(row)}"
            )
        for column, letter in enumerate(row):
            if letter not in (*ZONES, WALL, START):
                raise ValueError(
                    f"map_text must consist of {''.join(ZONES)}{WALL}{START}, not {letter!r} at "
                    + _place((number, column))
                )
    return {(r, c): letter for r, row in enumerate(rows) for c, letter in enumerate(row)}


def _start(letters: dict[Cell, str]) -> Cell:
    starts = [cell for cell, letter in letters.items() if letter == START]
    if len(starts) != 1:
        places = f": {', '.join(map(_place, starts))}" if starts else ""
        raise ValueError(f"map_text must have one start {START!r}, not {len(starts)}{places}")
    return starts[0]


def _check_sizes(zones: list[list[Cell]]) -> None:
    for letter, cells in zip(ZONES, zones, strict=True):
        if len(cells) < 2:
            where = f" ({_place(cells[0])})" if cells else ""
            raise ValueError(
                f"map_text: zone {letter} must have at least 2 cells, so that a customer has "
                f"somewhere to go, not {len(cells)}{where}"
            )
    total = sum(map(len, zones))
    if total > MAX_ZONE_CELLS:
        raise ValueError(f"map_text must have at most {MAX_ZONE_CELLS} zone cells, not {total}")


def _check_ways(start: Cell, zones: list[list[Cell]]) -> None:
    """Every cell can be reached, and every target from where its customer may be picked up."""
    free = set(zones[0] + zones[1])
    from_start = _reached(set(_neighbours(start)) & free, free)
    for cell in sorted(free):
        if cell not in from_start:
            raise ValueError(
                f"map_text: the cell at {_place(cell)} cannot be reached from the start"
            )
    for letter, cells in zip(ZONES, zones, strict=True):
        within = _reached({cells[0]}, free)
        for cell in cells:
            if cell not in within:
                raise ValueError(
                    f"map_text: the cells of zone {letter} must reach each other without the "
                    f"start; {_place(cells[0])} and {_place(cell)} do not"
                )


def _reached(begin: Iterable[Cell], free: set[Cell]) -> set[Cell]:
    reached, pending = set(begin), list(begin)
    while pending:
        fresh = [cell for cell in _neighbours(pending.pop()) if cell in free - reached]
        reached.update(fresh)
        pending.extend(fresh)
    return reached


def _neighbours(cell: Cell) -> list[Cell]:
    return [(cell[0] + down, cell[1] + right) for down, right in _SHIFTS]


def _place(cell: Cell) -> str:
    return f"row {cell[0]}, column {cell[1]}"
