"""Where compiled programs are kept between commands, and that no command sees half of one."""

import os
import subprocess
import sys

import pytest

from crowdnash import cli
from crowdnash.cli import compiled

COMMAND = """
import os, sys
from crowdnash.cli.compiled import keep_compiled_programs
keep_compiled_programs()
import jax
import jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
assert float(jax.jit(lambda x: jnp.sin(x).sum())(jnp.ones(7))) > 5
kept_in = os.environ.get("JAX_COMPILATION_CACHE_DIR")
print(sum(name.endswith("cache_hits") for name in hits), kept_in)
"""


def run_command(home, **variables: str) -> list[str]:
    """What a command says: programs that it did not have to compile, and where it kept others."""
    kept = {k: v for k, v in os.environ.items() if "CACHE" not in k}
    environment = kept | {"HOME": str(home), "USERPROFILE": str(home)} | variables
    command = [sys.executable, "-c", COMMAND]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "arning" not in ran.stderr
    return ran.stdout.split()


def entries(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*-cache"))


@pytest.mark.parametrize(
    ("system", "environment", "folder"),
    [
        ("linux", {"HOME": "/h"}, "/h/.cache/crowdnash/compiled"),
        ("linux", {"HOME": "/h", "XDG_CACHE_HOME": "/c"}, "/c/crowdnash/compiled"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Caches/crowdnash/compiled"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/crowdnash/compiled"),
        ("win32", {"USERPROFILE": "/u"}, "/u/AppData/Local/crowdnash/compiled"),
    ],
)
def test_where_platforms_keep_caches(system, environment, folder):
    assert compiled.cache_folder(environment, system).as_posix() == folder


def test_the_second_command_compiles_nothing(tmp_path):
    hits, folder = run_command(tmp_path)
    assert (hits, os.path.exists(folder)) == ("0", False)  # its own folder went with it
    kept = entries(tmp_path / ".cache" / "crowdnash" / "compiled")
    assert kept
    assert int(run_command(tmp_path)[0]) > 0
    assert entries(tmp_path) == kept


@pytest.mark.slow
def test_users_decide(tmp_path):
    assert run_command(tmp_path, **{compiled.SWITCH: "off"}) == ["0", "None"]
    theirs = str(tmp_path / "theirs")
    assert run_command(tmp_path, JAX_COMPILATION_CACHE_DIR=theirs)[1] == theirs
    assert not (tmp_path / ".cache").exists()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert run_command(tmp_path, XDG_CACHE_HOME=str(tmp_path / "file")) == ["0", "None"]


def test_commands_side_by_side_see_whole_entries_only(tmp_path):
    (tmp_path / "old-cache").write_text("old")
    one, other = compiled._opened(tmp_path), compiled._opened(tmp_path)
    (one / "new-cache").write_text("ne")
    assert entries(other) == ["old-cache"]
    (one / "new-cache").write_text("new")
    (other / "new-cache").write_text("new")
    for own in (one, other):
        compiled._close(own, tmp_path, os.getpid() + 1)  # as a fork of the command would
        assert own.exists()
        compiled._close(own, tmp_path, os.getpid())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new-cache", "old-cache"]
    assert (tmp_path / "new-cache").read_text() == "new"


def test_what_was_left_and_what_is_too_much_goes(tmp_path, monkeypatch):
    killed = tmp_path / "command-killed"
    killed.mkdir()
    os.utime(killed, (0, 0))
    for age, name in enumerate(("c", "b", "a")):
        (tmp_path / f"{name}-cache").write_bytes(b"x" * 10)
        os.utime(tmp_path / f"{name}-cache", (100 - age, 100 - age))
    monkeypatch.setattr(compiled, "_MOST_BYTES", 20)
    own = compiled._opened(tmp_path)
    assert entries(own) == ["b-cache", "c-cache"]
    assert not killed.exists()


def test_who_calls_main_decides_for_the_process(monkeypatch):
    monkeypatch.setattr(compiled, "keep_compiled_programs", lambda: pytest.fail("asked"))
    assert cli.main(["games"]) == 0
    assert cli.main(["symmetry", "no-such-game"]) == 2
