"""The loop over a data set: read ahead in worker processes, explain, append, go on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pandas as pd
import torch

from unetcam.data import Item, Skipped
from unetcam.errors import LayerError, ModelError, RunError, UnetcamError
from unetcam.measures.null import null_sample
from unetcam.runs.explain import Explainer
from unetcam.runs.prepare import NO_MASK, Plan, evaluated
from unetcam.runs.read_ahead import read_ahead
from unetcam.runs.run import Run
from unetcam.runs.store import RunStore

SMALLEST_CHUNK = 16
BATCHES_IN_A_CHUNK = 4


#: What a person is told where something of a run's folder was damaged.
MULTI_LABEL = (
    "The network's classes are read each on its own (head='sigmoid'): a pixel is predicted as each "
    "class whose logit is above zero, as several or as none."
)
REPAIRED = (
    "Files of this run were damaged between its start and its end; what could not be read was "
    "explained again."
)


class Progress(Protocol):
    """Somebody who is told how a run goes on."""

    def step(self, text: str) -> None:
        """A step of unknown length begins."""

    def begin(self, total: int, done: int) -> None:
        """`total` images are to be explained, `done` of them were before."""

    def advance(self, images: int) -> None:
        """So many images more are done, explained or skipped."""

    def within(self, done: int, total: int) -> None:
        """Of the image at work, so many tiles of so many are done."""

    def skipped(self, one: Skipped) -> None:
        """An image could not be used."""

    def note(self, text: str) -> None:
        """Something that a person should know."""


class Silent:
    """A progress that says nothing."""

    def step(self, text: str) -> None:
        """Say nothing."""

    def begin(self, total: int, done: int) -> None:
        """Say nothing."""

    def advance(self, images: int) -> None:
        """Say nothing."""

    def within(self, done: int, total: int) -> None:
        """Say nothing."""

    def skipped(self, one: Skipped) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


def execute(
    plan: Plan,
    out: Path,
    *,
    workers: int = 0,
    force: bool = False,
    command: Sequence[str] = (),
    beside: Collection[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Explain every image of a data set and write the run's folder.

    A run that was killed goes on where it stopped when it is started again, and ends with the same
    rows. A run that is finished is not repeated: its summary is made anew.

    Parameters
    ----------
    plan : Plan
        Network, data and spec.
    out : Path
        The run's folder.
    workers : int
        Processes that read images; 0 reads in this one.
    force : bool
        Replace another run, or write beside foreign files.
    command : sequence of str
        The command line, for run.json.
    beside : collection of str
        Names that may stand in `out` beside the run.
    progress : Progress, optional
        Is told how it goes on.

    Returns
    -------
    Run

    Raises
    ------
    RunError
        If `out` can't be used, or no image could be explained.
    LayerError, ModelError
        If the network can't be explained at all.
    """
    if workers < 0:
        raise RunError(
            f"{workers} workers can't read anything: use 0 (read here) or more.", option="workers"
        )
    progress = progress or Silent()
    with RunStore(out, plan.spec, command=command, force=force, beside=beside) as store:
        if store.state == "finished":
            progress.note(
                f"The run in '{out}' is finished already: only its summary and report are made "
                "anew (force runs it again)."
            )
        else:
            for one in plan.skipped:
                progress.skipped(one)
            if plan.spec.head == "sigmoid":
                progress.note(MULTI_LABEL)
            for remark in plan.source.remarks:
                progress.note(remark)
            with evaluated(plan.network.module):
                _explain_all(plan, store, workers, progress)
            remarks = [
                *plan.network.remarks,
                *([MULTI_LABEL] if plan.spec.head == "sigmoid" else []),
                *plan.source.remarks,
                *([REPAIRED] if store.damaged else []),
            ]
            store.update(remarks=remarks)
            store.finish(plan.skipped, {"images": len(plan.samples) + len(plan.skipped)})
        run = Run.load(out)
        store.write_summary(run.summary)
        run.meta = store.meta
        return run


def chunks(count: int, batch_size: int, *, volumes: bool = False) -> list[range]:
    """The parts in which `count` images are explained and written; of volumes, single batches.

    They depend on the whole list only, never on what was done before: a run that goes on forms
    the same batches as one that was never stopped.

    >>> chunks(20, 4)
    [range(0, 16), range(16, 20)]
    """
    size = batch_size if volumes else max(SMALLEST_CHUNK, BATCHES_IN_A_CHUNK * batch_size)
    size -= size % batch_size
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _explain_all(plan: Plan, store: RunStore, workers: int, progress: Progress) -> None:
    spec, count = plan.spec, len(plan.samples)
    volumes, batch_size = spec.orientation is not None, spec.batch_size or 1
    parts = chunks(count, batch_size, volumes=volumes)
    if plan.source.in_memory:
        workers = 0
    workers = min(workers, 1) if volumes else workers  # each holds several in memory
    done = store.done()
    todo = [(number, part) for number, part in enumerate(parts) if number not in done]
    left = [index for _, part in todo for index in part]
    if store.state == "resumed":
        progress.note(
            f"The run in '{store.folder}' goes on after {count - len(left)} of {count} images."
        )
    if store.damaged:
        progress.note(REPAIRED)
    progress.begin(count, count - len(left))
    if not left:
        return
    null_images = [plan.samples[at].id for at in null_sample(count)]
    explainer = Explainer(plan.network, spec, progress.within, null_images)
    with closing(read_ahead(plan.dataset(), left, workers)) as entries, explainer:
        for number, part in todo:
            rows, failed = _Chunk(explainer, batch_size, progress).run(entries, len(part))
            store.append(number, rows, failed)


class _Chunk:
    """Explains one part's images, in batches of one shape."""

    def __init__(self, explainer: Explainer, batch_size: int, progress: Progress) -> None:
        self._explainer, self._batch_size, self._progress = explainer, batch_size, progress
        self._waiting: dict[tuple[int, ...], list[tuple[int, Item]]] = {}
        self._tables: list[tuple[int, pd.DataFrame]] = []
        self._failed: list[tuple[int, Skipped]] = []

    def run(
        self, entries: Iterator[Item | Skipped], count: int
    ) -> tuple[pd.DataFrame, list[Skipped]]:
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

    def _explain(self, batch: Sequence[tuple[int, Item]]) -> None:
        reason = self._tried(batch)
        if reason is None:
            self._progress.advance(len(batch))
        elif len(batch) > 1:  # find the guilty image; the others are explained alone
            for one in batch:
                self._explain([one])
        else:
            ((position, item),) = batch
            self._fail(position, Skipped(item.sample.id, item.sample.file, reason))

    def _tried(self, batch: Sequence[tuple[int, Item]]) -> str | None:
        """Explain a batch; the reason where that fails.

        Nothing of the failed attempt, which may have filled the memory, outlives this call.
        """
        try:
            table = self._explainer.rows([item for _, item in batch])
        except (LayerError, ModelError):
            raise
        except Exception as error:
            _raise_if_hopeless(error)
            return reason_of(error)
        at = {item.sample.id: position for position, item in batch}
        self._tables += [(at[str(name)], t) for name, t in table.groupby("image", sort=False)]
        return None


def reason_of(error: Exception) -> str:
    """Why an image could not be explained, in one sentence."""
    if isinstance(error, UnetcamError):
        return str(error)
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return (
            "It does not fit into memory: explain it in tiles, make images smaller, or use another "
            "device."
        )
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return f"The network failed on it ({type(error).__name__}: {first.rstrip('.')})."


def _raise_if_hopeless(error: Exception) -> None:
    """After a CUDA error the device is of no use to this process: no further image would do."""
    if "CUDA error" in str(error) and not isinstance(error, torch.cuda.OutOfMemoryError):
        raise RunError(
            f"The device failed ({str(error).splitlines()[0]}): start the same command again, and "
            "the run goes on where it stopped."
        ) from error
