"""From a request to the page: explain the data set, choose the examples, write the report."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from unetcam.data import Sample, Skipped
from unetcam.page.examples import Example, Role, choose_examples
from unetcam.page.html import write_report
from unetcam.page.slices import choose_slice
from unetcam.runs import Progress, Run, Silent, Spec, execute, prepare, publishing
from unetcam.runs.explain import ExplainedBatch, Explainer
from unetcam.runs.loop import dataset_of


@dataclass(frozen=True)
class Outcome:
    """What :func:`run_report` made.

    Attributes
    ----------
    run : Run
    page : Path
        report.html
    seconds : float
        Wall time of the whole.
    """

    run: Run
    page: Path
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for scripts."""
        return {
            "run": str(self.run.path),
            "report": str(self.page),
            "counts": self.run.meta["counts"],
            "layers": self.run.layers,
            "classes": list(self.run.classes.names),
            "skipped": self.run.meta["skipped"],
            "seconds": round(self.seconds, 2),
        }

    def sentence(self) -> str:
        """What a person is told at the end."""
        counts = self.run.meta["counts"]
        text = f"{_images(counts['explained'])} explained"
        if counts["skipped"]:
            text += f", {counts['skipped']} skipped (see {self.run.path / 'skipped.csv'})"
        return f"{text}, in {self.seconds:.0f} s.\nReport: {self.page}"


def run_report(
    spec: Spec,
    out: Path,
    *,
    workers: int = 0,
    force: bool = False,
    command: Sequence[str] = (),
    beside: Collection[str] = (),
    progress: Progress | None = None,
) -> Outcome:
    """Explain a data set and write its run and report: what ``unetcam report`` does.

    Parameters
    ----------
    spec : Spec
        What is asked for.
    out : Path
        The run's folder.
    workers, force, command, beside, progress
        See :func:`unetcam.runs.execute`.

    Returns
    -------
    Outcome

    Raises
    ------
    UnetcamError
        One sentence: what is wrong, and what to do.
    """
    started = time.monotonic()
    progress = progress or Silent()
    plan = prepare(spec)
    run = execute(
        plan.network.module,
        plan.samples,
        plan.skipped,
        plan.spec,
        out,
        device=plan.network.device,
        workers=workers,
        force=force,
        command=command,
        beside=beside,
        progress=progress,
    )
    progress.step("writing the report")
    page = assemble(plan.network.module, plan.samples, run)
    return Outcome(run, page, time.monotonic() - started)


def assemble(model: nn.Module, samples: Sequence[Sample], run: Run) -> Path:
    """Write a run's report: figures/ and report.html come into its folder, whole or not at all.

    Only the images that are shown are explained again.

    Parameters
    ----------
    model : nn.Module
        The network of the run, in eval mode.
    samples : sequence of Sample
        The images of the run.
    run : Run

    Returns
    -------
    Path
        report.html
    """
    examples = explain_examples(model, samples, run)
    with publishing(run.path) as draft:
        name = write_report(run, examples, draft).relative_to(draft)
    return run.path / name


def explain_examples(model: nn.Module, samples: Sequence[Sample], run: Run) -> list[Example]:
    """The images that stand for each class, with their maps, in the order they were chosen."""
    wanted = choose_examples(run.rows, run.layers)
    shown = {image for _, _, image in wanted}
    chosen = {sample.id: sample for sample in samples if sample.id in shown}
    dataset = dataset_of(list(chosen.values()), run.spec)
    scores = run.rows.drop_duplicates(["image", "class_index"]).set_index(["image", "class_index"])
    found: dict[tuple[int, str, str], Example] = {}
    with Explainer(model, run.spec) as explainer:
        for position, name in enumerate(chosen):
            item = dataset[position]
            if isinstance(item, Skipped):  # it could be read a moment ago: its rows stay
                continue
            (batch,) = explainer.explained([item])
            for class_index, role, image in wanted:
                if image == name:
                    score = float(scores["class_iou"][name, class_index])
                    found[class_index, role, image] = _example(batch, class_index, role, score)
    return [found[key] for key in wanted if key in found]


def _example(batch: ExplainedBatch, class_index: int, role: Role, score: float) -> Example:
    """What is shown of an image for a class; of a volume the slice with most of the class."""
    (item,), prediction = batch.items, batch.prediction[0].cpu().numpy()
    shown = None
    if item.sample.orientation is not None:
        regions = [mask == class_index for mask in (item.truth, prediction)]
        spacing = item.spacing or (1.0, 1.0, 1.0)
        shown = choose_slice(regions, item.sample.orientation, spacing)

    def seen(values: NDArray[Any]) -> NDArray[Any]:
        return values if shown is None else shown.of(values)

    return Example(
        class_index=class_index,
        role=role,
        image_id=item.sample.id,
        score=score,
        image=seen(item.image),
        truth=seen(item.truth),
        prediction=seen(prediction),
        maps={layer: seen(batch.scaled(layer, class_index)) for layer in batch.layers},
        place="" if shown is None else shown.title,
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
