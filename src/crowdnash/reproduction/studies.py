"""All studies by name, in the order of the paper."""

from crowdnash.reproduction import costs, fig1a, fig2a, theorem1, theorem2, theorem3
from crowdnash.reproduction.learning_curves import study_of
from crowdnash.reproduction.names import canonical_name
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


def lookup(name: str) -> Study:
    """The study of that name.

    Raises:
        ValueError: an unknown name; the message names the known ones.
    """
    return STUDIES[canonical_name(name)]
