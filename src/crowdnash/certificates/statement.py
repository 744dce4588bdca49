"""A certificate in plain words (Def. 2)."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from crowdnash.certificates.result import Exploitability

_UPPER = {
    "exact": "are exact",
    "frozen": "are those against frozen paths: nobody's transitions feel the others",
    "first order": "add own influence to first order in 1/N",
    "coupling": "add the most that own influence can do",
    "any crowd": "hold whatever the others do",
    "none": "are not known",
}


def describe(certificate: "Exploitability") -> str:
    """What the certificate says of the largest gain, and on what its upper ends rest."""
    low, high = certificate.maximum
    among = f"{len(certificate.agents)} agents examined"
    sampled = certificate.origin.sampled_agents if certificate.origin else 0
    if sampled:
        among += f" ({sampled} random ones, and the worst by a coarse pass over everybody)"
    says = f"At confidence {certificate.confidence:g}, the largest gain of any of the {among}"
    if np.isfinite(high):
        says += f" lies between {low:.4g} and {high:.4g}, own influence included"
    else:
        says += f" is at least {low:.4g}, own influence included"
    if certificate.method == "learned" and low == 0:
        says += " (no deviation that was learned is certain to gain anything)"
    return f"{says}; {_upper_ends(certificate)}.{_warning(certificate)}"


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
