"""A saved certificate made again (Def. 2): with the same random draws, and with fresh ones.

The same draws must give the same numbers to rounding, on any machine; fresh ones must give
intervals that overlap with the saved ones, as two intervals for one number do.

Axes: n agents examined.
"""

from dataclasses import dataclass

import jax
import numpy as np

from crowdnash.certificates.certificate import exploitability
from crowdnash.certificates.origin import Origin, key_from_text
from crowdnash.certificates.result import Exploitability
from crowdnash.games.base import DynamicGame
from crowdnash.policies.base import Policy

ROUNDING = 2e-4
"""Largest difference, relative to 1 + |value|, of numbers that are equal but for rounding."""

_ARRAYS = ("value", "lower", "upper", "standard_error", "upper_standard_error")


@dataclass(frozen=True)
class Verification:
    """What came of it: `problems`, empty if the certificate holds, and the fresh certificate."""

    problems: tuple[str, ...]
    fresh: Exploitability | None

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the certificate."""
        return not self.problems


def verify_certificate(
    certificate: Exploitability, game: DynamicGame, policy: Policy
) -> Verification:
    """Make a certificate again and compare (Def. 2).

    Args:
        certificate: As loaded; it says how it was made.
        game: The game that it is said to be of.
        policy: The policy that it is said to be of.

    Returns:
        What speaks against it. A game or policy of another digest is not played at all.

    Raises:
        ValueError: The certificate does not say how it was made, or its deviators learned
            (method "learned") or its laws were estimated: that is not played again.
        GameError: see `exploitability`.
    """
    origin = certificate.origin
    if origin is None:
        raise ValueError("the certificate does not say of what it is: evaluate again and save that")
    if certificate.method in ("learned", "estimated"):
        raise ValueError(
            f"a certificate by method {certificate.method!r} is not made again: evaluate anew"
        )
    key = key_from_text(origin.key)
    here = Origin.of(game, policy, key, origin.own_influence_agents, None)
    strangers = [
        f"the {what} is another: its digest is {now[:12]}.., the certificate's {then[:12]}.."
        for what, now, then in (
            ("game", here.game_fingerprint, origin.game_fingerprint),
            ("game's parameters", here.parameters_digest, origin.parameters_digest),
            ("policy", here.policy_digest, origin.policy_digest),
        )
        if now != then
    ]
    if strangers:
        return Verification(tuple(strangers), None)
    same = _again(certificate, origin, game, policy, key)
    fresh = _again(certificate, origin, game, policy, jax.random.fold_in(key, 1))
    return Verification((*_differences(certificate, same), *_apart(certificate, fresh)), fresh)


def _again(
    certificate: Exploitability, origin: Origin, game: DynamicGame, policy: Policy, key: jax.Array
) -> Exploitability:
    return exploitability(
        game,
        policy,
        key=key,
        num_trajectories=certificate.num_trajectories or 2,
        agents=origin.sampled_agents or certificate.agents,
        confidence=certificate.confidence,
        own_influence_agents=origin.own_influence_agents,
        method=certificate.method,
    )


def _differences(saved: Exploitability, again: Exploitability) -> list[str]:
    """What is not equal to rounding under the same draws."""
    problems = []
    for name in ("maximum", "mean"):
        then, now = getattr(saved, name), getattr(again, name)
        if not _close(np.array(then), np.array(now)):
            problems.append(
                f"{name} is {now.lower:.6g} to {now.upper:.6g} with the same draws, not "
                f"{then.lower:.6g} to {then.upper:.6g}"
            )
        if saved.frozen is not None and again.frozen is not None:
            then, now = getattr(saved.frozen, name), getattr(again.frozen, name)
            if not _close(np.array(then), np.array(now)):
                problems.append(f"frozen.{name} differs with the same draws")
    for name in _ARRAYS:
        then, now = getattr(saved, name), getattr(again, name)
        if not _close(then, now):
            worst = int(np.argmax(np.abs(np.nan_to_num(then - now, posinf=0.0, neginf=0.0))))
            problems.append(
                f"{name} of agent {saved.agents[worst]} is {now[worst]:.6g} with the same draws, "
                f"not {then[worst]:.6g}"
            )
    for name in ("lower_kind", "upper_kind"):
        if not np.array_equal(getattr(saved, name), getattr(again, name)):
            problems.append(f"{name} differs with the same draws")
    return problems


def _close(then: np.ndarray, now: np.ndarray) -> bool:
    if then.shape != now.shape:
        return False
    equal = then == now  # infinities too
    with np.errstate(invalid="ignore"):
        return bool((equal | (np.abs(then - now) <= ROUNDING * (1 + np.abs(then)))).all())


def _apart(saved: Exploitability, fresh: Exploitability) -> list[str]:
    """Intervals for the same number that do not overlap."""
    problems = []
    for name in ("maximum", "mean"):
        then, now = getattr(saved, name), getattr(fresh, name)
        slack = ROUNDING * (1 + abs(then.lower))
        if then.lower > now.upper + slack or now.lower > then.upper + slack:
            problems.append(
                f"{name} is {now.lower:.4g} to {now.upper:.4g} with fresh draws, apart from "
                f"{then.lower:.4g} to {then.upper:.4g}"
            )
    return problems
