"""The loop over a data set: read ahead in worker processes, explain, append, go on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from unetcam.errors import RunError
from unetcam.measures.null import null_sample
from unetcam.runs.chunk import Chunk
from unetcam.runs.explain import Explainer
from unetcam.runs.prepare import Plan, evaluated
from unetcam.runs.progress import Progress, Silent
from unetcam.runs.read_ahead import read_ahead
from unetcam.runs.run import Run
from unetcam.runs.store import RunStore

SMALLEST_CHUNK = 16
BATCHES_IN_A_CHUNK = 8
"""The last batch of a chunk is measured while the network waits: so there are several."""

#: What a person is told where something of a run's folder was damaged.
MULTI_LABEL = (
    "The network's classes are read each on its own (head='sigmoid'): a pixel is predicted as each "
    "class whose logit is above zero, as several or as none."
)
REPAIRED = (
    "Files of this run were damaged between its start and its end; what could not be read was "
    "explained again."
)


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
            said = plan.network.output_sentence
            if said is not None:
                progress.note(said)
            remarks = [
                *plan.network.remarks,
                *([] if said is None else [said]),
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

    >>> chunks(40, 4)
    [range(0, 32), range(32, 40)]
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
    with (
        closing(read_ahead(plan.dataset(), left, workers)) as entries,
        explainer,
        ThreadPoolExecutor(1, "unetcam-measures") as measuring,
    ):
        for number, part in todo:
            chunk = Chunk(explainer, batch_size, progress, measuring)
            rows, failed = chunk.run(entries, len(part))
            store.append(number, rows, failed)
