"""What every test sees: one CPU device, no plotting windows, fixed hypothesis examples."""

import dataclasses
import os
import signal

# Before JAX and matplotlib are imported anywhere, subprocesses included.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Commands that tests start leave the user's cache alone.
os.environ["CROWDNASH_COMPILATION_CACHE"] = "off"

import hypothesis
import jax
import jaxtyping
import pytest

# A runner in the background ignores Ctrl-C, and so would its children; tests send themselves one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Compiling makes the first example slow and later ones fast, so a deadline would say nothing;
# the same examples every time keep a failure reproducible.
hypothesis.settings.register_profile("crowdnash", deadline=None, derandomize=True)
hypothesis.settings.load_profile("crowdnash")


@pytest.fixture
def tuned(monkeypatch):
    """A function that changes what is chosen for speed, as it is on another kind of device."""
    from crowdnash import tuning

    def change(**numbers):
        monkeypatch.setattr(tuning, "CPU", dataclasses.replace(tuning.CPU, **numbers))
        jax.clear_caches()  # it is read while tracing

    yield change
    jax.clear_caches()


@pytest.fixture
def no_type_checks():
    """Annotations go unchecked, as for users: what a function itself says of a wrong type shows."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
