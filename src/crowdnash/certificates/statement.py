"""A certificate in plain words (Def. 2)."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from crowdnash.certificates.unexamined import most_above

if TYPE_CHECKING:
    from crowdnash.certificates.result import Exploitability

_UPPER = {
    "exact": "are exact",
    "frozen": "are those against frozen paths: nobody's transitions feel the others",
    "first order": "add own influence to first order in 1/N",
    "coupling": "add the most that own influence can do",
    "any crowd": "hold whatever the others do",
    "estimated": (
        "rest on laws estimated from play, with an error bar by refitting, and on their form "
        "(affine in the population, polynomial in the agents' parameters): they are no proof"
    ),
    "none": "are not known",
}


def describe(certificate: "Exploitability") -> str:
    """What the certificate says of the largest gain, and on what its upper ends rest."""
    low, high = certificate.maximum
    among = f"{len(certificate.agents)} agents examined"
    sampled = certificate.origin.sampled_agents if certificate.origin else 0
    if certificate.speaks_for_all:
        among += " (drawn at random)"
    elif sampled:
        among += f" ({sampled} random ones, and the worst by a coarse pass over everybody)"
    says = f"At confidence {certificate.confidence:g}, the largest gain of any of the {among}"
    if np.isfinite(high):
        says += f" lies between {low:.4g} and {high:.4g}, own influence included"
    else:
        says += f" is at least {low:.4g}, own influence included"
    if certificate.method == "learned" and low == 0:
        says += " (no deviation that was learned is certain to gain anything)"
    says += f"; {_upper_ends(certificate)}.{_lower_end(certificate)}{_others(certificate)}"
    return says + _warning(certificate)


def _lower_end(certificate: "Exploitability") -> str:
    """Whether the lower end holds for any number of plays, where plays alone stand behind it."""
    if certificate.method == "estimated":
        return " Lower ends were really played in the game and rest on nothing else."
    if certificate.method != "learned":
        return ""
    plays = certificate.num_trajectories
    if certificate.reward_range is None:
        return f" The lower end is Student's, from {plays} plays: approximate where these are few."
    low, high = certificate.reward_range
    return (
        f" The lower end holds for any number of plays (here {plays}), as every step pays between "
        f"{low:g} and {high:g}."
    )


def _others(certificate: "Exploitability") -> str:
    """What agents drawn at random say of those that were not examined."""
    if not certificate.speaks_for_all or certificate.origin is None:
        return ""
    num_agents, num_drawn = certificate.origin.num_agents, len(certificate.agents)
    tail = 1 - certificate.confidence
    share = most_above(num_agents, num_drawn, num_drawn, tail) / num_agents
    return (
        f" At confidence {certificate.confidence:g}, at most {share:.1%} of all {num_agents} "
        f"agents would be found to gain more than {certificate.lower.max():.4g}, the most that was "
        "measured here: this is about what these deviators find, not about what could be gained."
    )


def _upper_ends(certificate: "Exploitability") -> str:
    if certificate.upper_kind is None:
        return "upper ends " + _UPPER["none" if np.isinf(certificate.upper).all() else "exact"]
    kinds = Counter(str(kind) for kind in certificate.upper_kind).most_common()
    if len(kinds) == 1:
        return f"upper ends {_UPPER[kinds[0][0]]}"
    return "upper ends " + ", ".join(f"{_UPPER[kind]} ({count} agents)" for kind, count in kinds)


def _warning(certificate: "Exploitability") -> str:
    influence = certificate.influence
    if influence is None or influence.is_small:
        return ""
    share = influence.share.max()
    moved = f"{share:.2g}" if share < 1 else "all"
    return (
        f" Warning: own influence is not small: to first order an agent displaces up to {moved} of "
        f"the others (one displaced agent up to {influence.growth:.3g} more), so that figures "
        "against frozen paths say little about the N-player game."
    )
