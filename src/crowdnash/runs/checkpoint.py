"""Atomic, verified checkpoints of a pytree of arrays (orbax inside).

Orbax writes and reads the arrays. Three things are added, because a restore must be exact or
refused: a checkpoint is assembled in a hidden folder and renamed into place, so a kill never
leaves half of one; its files carry SHA-256 digests, since a flipped byte in an array file
restores without complaint otherwise; and damage is one `CheckpointError` instead of whatever
the storage layers raise.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from crowdnash.files import read_json, remove, sync_directory, write_json

_DIGESTS = "crowdnash.json"
_FORMAT = 1
_PLAIN = re.compile(r"[\w .,+=@%#~/-]*")
_EPOCH = re.compile("[1-9][0-9]*")  # `isdigit` would let superscripts and the like pass


class CheckpointError(ValueError):
    """A checkpoint cannot be restored: it is damaged, or made for another experiment."""


@dataclass(frozen=True)
class Restored:
    """A restored checkpoint: the number of epochs done and the state after them."""

    epoch: int
    state: Any


def save(
    directory: Path,
    epoch: int,
    state: Any,
    *,
    keep: int = 3,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write the checkpoint `directory/<epoch>` in one atomic step, then drop all but the newest.

    Args:
        directory: the folder of checkpoints.
        epoch: number of epochs done, its name.
        state: a pytree of arrays only.
        keep: how many of the newest checkpoints stay.
        settings: what decided the state, as JSON has it; see `check_settings`.

    Raises:
        OSError: it cannot be written; the checkpoints already there are untouched.
    """
    import orbax.checkpoint as ocp

    directory.mkdir(exist_ok=True)
    # Orbax refuses empty arrays; there is nothing in them to keep.
    leaves: dict[str, Any] = {n: leaf for n, leaf in _named_leaves(state).items() if leaf.size}
    if jax.process_count() > 1:  # orbax takes a device's array for a part of a larger one
        leaves = jax.device_get(leaves)
    draft = directory / f".partial-{epoch}"
    try:
        _refuse_full_disk(directory, sum(leaf.nbytes for leaf in leaves.values()))
        remove(draft)
        with (
            _plain_path(directory) as plain,
            _checkpointer() as checkpointer,
        ):
            checkpointer.save(plain / draft.name, args=ocp.args.StandardSave(leaves))
        record = {"format": _FORMAT, "epoch": epoch, "settings": settings}
        write_json(draft / _DIGESTS, record | {"sha256": _digests(draft)})
        target = directory / str(epoch)
        remove(target)
        draft.replace(target)
    except OSError:
        _discard_drafts(directory)
        raise
    except (ValueError, RuntimeError) as error:  # what the array storage raises
        _discard_drafts(directory)
        raise _as_os_error(error, directory / str(epoch)) from error
    sync_directory(directory)
    for old in epochs(directory)[:-keep]:
        remove(directory / str(old))


def epochs(directory: Path) -> tuple[int, ...]:
    """Return the epochs that have a checkpoint in `directory`, oldest first."""
    if not directory.is_dir():
        return ()
    return tuple(
        sorted(
            int(entry.name)
            for entry in directory.iterdir()
            if _EPOCH.fullmatch(entry.name) and entry.is_dir()
        )
    )


def check_settings(directory: Path, settings: Mapping[str, Any], num_epochs: int) -> None:
    """Make sure that the newest checkpoint was made with these settings, if it says.

    Args:
        directory: the folder of checkpoints.
        settings: what decides the learner's states now.
        num_epochs: how many epochs there are to be.

    Raises:
        ValueError: a setting is another one, or there are more epochs already.
    """
    newest = max(epochs(directory), default=0)
    if newest > num_epochs:
        raise ValueError(
            f"{directory.parent / 'config.json'} was altered: num_epochs is {num_epochs}, and "
            f"there is a checkpoint of epoch {newest}"
        )
    try:
        stored = read_json(directory / str(newest) / _DIGESTS)["settings"]
        pairs = list(_differences(stored, settings)) if stored else []
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    for name, old, new in pairs:
        raise ValueError(
            f"{directory.parent / 'config.json'} was altered: {name} is {new!r}, and the run began "
            f"with {old!r}"
        )


def _differences(
    stored: Mapping[str, Any], current: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    for name in [*stored, *(current.keys() - stored.keys())]:
        old, new = stored.get(name), current.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new)
        elif old != new:
            yield name, old, new


def restore(directory: Path, epoch: int, template: Any) -> Any:
    """Return the state of the checkpoint `directory/<epoch>`, bit for bit as it was saved.

    Args:
        directory: the folder of checkpoints.
        epoch: which one.
        template: a pytree like the saved one; its arrays give shapes, types and placement.

    Raises:
        CheckpointError: a file is missing or altered, or the arrays do not fit `template`.
    """
    import orbax.checkpoint as ocp

    path = directory / str(epoch)
    _verify(path, epoch)
    template_leaves = _named_leaves(template)
    leaves = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
        if jax.process_count() == 1
        else np.zeros(leaf.shape, leaf.dtype)
        for name, leaf in template_leaves.items()
        if leaf.size
    }
    try:
        with (
            _plain_path(directory) as plain,
            _checkpointer() as checkpointer,
        ):
            args = ocp.args.StandardRestore(leaves)
            restored = checkpointer.restore(plain / path.name, args=args)
    except Exception as error:
        reason = str(error).split("\n")[0][:200]
        raise CheckpointError(f"checkpoint {path} does not fit this run: {reason}") from error
    values = [
        jax.numpy.asarray(restored[name]) if leaf.size else leaf
        for name, leaf in template_leaves.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(template), values)


def restore_newest(
    directory: Path, template: Any, on_warning: Callable[[str], object]
) -> Restored | None:
    """Restore the newest checkpoint that is sound; None where there is no checkpoint at all.

    Damaged newer ones are reported in one warning and set aside as `<epoch>.damaged`. Whatever else
    lies in the folder is left alone.

    Raises:
        CheckpointError: there are checkpoints, but none can be restored.
    """
    _discard_drafts(directory)
    damaged: list[tuple[int, CheckpointError]] = []
    for epoch in reversed(epochs(directory)):
        try:
            state = restore(directory, epoch, template)
        except CheckpointError as error:
            damaged.append((epoch, error))
            continue
        if damaged:
            reasons = "; ".join(str(error) for _, error in damaged)
            on_warning(f"{reasons}; continuing from epoch {epoch}")
            for bad, _ in damaged:
                _set_aside(directory / str(bad))
        return Restored(epoch=epoch, state=state)
    if damaged:
        raise CheckpointError(
            "no checkpoint can be restored: " + "; ".join(str(error) for _, error in damaged)
        )
    return None


def _checkpointer() -> Any:
    """What writes and reads; of several processes the one that leads does so alone."""
    import orbax.checkpoint as ocp

    handler = ocp.StandardCheckpointHandler()
    if jax.process_count() == 1:
        return ocp.Checkpointer(handler)
    own = {"primary_host": jax.process_index(), "active_processes": {jax.process_index()}}
    options = ocp.options.MultiprocessingOptions(**own, barrier_sync_key_prefix="crowdnash")
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


@contextlib.contextmanager
def _plain_path(directory: Path) -> Iterator[Path]:
    """An absolute path to `directory` that orbax reads as it is written.

    Orbax takes brackets for a pattern and `name:/` for a scheme, and then leaves the arrays out of
    the checkpoint without an error. A path with such a character is reached through a link.
    """
    path = directory.resolve()
    if os.name != "posix" or _PLAIN.fullmatch(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "checkpoints"
        link.symlink_to(path, target_is_directory=True)
        yield link


def _named_leaves(state: Any) -> dict[str, jax.Array]:
    # Plain names instead of the state's class: what is on disk depends on no Python type.
    pairs, _ = jax.tree.flatten_with_path(state)
    return {
        jax.tree_util.keystr(path).strip("."): leaf
        if isinstance(leaf, jax.Array)
        else jax.numpy.asarray(np.asarray(leaf))
        for path, leaf in pairs
    }


def _digests(path: Path) -> dict[str, str]:
    digests = {}
    for entry in sorted(path.rglob("*")):
        if entry.is_file() and entry.name != _DIGESTS:
            with open(entry, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            digests[entry.relative_to(path).as_posix()] = digest
    return digests


def _verify(path: Path, epoch: int) -> None:
    try:
        record = read_json(path / _DIGESTS)
        expected = dict(record["sha256"])
        if record["format"] != _FORMAT or record["epoch"] != epoch:
            raise CheckpointError(f"checkpoint {path} is of another format or epoch")
        actual = _digests(path)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged ({error})") from error
    for name, digest in expected.items():
        if name not in actual:
            raise CheckpointError(f"checkpoint {path} is damaged ({name} is missing)")
        if actual[name] != digest:
            raise CheckpointError(f"checkpoint {path} is damaged ({name} was altered)")


def _set_aside(path: Path) -> None:
    target = path.with_name(f"{path.name}.damaged")
    remove(target)
    path.replace(target)


def _discard_drafts(directory: Path) -> None:
    for draft in directory.glob(".partial-*"):
        remove(draft)


def _refuse_full_disk(directory: Path, num_bytes: int) -> None:
    # Orbax finds a full disk only half way through; twice the raw size leaves room for both.
    if shutil.disk_usage(directory).free < 2 * num_bytes + 65536:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def _as_os_error(error: Exception, path: Path) -> OSError:
    text = str(error)
    full = "No space left" in text or "RESOURCE_EXHAUSTED" in text
    code = errno.ENOSPC if full else errno.EFBIG if "File too large" in text else errno.EIO
    return OSError(code, os.strerror(code), str(path))
