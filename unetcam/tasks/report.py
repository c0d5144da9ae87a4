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
from unetcam.data.volumes import open_volume
from unetcam.page.examples import Example, Role, choose_examples
from unetcam.page.html import write_report
from unetcam.page.slices import choose_slice
from unetcam.runs import (
    DataRequest,
    Explanation,
    Measuring,
    ModelRequest,
    Progress,
    RunConfig,
    RunData,
    Silent,
    execute,
    plan_run,
    publishing,
)
from unetcam.runs.explain import Explainer, View
from unetcam.runs.loop import dataset_of, settings_of


@dataclass(frozen=True)
class Outcome:
    """What :func:`run_report` made.

    Attributes
    ----------
    run : RunData
    page : Path
        report.html
    seconds : float
        Wall time of the whole.
    """

    run: RunData
    page: Path
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for scripts."""
        return {
            "run": str(self.run.folder),
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
            text += f", {counts['skipped']} skipped (see {self.run.folder / 'skipped.csv'})"
        return f"{text}, in {self.seconds:.0f} s.\nReport: {self.page}"


def run_report(
    model: ModelRequest,
    data: DataRequest,
    how: Explanation,
    measuring: Measuring,
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
    model, data, how, measuring
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
    plan = plan_run(model, data, how, measuring, workers=workers)
    run = execute(
        plan.network.module,
        plan.samples,
        plan.skipped,
        plan.config,
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


def assemble(model: nn.Module, samples: Sequence[Sample], run: RunData) -> Path:
    """Write a run's report: figures/ and report.html come into its folder, whole or not at all.

    Only the images that are shown are explained again.

    Parameters
    ----------
    model : nn.Module
        The network of the run, in eval mode.
    samples : sequence of Sample
        The images of the run.
    run : RunData

    Returns
    -------
    Path
        report.html
    """
    examples = explain_examples(model, samples, run)
    with publishing(run.folder) as draft:
        name = write_report(run, examples, draft).relative_to(draft)
    return run.folder / name


def explain_examples(model: nn.Module, samples: Sequence[Sample], run: RunData) -> list[Example]:
    """The images that stand for each class, with their maps, in the order they were chosen."""
    config = RunConfig.from_dict(run.config)
    wanted = choose_examples(run.rows, run.layers)
    shown = {image for _, _, image in wanted}
    chosen = {sample.id: sample for sample in samples if sample.id in shown}
    dataset = dataset_of(list(chosen.values()), config)
    scores = run.rows.drop_duplicates(["image", "class_index"]).set_index(["image", "class_index"])
    found: dict[tuple[int, str, str], Example] = {}
    with Explainer(model, config.layers, config.strides, settings_of(config)) as explainer:
        for position, name in enumerate(chosen):
            item = dataset[position]
            if isinstance(item, Skipped):  # it could be read a moment ago: its rows stay
                continue
            (view,) = explainer.views([item])
            for class_index, role, image in wanted:
                if image == name:
                    score = float(scores["class_iou"][name, class_index])
                    found[class_index, role, image] = _example(view, class_index, role, score)
    return [found[key] for key in wanted if key in found]


def _example(view: View, class_index: int, role: Role, score: float) -> Example:
    """What is shown of an image for a class; of a volume the slice with most of the class."""
    (item,), prediction = view.items, view.prediction[0].cpu().numpy()
    shown = None
    if item.sample.orientation is not None:
        regions = [mask == class_index for mask in (item.truth, prediction)]
        spacing = open_volume(item.sample.image).spacing
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
        maps={layer: seen(view.scaled(layer, class_index)) for layer in view.layers},
        place="" if shown is None else shown.title,
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
