"""What a run keeps of its game for those who read it later: alpha, beta, the agents' parameters.

Reports read saved files only, so what they say of the game has to be saved while it is at hand.

Axes: N agents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float

from crowdnash.approximate_symmetry.agent_laws import Reader, open_reader
from crowdnash.approximate_symmetry.alike import check_same_start_and_actions
from crowdnash.approximate_symmetry.deviation import LawStudy, SearchEffort, study_law
from crowdnash.files import read_arrays, read_json, write_arrays, write_json
from crowdnash.games.base import DynamicGame, GameError, PopulationGame
from crowdnash.games.declarations import check_declarations
from crowdnash.games.vectorised import Law
from crowdnash.interval import Interval
from crowdnash.runs.directory import RunDirectory

_FORMAT = 1
_MAX_PARAMETERS = 24
# Entries of the two laws that are looked at: a few seconds' work.
_MAX_WORK = 300_000_000


@dataclass(frozen=True)
class ExactSymmetry:
    """Def. 7's alpha and beta of a game, all agents being one group, where both are exact.

    Attributes:
        alpha: largest L1 distance of an agent's transition law from the mean one, in [0, 2].
        beta: largest distance of an agent's reward from the mean one, reward units per step.
        reward_range: the lowest and the highest reward of a step that any agent may get.
    """

    alpha: float
    beta: float
    reward_range: Interval


@dataclass(frozen=True)
class GameRecord:
    """The game of a run, as its directory keeps it.

    Attributes:
        symmetry: alpha and beta; None where they are not both exact and cheap.
        parameters: what tells agents apart, by name, each [N]; constants are left out.
    """

    symmetry: ExactSymmetry | None
    parameters: Mapping[str, Float[np.ndarray, " N"]]

    @classmethod
    def of(cls, game: DynamicGame) -> GameRecord:
        """Read a game's record off the game."""
        return cls(exact_symmetry(game), agent_parameters(game))

    def save(self, directory: RunDirectory) -> None:
        """Write agents.npz, and symmetry.json if there is something to put into it.

        Raises:
            OSError: they cannot be written.
        """
        write_arrays(directory.agents, dict(self.parameters))
        if self.symmetry is not None:
            content = {
                "format": _FORMAT,
                "alpha": self.symmetry.alpha,
                "beta": self.symmetry.beta,
                "reward_range": list(self.symmetry.reward_range),
            }
            write_json(directory.symmetry, content)

    @classmethod
    def load(cls, directory: RunDirectory, num_agents: int | None = None) -> GameRecord:
        """Read what `save` wrote; what an older run does not have is empty.

        Args:
            directory: the run.
            num_agents: how many agents the game is known to have, or None.

        Raises:
            ValueError: a file is damaged, or for another game; the message names it.
        """
        parameters = read_arrays(directory.agents) if directory.agents.exists() else {}
        for name, values in parameters.items():
            rows = num_agents or len(values)
            if values.shape != (rows,) or not np.issubdtype(values.dtype, np.floating):
                raise ValueError(
                    f"{directory.agents} is not for this run: {name!r} must be a float for each "
                    f"of {rows} agents, not {values.dtype} of shape {list(values.shape)}"
                )
        symmetry = _read_symmetry(directory) if directory.symmetry.exists() else None
        return cls(symmetry, parameters)


def _read_symmetry(directory: RunDirectory) -> ExactSymmetry:
    stored = read_json(directory.symmetry)
    try:
        if stored["format"] != _FORMAT:
            raise ValueError(f"it has format {stored['format']!r}, not {_FORMAT}")
        low, high = (float(end) for end in stored["reward_range"])
        return ExactSymmetry(float(stored["alpha"]), float(stored["beta"]), Interval(low, high))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{directory.symmetry} is damaged: {type(error).__name__}: {error}"
        ) from None


def exact_symmetry(game: DynamicGame) -> ExactSymmetry | None:
    """Return alpha and beta (Def. 7) with all agents in one group, if they are exact and cheap.

    That is so for a `PopulationGame` whose laws are both declared free of the aggregate or affine
    in it, whose agents contribute alike, and which is not too large. `symmetry` has all the rest.
    """
    if not isinstance(game, PopulationGame):
        return None
    if "nonlinear" in (game.transition_in_aggregate, game.reward_in_aggregate):
        return None
    groups = np.zeros(game.num_agents, np.int32)
    try:
        check_same_start_and_actions(game, groups)
    except ValueError:  # agents differ in what alpha and beta do not measure
        return None
    with jax.enable_x64(True):
        try:
            check_declarations(game)
            reader = open_reader(game, groups)
            work = _work(reader, "transition") + _work(reader, "reward")
            if not reader.same_contributions or work > _MAX_WORK:
                return None
            moves, pays = (_study(reader, law) for law in ("transition", "reward"))
        except GameError:  # no number, or not what it is declared to be: `symmetry` raises for it
            return None
    return ExactSymmetry(
        float(moves.lower.max()),
        float(pays.lower.max()),
        Interval(float(pays.table.low), float(pays.table.high)),
    )


def _work(reader: Reader, law: Law) -> int:
    game = reader.game
    vertices = 1 if reader.dependence(law) == "free" else reader.num_pairs
    steps = len(reader.steps(law))
    return game.num_agents * reader.num_pairs * reader.width(law) * vertices * steps


def _study(reader: Reader, law: Law) -> LawStudy:
    # An affine or free law is settled at the vertices: nothing is searched.
    return study_law(reader, law, SearchEffort(num_populations=1, seed=0, modulus=None), np.inf)


def agent_parameters(game: DynamicGame) -> dict[str, Float[np.ndarray, " N"]]:
    """Return what tells the agents of a game apart, by name: the first 24 that are not constant.

    For a `PopulationGame` the fields of `agents`, with indices where a field has more than one
    number an agent (`loss[0]`); for another game the columns of `agent_features` (`feature[0]`).
    """
    parameters: dict[str, np.ndarray] = {}
    if isinstance(game, PopulationGame):
        fields = jax.tree_util.tree_leaves_with_path(game.agents)
        named = [
            (jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in fields
        ]
    else:
        named = [] if game.agent_features is None else [("feature", game.agent_features)]
    for name, leaf in named:
        values = np.asarray(leaf, np.float64).reshape(game.num_agents, *np.shape(leaf)[1:])
        for index in np.ndindex(values.shape[1:]):
            column = values[(slice(None), *index)]
            if len(parameters) < _MAX_PARAMETERS and (column != column[0]).any():
                place = f"[{','.join(map(str, index))}]" if index else ""
                parameters[f"{name or 'parameter'}{place}"] = column
    return parameters
