"""The names of the studies, so that a misspelt one is refused before anything else is imported."""

STUDY_NAMES = (
    "fig1a",
    "fig1b",
    "fig1c",
    "fig2a",
    "costs",
    "theorem1",
    "theorem2",
    "theorem3",
)
"""All studies, in the order of the paper."""

ALIASES = {"fig2b": "fig1a"}
"""Other names of studies: Fig. 2b shows the runs of Fig. 1a."""


def canonical_name(name: str, *others: str) -> str:
    """The study's own name, of which `name` may be an alias.

    Args:
        name: a name or an alias.
        *others: more words that may stand in its place; they are returned as they are.

    Raises:
        ValueError: an unknown name; the message names the known ones.
    """
    if name not in (*STUDY_NAMES, *ALIASES, *others):
        known = ", ".join((*STUDY_NAMES, *ALIASES, *others))
        raise ValueError(f"experiment must be one of {known}, not {name!r}")
    return ALIASES.get(name, name)
