"""What a run keeps on disk: its files, and the folder that holds them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crowdnash.files import draft_of, read_text, sync_directory, write_atomically

_CONFIG = "config.json"
_DRAFT = draft_of(Path(_CONFIG)).name


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run; see `open` for an existing run and `create` for a new one."""

    path: Path

    @property
    def config(self) -> Path:
        """The settings of the run (`RunConfig`), JSON."""
        return self.path / _CONFIG

    @property
    def config_toml(self) -> Path:
        """The same settings, as `crowdnash solve --config` takes them."""
        return self.path / "config.toml"

    @property
    def metrics_jsonl(self) -> Path:
        """One JSON object per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def metrics_csv(self) -> Path:
        """The same rows as `metrics_jsonl`, with a header."""
        return self.path / "metrics.csv"

    @property
    def policy(self) -> Path:
        """Algorithm 2's average policy; of a learner that has none, the one it recommends."""
        return self.path / "policy.npz"

    def policy_file(self, name: str) -> Path:
        """The policy that the learner calls `name`."""
        return self.policy if name == "average" else self.path / f"{name}_policy.npz"

    @property
    def policies(self) -> Path:
        """The names of the policies, the recommended one first, and the epochs behind them."""
        return self.path / "policies.json"

    def certificate(self, name: str) -> Path:
        """What single agents can gain by deviating from the policy called `name`."""
        return self.path / f"certificate-{name}.json"

    @property
    def evaluation(self) -> Path:
        """What the final policies are worth, JSON, with a digest over all that it speaks of."""
        return self.path / "evaluation.json"

    @property
    def evaluation_arrays(self) -> Path:
        """Population flows under the evaluated policies, by name."""
        return self.path / "evaluation.npz"

    @property
    def symmetry(self) -> Path:
        """alpha and beta of the game, JSON; only there if they are exact and cheap."""
        return self.path / "symmetry.json"

    @property
    def agents(self) -> Path:
        """The agents' parameters, by name."""
        return self.path / "agents.npz"

    @property
    def episode(self) -> Path:
        """One episode of the final policy: the game's statistics and snapshots at every step."""
        return self.path / "episode.npz"

    @property
    def checkpoints(self) -> Path:
        """One folder per kept checkpoint, named by the number of epochs done."""
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        """The self-contained report page."""
        return self.path / "report.html"

    def remove_results(self) -> None:
        """Remove what speaks of the last policy, before a newer one takes its place."""
        for path in (self.evaluation, self.report):
            path.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """Return the run at `path`.

        Raises:
            ValueError: nothing is at `path`, or it is not the folder of a run.
        """
        directory = cls(Path(path))
        if not directory.path.exists():
            raise ValueError(f"{directory.path}: no such run directory")
        if not directory.config.is_file():
            raise ValueError(f"{directory.path} is not a run directory (it has no config.json)")
        return directory

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: str) -> RunDirectory:
        """Make a new run at `path`, which must be new or an empty folder, with its `config` text.

        A new folder appears together with its config.json, in one rename: a kill leaves either
        a run that can be resumed or nothing. An empty one, or a link to one, is filled.

        Raises:
            ValueError: `path` is a file, a folder that is not empty, or links that lead nowhere.
            OSError: it cannot be written.
        """
        directory = cls(Path(path))
        target = Path(os.path.realpath(path))
        if target.is_dir() and all(entry.name == _DRAFT for entry in target.iterdir()):
            write_atomically(target / _CONFIG, config.encode())
            return directory
        if os.path.lexists(target):
            raise ValueError(f"out must be a new or empty directory, but {directory.path} is not")
        target.parent.mkdir(parents=True, exist_ok=True)
        # Short, for the run's name may be as long as a name may be.
        draft = target.parent / f".crowdnash-{secrets.token_hex(4)}"
        draft.mkdir()
        try:
            write_atomically(draft / _CONFIG, config.encode())
            draft.replace(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        sync_directory(target.parent)
        return directory

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working on this run; the lock ends with the process.

        Raises:
            ValueError: another process holds the lock.
        """
        try:
            import fcntl
        except ImportError:  # no advisory locks on this platform
            yield
            return
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                # A file system without locks: go on unprotected rather than not at all.
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise ValueError(f"{self.path} is in use by another process") from None
            yield
        finally:
            os.close(descriptor)


def config_text(directory: RunDirectory) -> str:
    """The stored settings of a run, as text.

    Raises:
        ValueError: the file is damaged.
    """
    return read_text(directory.config)
