"""A run that is done: its tables, and what determined them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from unetcam.data import ClassTable, Skipped
from unetcam.diagnosis.finding import Diagnosis, Finding
from unetcam.errors import RunError
from unetcam.runs.findings import Examined, read_examined
from unetcam.runs.parts import KEYS, read_rows, skipped_of
from unetcam.runs.sanity import Checked, read_checked
from unetcam.runs.spec import SCHEMA_VERSION, Spec
from unetcam.runs.store import ROWS, RUN_JSON, read_meta
from unetcam.runs.summary import summarise

UNTESTED = Examined(None, "Nothing was tested yet.")
UNCHECKED = Checked(None, "The maps were not checked yet.")


@dataclass
class Run:
    """A finished run.

    Attributes
    ----------
    path : Path
        Its folder.
    meta : dict
        run.json.
    rows : DataFrame
        One row per image, layer and class: the key columns image, layer, stage_stride,
        class_index, class_name, target and method, then the measures.
    summary : DataFrame
        One row per class, layer and measure; see :func:`~unetcam.runs.summary.summarise`.
    skipped : list of Skipped
        The images that could not be explained.
    spec : Spec
        What determined the result, as run.json has it.
    examined : Examined
        What was found of the network's faults, and on which images.
    checked : Checked
        Whether the maps depend on the network's weights, layer by layer.
    """

    path: Path
    meta: dict[str, Any]
    rows: pd.DataFrame
    summary: pd.DataFrame
    skipped: list[Skipped]
    spec: Spec
    examined: Examined = UNTESTED
    checked: Checked = UNCHECKED

    @property
    def diagnosis(self) -> Diagnosis | None:
        """All that was tested, with its evidence; None where nothing was."""
        return self.examined.diagnosis

    @property
    def undiagnosed(self) -> str:
        """Why nothing was tested, in one sentence; empty where something was."""
        return self.examined.reason

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings, the gravest first; none where nothing was found or tested."""
        return () if self.diagnosis is None else self.diagnosis.findings

    @property
    def page(self) -> Path:
        """The report for a person; it may be missing, as a run is there before its report."""
        return self.path / "report.html"

    def _repr_html_(self) -> str:
        counts = self.meta.get("counts", {})
        table = self.summary[self.summary["metric"] == "class_iou"]
        table = table.drop_duplicates("class_index")[["class_name", "mean", "support"]]
        table = table.rename(columns={"class_name": "class", "mean": "IoU", "support": "images"})
        said = (
            f"{counts.get('explained', 0)} images explained, {len(self.skipped)} skipped, at "
            f"{len(self.layers)} layers: {self.page if self.page.exists() else self.path}"
        )
        figures = table.to_html(index=False, border=0, float_format="{:.3f}".format)
        return f"<p>{escape(said)}</p>{figures}"

    @property
    def layers(self) -> list[str]:
        """The explained layers, deepest first."""
        return list(self.spec.layers or ())

    @property
    def classes(self) -> ClassTable:
        """The classes' names and colours."""
        if self.spec.classes is None:
            raise RunError(f"The run in '{self.path}' names no classes: run the report again.")
        return self.spec.classes

    @property
    def measures(self) -> list[str]:
        """The columns of `rows` that hold numbers, in order."""
        return [name for name in self.rows.columns if name not in KEYS]

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Run:
        """Read a run's folder.

        Raises
        ------
        RunError
            For a folder without a run, with an unfinished one, or with one of a newer version.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise RunError(f"There is no folder '{folder}': name one that `unetcam report` wrote.")
        meta = read_meta(folder)
        if meta is None:
            raise RunError(
                f"'{folder}' holds no run: name a folder that `unetcam report` wrote, with a "
                f"{RUN_JSON} in it."
            )
        if meta["schema_version"] != SCHEMA_VERSION:
            raise RunError(
                f"'{folder}' has schema version {meta['schema_version']}, but this unetcam reads "
                f"version {SCHEMA_VERSION}: run the report again with this version."
            )
        if meta.get("status") != "finished":
            raise RunError(
                f"The run in '{folder}' is not finished: start the same command again, and it "
                "goes on where it stopped."
            )
        try:
            rows = read_rows(folder / ROWS, meta["digests"][ROWS])
        except ValueError as error:
            raise RunError(
                f"'{folder / ROWS}' was damaged: start the same command again, and it is written "
                "anew."
            ) from error
        try:
            spec = Spec.from_dict(meta["spec"])
            if spec.classes is None or not spec.layers or not spec.strides:
                raise ValueError("It does not say what was run.")
            summary = summarise(rows, seed=spec.seed)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(
                f"'{folder / RUN_JSON}' was damaged: run the report again with force=True.",
                option="force",
            ) from error
        return cls(
            path=folder,
            meta=meta,
            rows=rows,
            summary=summary,
            skipped=[skipped_of(one) for one in meta.get("skipped", [])],
            spec=spec,
            examined=read_examined(folder, str(meta["fingerprint"])) or UNTESTED,
            checked=read_checked(folder, str(meta["fingerprint"])) or UNCHECKED,
        )
