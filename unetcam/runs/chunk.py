"""One part of a run's images: explained in batches, each measured while the next is explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import pandas as pd
import torch

from unetcam.data import Item, Skipped
from unetcam.errors import LayerError, ModelError, RunError, UnetcamError
from unetcam.runs.explain import Explainer
from unetcam.runs.prepare import NO_MASK
from unetcam.runs.progress import Progress
from unetcam.runs.rows import rows_of

Batch = Sequence[tuple[int, Item]]
"""Images of one shape with their positions in the chunk."""


@dataclass(frozen=True)
class _Measuring:
    """A batch that another thread measures."""

    batch: Batch
    rows: Future[pd.DataFrame]


class Chunk:
    """The images of one part, in batches of one shape.

    Parameters
    ----------
    explainer : Explainer
    batch_size : int
        Images in one pass of the network.
    progress : Progress
    measuring : Executor
        Measures a batch's maps while the network is at the next; one batch at a time, so that no
        more than two are in memory.
    """

    def __init__(
        self, explainer: Explainer, batch_size: int, progress: Progress, measuring: Executor
    ) -> None:
        self._explainer, self._batch_size = explainer, batch_size
        self._progress, self._measuring = progress, measuring
        self._waiting: dict[tuple[int, ...], list[tuple[int, Item]]] = {}
        self._under_way: _Measuring | None = None
        self._tables: list[tuple[int, pd.DataFrame]] = []
        self._failed: list[tuple[int, Skipped]] = []

    def run(
        self, entries: Iterator[Item | Skipped], count: int
    ) -> tuple[pd.DataFrame, list[Skipped]]:
        """Explain and measure the next `count` entries.

        Returns
        -------
        rows : DataFrame
        skipped : list of Skipped
            What could not be read or explained, and why.

        Raises
        ------
        LayerError, ModelError
            If the network can't be explained at all.
        RunError
            If the device failed.
        """
        for position in range(count):
            entry = next(entries)
            if isinstance(entry, Skipped):
                self._fail(position, entry)
                continue
            if entry.prepared.mask is None:
                self._fail(position, Skipped(entry.sample.id, entry.sample.file, NO_MASK))
                continue
            batch = self._waiting.setdefault(tuple(entry.prepared.image.shape), [])
            batch.append((position, entry))
            if len(batch) == self._batch_size:
                self._explain(self._waiting.pop(tuple(entry.prepared.image.shape)))
        for batch in list(self._waiting.values()):
            self._explain(batch)
        self._finish()
        return self._result()

    def _result(self) -> tuple[pd.DataFrame, list[Skipped]]:
        failed = [one for _, one in sorted(self._failed, key=lambda pair: pair[0])]
        tables = [table.assign(_at=at) for at, table in self._tables]
        if not tables:
            return pd.DataFrame(), failed
        rows = pd.concat(tables, ignore_index=True).sort_values("_at", kind="stable")
        return rows.drop(columns="_at").reset_index(drop=True), failed

    def _fail(self, position: int, one: Skipped) -> None:
        self._failed.append((position, one))
        self._progress.skipped(one)
        self._progress.advance(1)

    def _explain(self, batch: Batch) -> None:
        """Explain a batch and hand its maps on, once those before it are measured."""
        reason = self._tried(batch)
        if reason is not None and self._under_way is not None:
            self._finish()  # what was still to be measured may have filled the memory
            reason = self._tried(batch)
        if reason is not None:
            self._apart(batch, reason)

    def _tried(self, batch: Batch) -> str | None:
        """Explain a batch; the reason where that fails.

        Nothing of the failed attempt, which may have filled the memory, outlives this call.
        """
        try:
            explained = self._explainer.explain([item for _, item in batch])
        except (LayerError, ModelError):
            raise
        except Exception as error:  # somebody else's network: whatever it raises
            return reason_of(error)
        self._finish()
        rows = self._measuring.submit(rows_of, explained, self._explainer.spec)
        self._under_way = _Measuring(batch, rows)
        return None

    def _finish(self) -> None:
        """Wait until the batch under way is measured, and keep its rows."""
        if self._under_way is None:
            return
        batch, rows = self._under_way.batch, self._under_way.rows
        self._under_way = None
        try:
            table = rows.result()
        except (
            UnetcamError,
            MemoryError,
            RuntimeError,
        ) as error:  # no memory is a RuntimeError too
            reason = reason_of(error)
        else:
            at = {item.sample.id: position for position, item in batch}
            self._tables += [(at[str(name)], t) for name, t in table.groupby("image", sort=False)]
            self._progress.advance(len(batch))
            return
        del rows
        self._apart(batch, reason)

    def _apart(self, batch: Batch, reason: str) -> None:
        """Find the guilty image of a batch: the others are explained alone."""
        if len(batch) > 1:
            for one in batch:
                self._explain([one])
                self._finish()
        else:
            ((position, item),) = batch
            self._fail(position, Skipped(item.sample.id, item.sample.file, reason))


def reason_of(error: Exception) -> str:
    """Why an image could not be explained, in one sentence.

    Raises
    ------
    RunError
        After an error of the device: it is of no use to this process, and no further image would
        do.
    """
    if isinstance(error, UnetcamError):
        return str(error)
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return (
            "It does not fit into memory: explain it in tiles, make images smaller, or use another "
            "device."
        )
    first = (str(error).strip().splitlines() or ["no message"])[0]
    if "CUDA error" in first or "CUDA error" in str(error):
        raise RunError(
            f"The device failed ({first}): start the same command again, and the run goes on where "
            "it stopped."
        ) from error
    return f"The network failed on it ({type(error).__name__}: {first.rstrip('.')})."
