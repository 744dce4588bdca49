"""The paper's theorems and figures, measured again: a study each, by name.

`sweep.run` measures a study in a directory and can go on where it stopped; `sweep.draw` draws its
pictures from what was saved. `everything.run` does that for all studies.
"""

from crowdnash.reproduction import costs, fig1a, fig2a, theorem1, theorem2, theorem3
from crowdnash.reproduction.learning_curves import study_of
from crowdnash.reproduction.study import Study

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        fig1a.STUDY,
        study_of("fig1b"),
        study_of("fig1c"),
        fig2a.STUDY,
        costs.STUDY,
        theorem1.STUDY,
        theorem2.STUDY,
        theorem3.STUDY,
    )
}
"""All studies by name, in the order of the paper."""

ALIASES: dict[str, str] = {"fig2b": fig1a.STUDY.name}
"""Other names of studies: Fig. 2b shows the runs of Fig. 1a."""


def lookup(name: str) -> Study:
    """The study of that name.

    **Raises:** `ValueError` naming the known ones.
    """
    found = STUDIES.get(ALIASES.get(name, name))
    if found is None:
        raise ValueError(
            f"experiment must be one of {', '.join((*STUDIES, *ALIASES))}, not {name!r}"
        )
    return found


__all__ = ["ALIASES", "STUDIES", "Study", "lookup"]
