"""A run's diagnosis in its folder: findings as JSON, and the pictures behind them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unetcam.diagnosis.finding import Diagnosis, Evidence
from unetcam.errors import DataError
from unetcam.runs.files import replacing, write_json

FINDINGS = "findings.json"
EVIDENCE = "findings.npz"
#: The same of a diagnosis that is not through yet.
UNFINISHED = ("findings-so-far.json", "findings-so-far.npz")
SCHEMA_VERSION = 1

_PICTURES = ("before", "after", "truth", "mask_before", "mask_after", "region")


@dataclass(frozen=True)
class Examined:
    """What a run says about its network's faults.

    Attributes
    ----------
    diagnosis : Diagnosis or None
        None where nothing was tested.
    reason : str
        Why nothing was tested, in one sentence; empty where something was.
    images : tuple of str
        The images that were tested on.
    """

    diagnosis: Diagnosis | None
    reason: str = ""
    images: tuple[str, ...] = ()


def write_examined(
    folder: Path, fingerprint: str, examined: Examined, *, unfinished: bool = False
) -> None:
    """Write findings.json, and findings.npz with the evidence, each whole or not at all.

    Parameters
    ----------
    folder : Path
        A run's folder, or the draft of what comes into it.
    fingerprint : str
        The run's.
    examined : Examined
    unfinished : bool
        Whether the diagnosis is not through yet: it has files of its own then.
    """
    record, pictures = UNFINISHED if unfinished else (FINDINGS, EVIDENCE)
    diagnosis = examined.diagnosis
    findings = () if diagnosis is None else diagnosis.findings
    arrays: dict[str, Any] = {}
    captions = []
    for number, finding in enumerate(findings):
        captions.append([[one.image, one.caption] for one in finding.evidence])
        for place, one in enumerate(finding.evidence):
            for name in _PICTURES:
                if getattr(one, name) is not None:
                    arrays[f"{number}/{place}/{name}"] = np.asarray(getattr(one, name))
    with replacing(folder / pictures) as draft, draft.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
    content = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint,
        "images": list(examined.images),
        "reason": examined.reason,
        "diagnosis": None if diagnosis is None else diagnosis.to_dict(),
        "evidence": captions,
    }
    write_json(folder / record, content)


def read_examined(folder: Path, fingerprint: str, *, unfinished: bool = False) -> Examined | None:
    """What :func:`write_examined` wrote for the run with this fingerprint.

    Returns
    -------
    Examined or None
        None where there is none, or none of this run that can be read: it is made again then.
    """
    record, evidence = UNFINISHED if unfinished else (FINDINGS, EVIDENCE)
    try:
        content = json.loads((folder / record).read_text(encoding="utf-8"))
        if (content["schema_version"], content["fingerprint"]) != (SCHEMA_VERSION, fingerprint):
            return None
        diagnosis = None
        if content["diagnosis"] is not None:
            diagnosis = Diagnosis.from_dict(content["diagnosis"])
            pictures = _pictures(folder / evidence)
            findings = tuple(
                replace(one, evidence=_evidence(captions, number, pictures))
                for number, (one, captions) in enumerate(
                    zip(diagnosis.findings, content["evidence"], strict=True)
                )
            )
            diagnosis = replace(diagnosis, findings=findings)
        return Examined(diagnosis, str(content["reason"]), tuple(map(str, content["images"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError):
        return None


def _pictures(path: Path) -> dict[str, Any]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError("The evidence can't be read.") from error


def _evidence(
    captions: Sequence[Sequence[str]], number: int, pictures: dict[str, Any]
) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(
            str(image),
            str(caption),
            **{name: pictures.get(f"{number}/{place}/{name}") for name in _PICTURES},
        )
        for place, (image, caption) in enumerate(captions)
    )
