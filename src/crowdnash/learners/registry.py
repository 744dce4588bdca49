"""The learners that the command line and stored runs know, by name: one line each."""

from typing import Any

from crowdnash.learners.base import Learner
from crowdnash.learners.mirror_descent import PolicyMirrorDescent
from crowdnash.learners.ppo.learner import PPO

LEARNERS: dict[str, type[Learner[Any, Any, Any]]] = {
    "policy-mirror-descent": PolicyMirrorDescent,
    "ppo": PPO,
}
"""In the order in which the command line tries them."""


def lookup(name: object) -> type[Learner[Any, Any, Any]]:
    """The learner called `name`.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(name, str) or name not in LEARNERS:
        raise ValueError(f"no learner is called {name!r}; there are {', '.join(LEARNERS)}")
    return LEARNERS[name]


def name_of(learner: Learner[Any, Any, Any]) -> str:
    """The name of a learner.

    Raises:
        ValueError: its class is not registered.
    """
    for name, learner_class in LEARNERS.items():
        if type(learner) is learner_class:
            return name
    raise ValueError(f"{type(learner).__name__} is not registered in crowdnash.learners.registry")
