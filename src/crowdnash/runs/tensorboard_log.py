"""Metrics of a run for TensorBoard, beside the run's own files."""

from __future__ import annotations

import dataclasses
from types import TracebackType

from crowdnash.runs.metrics_log import Row
from crowdnash.runs.training_loop import Observer


class TensorBoardLog:
    """Writes every epoch's numbers as scalars into `path`; use as a context manager.

    Raises:
        ValueError: the package tensorboardX is not installed.
    """

    def __init__(self, path: str) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ValueError(
                "tensorboard needs the package tensorboardX: install crowdnash[tensorboard]"
            ) from None
        self._path = path
        self._open = SummaryWriter
        self._writer = None

    def observer(self, inner: Observer) -> Observer:
        """What a run calls: it writes, and passes everything on to `inner`."""

        def start(epoch: int) -> None:
            # What an interrupted run wrote after its last checkpoint is hidden again.
            self._writer = self._open(self._path, purge_step=epoch + 1)
            inner.on_start(epoch)

        def add(row: Row) -> None:
            assert self._writer is not None  # a run starts before its first epoch
            for name, value in row.items():
                if name != "epoch" and isinstance(value, int | float):
                    self._writer.add_scalar(name, value, row["epoch"])
            inner.on_epoch(row)

        return dataclasses.replace(inner, on_start=start, on_epoch=add)

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()
