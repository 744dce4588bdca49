"""The paper's theorems and figures, measured again: a study each, by name.

`sweep.run` measures a study in a directory and can go on where it stopped; `sweep.draw` draws its
pictures from what was saved.
"""

from crowdnash.reproduction import fig1a, theorem1, theorem2, theorem3
from crowdnash.reproduction.study import Study

STUDIES: dict[str, Study] = {
    module.STUDY.name: module.STUDY for module in (fig1a, theorem1, theorem2, theorem3)
}
"""All studies by name, in the order of the paper."""


def lookup(name: str) -> Study:
    """The study of that name.

    **Raises:** `ValueError` naming the known ones.
    """
    if name not in STUDIES:
        raise ValueError(f"experiment must be one of {', '.join(STUDIES)}, not {name!r}")
    return STUDIES[name]


__all__ = ["STUDIES", "Study", "lookup"]
