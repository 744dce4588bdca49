"""Compiled programs are kept between commands, in JAX's persistent compilation cache.

JAX writes an entry in place: another process might read half of it, and a killed one would leave
half of it for good. So every command has a folder of its own, of links to what is kept, and at its
end moves what is new to the others in one step.
"""

import atexit
import contextlib
import functools
import hashlib
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

SWITCH = "CROWDNASH_COMPILATION_CACHE"
"""Environment variable: "off" keeps nothing; a folder, to keep programs elsewhere."""

_FOLDER = "JAX_COMPILATION_CACHE_DIR"
_SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    # These would write paths of a command's own folder into what is kept.
    "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
}
_OFF = ("off", "0", "no", "false")
_MOST_BYTES = 500_000_000
_SECONDS_OF_A_COMMAND = 7 * 24 * 3600


def keep_compiled_programs() -> Path | None:
    """Let JAX, not imported yet, keep what it compiles; where, or None if it does not.

    A folder that the user gave JAX is left alone, and one that cannot be written is no error.
    """
    switch = os.environ.get(SWITCH, "")
    if _FOLDER in os.environ or "jax" in sys.modules or switch.lower() in _OFF:
        return None
    shared = Path(switch) if switch else cache_folder(os.environ, sys.platform)
    shared = shared / _machine()
    try:
        own = _opened(shared)
    except OSError:
        return None
    os.environ[_FOLDER] = str(own)
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    atexit.register(functools.partial(_close, own, shared, os.getpid()))
    return shared


def cache_folder(environment: Mapping[str, str], system: str) -> Path:
    """Where the platform keeps caches, and in it this program's."""
    home = Path(environment.get("HOME") or environment.get("USERPROFILE") or Path.home())
    if system == "win32":
        base = Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif system == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "crowdnash" / "compiled"


def _machine() -> str:
    """A name for this kind of processor: a home may be shared by machines of several kinds."""
    kind = f"{platform.machine()} {platform.processor()}"
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kind += next((x for x in lines if x.startswith(("flags", "Features"))), "")
    return hashlib.sha256(kind.encode()).hexdigest()[:16]


def _opened(shared: Path) -> Path:
    """A new folder with links to all that is kept."""
    shared.mkdir(parents=True, exist_ok=True)
    _tidy(shared)
    own = Path(tempfile.mkdtemp(prefix="command-", dir=shared))
    for entry in shared.glob("*-cache"):
        with contextlib.suppress(OSError):  # another command has just dropped it
            os.link(entry, own / entry.name)
    return own


def _tidy(shared: Path) -> None:
    """Remove folders of commands that were killed, and the oldest entries if there are too many."""
    now = time.time()
    for folder in shared.glob("command-*"):
        with contextlib.suppress(OSError):
            if now - folder.stat().st_mtime > _SECONDS_OF_A_COMMAND:
                shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        entries = [(x.stat().st_mtime, x.stat().st_size, x) for x in shared.glob("*-cache")]
        total = sum(size for _, size, _ in entries)
        for _, size, entry in sorted(entries):
            if total <= _MOST_BYTES:
                break
            entry.unlink(missing_ok=True)
            total -= size


def _close(own: Path, shared: Path, process: int) -> None:
    """Move what is new to the others, and remove the folder."""
    if os.getpid() != process:  # a fork of the command
        return
    for entry in own.glob("*-cache"):
        with contextlib.suppress(OSError):
            if not (shared / entry.name).exists():
                entry.replace(shared / entry.name)
    shutil.rmtree(own, ignore_errors=True)
