"""What every test sees: one CPU device, no plotting windows, fixed hypothesis examples."""

import os

# Before JAX and matplotlib are imported anywhere, subprocesses included.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis

# Compiling makes the first example slow and later ones fast, so a deadline would say nothing;
# the same examples every time keep a failure reproducible.
hypothesis.settings.register_profile("crowdnash", deadline=None, derandomize=True)
hypothesis.settings.load_profile("crowdnash")
