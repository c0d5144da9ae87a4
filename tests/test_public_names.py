"""One listing guards every public name: what is added or taken away is a decision."""

from __future__ import annotations

import importlib

import pytest

import unetcam

PUBLIC = {
    "unetcam": [
        "CAMResult", "UNetCAM", "__version__", "check", "compare", "diagnose", "errors",
        "find_layers", "load", "map", "measures", "methods", "reliance", "report", "targets",
    ],
    "unetcam.runs": [
        "Comparison", "Plan", "Progress", "Run", "RunStore", "Silent", "Spec", "compare",
        "evaluated", "execute", "open_network", "prepare", "publishing", "settle", "summarise",
    ],
}  # fmt: skip

ROOMS = (
    "data", "demo", "diagnosis", "interventions", "measures", "methods", "models", "morphology",
    "runs", "targets",
)  # fmt: skip


@pytest.mark.parametrize("module", PUBLIC)
def test_the_names_are_those_of_the_listing(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == PUBLIC[module]


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_that_a_room_promises_is_there_once(room: str) -> None:
    module = importlib.import_module(f"unetcam.{room}")
    names = module.__all__
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(module, name)] == []


def test_what_the_package_promises_is_there() -> None:
    assert [name for name in unetcam.__all__ if getattr(unetcam, name, None) is None] == []
    assert set(unetcam.__all__) <= set(dir(unetcam))
