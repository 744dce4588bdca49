"""Nothing is imported before it is needed, and every name that a package offers is there."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import crowdnash

PACKAGES = [
    "crowdnash",
    *(
        module.name
        for module in pkgutil.walk_packages(crowdnash.__path__, "crowdnash.")
        if module.ispkg
    ),
]
LARGE = ("jax", "equinox", "numpy", "scipy", "optax", "orbax", "matplotlib", "rich", "tyro")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_what_it_is_for_and_has_what_it_offers(name):
    package = importlib.import_module(name)
    assert package.__doc__, name
    names = getattr(package, "__all__", [])
    assert sorted(set(names)) == sorted(names)
    for one in names:
        assert getattr(package, one) is not None


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import crowdnash", LARGE),
        ("from crowdnash.cli import main; main(['--help'])", LARGE),
        ("from crowdnash.cli import main; main(['solv'])", LARGE[:-2]),
        ("from crowdnash.cli import main; main(['solve', 'siss'])", LARGE[:-2]),
        ("from crowdnash.cli import main; main(['symmetry', 'taxi'])", LARGE[:-2]),
        ("from crowdnash.cli import main; main(['reproduce', 'fig9'])", LARGE[:-2]),
        ("from crowdnash.cli import main; main(['evaluate', '--jsn'])", LARGE[:-2]),
        (
            "from crowdnash.cli import main; main(['games'])",
            ("crowdnash.learners", "crowdnash.runs", "optax", "orbax", "matplotlib"),
        ),
    ],
)
def test_what_is_not_needed_is_not_imported(program, absent):
    ask = f"import sys; {program}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
