from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from unetcam.data import ClassTable, Preprocessing
from unetcam.data.options import DataOptions
from unetcam.errors import RunError, UnetcamError
from unetcam.runs.spec import Spec

BASE: dict[str, Any] = {
    "model": "net.py:build",
    "model_args": {"classes": 3},
    "model_digest": "aa",
    "data_digest": "bb",
    "samples": 4,
    "classes": ClassTable(("a", "b"), colours=((1, 2, 3), (4, 5, 6))),
    "channels": 3,
    "stride": 8,
    "dims": 2,
    "orientation": None,
    "batch_size": 4,
    "device": "cpu",
    "layers": ("up1", "up2"),
    "strides": (4, 2),
}

DETERMINING: list[dict[str, Any]] = [
    {"model": "other"},
    {"model_args": {"classes": 4}},
    {"model_digest": "ab"},
    {"data_digest": "ab"},
    {"samples": 5},
    {"classes": ClassTable(("a", "c"))},
    {"channels": 1},
    {"size": (64, 64)},
    {"resize_mode": "resize"},
    {"mean": (0.5,)},
    {"std": (0.5,)},
    {"max_value": 4095.0},
    {"normalise": "zscore"},
    {"by_type": True},
    {"exif": "stored"},
    {"instances": True},
    {"stride": 16},
    {"dims": 3},
    {"layers": ("up2", "up1")},
    {"strides": (4, 1)},
    {"method": "layercam"},
    {"target": "truth"},
    {"band": 3.0},
    {"threshold": 0.4},
    {"tolerance": 1.0},
    {"seed": 1},
    {"batch_size": 2},
    {"amp": True},
    {"head": "sigmoid"},
    {"axes": "ZYX"},
    {"device": "cuda"},
    {"orientation": "RAS"},
    {"tile": (96, 96, 96)},
    {"overlap": 16},
]
ORIGINS: list[dict[str, Any]] = [
    {"checkpoint": "best.pth"},
    {"key": "state_dict"},
    {"allow_pickle": True},
    {"partial": True},
    {"images": "a"},
    {"masks": "b"},
    {"manifest": "c.csv"},
    {"limit": 3},
    {"mask_suffix": "_seg"},
    {"pair": "{stem}_labelIds"},
    {"max_pixels": 10_000},
    {"bands": (3, 2, 1)},
    {"stretch": "minmax"},
]


@pytest.mark.parametrize("change", DETERMINING, ids=lambda change: next(iter(change)))
def test_what_determines_the_rows_is_in_the_fingerprint_and_named_as_a_difference(
    change: dict[str, Any],
) -> None:
    spec, other = Spec(**BASE), Spec(**{**BASE, **change})
    assert spec.fingerprint() != other.fingerprint()
    assert len(spec.differences(other.to_dict())) == 1


@pytest.mark.parametrize("change", ORIGINS, ids=lambda change: next(iter(change)))
def test_where_things_lie_is_written_but_is_no_other_run(change: dict[str, Any]) -> None:
    spec, other = Spec(**BASE), Spec(**{**BASE, **change})
    assert spec.fingerprint() == other.fingerprint()
    assert spec.differences(other.to_dict()) == []
    assert Spec.from_dict(other.to_dict()) == other != spec


def test_everything_that_prepares_an_image_is_an_option() -> None:
    names = {field.name for field in dataclasses.fields(Preprocessing)} - {"mode"}
    assert names <= {field.name for field in dataclasses.fields(Spec)}
    told = {field.name for field in dataclasses.fields(DataOptions)}
    given = {"max_pixels": 9, "bands": (1, 2, 3), "stretch": "minmax", "axes": "ZYX"}
    assert told <= set(Spec(**given).data_options)


def test_every_field_is_covered_by_the_tests_above() -> None:
    changed = {name for change in (*DETERMINING, *ORIGINS) for name in change}
    assert changed == {field.name for field in dataclasses.fields(Spec)}


@pytest.mark.parametrize("more", [{}, *DETERMINING], ids=lambda more: next(iter(more), "none"))
def test_json_and_back_is_the_same_value(more: dict[str, Any]) -> None:
    spec = Spec(**{**BASE, **more})
    assert Spec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_arguments_of_a_factory_that_json_has_no_word_for_are_written_as_text() -> None:
    spec = Spec(**{**BASE, "model_args": {"norm": dict, "sides": [1, 2]}})
    again = Spec.from_dict(spec.to_dict())
    assert again.model_args == {"norm": "<class 'dict'>", "sides": [1, 2]}
    assert again.fingerprint() == spec.fingerprint()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("target", "everything"),
        ("band", 0.5),
        ("band", float("nan")),
        ("threshold", 0.0),
        ("threshold", 1.1),
        ("tolerance", -1.0),
        ("seed", -1),
        ("seed", 2**32),
        ("batch_size", 0),
        ("limit", 0),
        ("channels", 0),
    ],
)
def test_an_option_out_of_range_is_one_sentence_that_knows_the_option(
    option: str, value: Any
) -> None:
    with pytest.raises(RunError) as caught:
        Spec.of(**{option: value})
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert caught.value.options == (option,)


def test_layers_need_their_strides() -> None:
    with pytest.raises(RunError, match="one stride for each layer"):
        Spec(**{**BASE, "strides": (1,)})


def test_people_write_options_in_several_ways(tmp_path: Path) -> None:
    spec = Spec.of(
        classes=["sky", "road"],
        ignore_index=255,
        layers=["up1", "up2"],
        images=tmp_path,
        mean=[0.5, 0.25],
        model_args=["classes=2", "name=x"],
        band=None,
    )
    assert spec.classes == ClassTable(("sky", "road"), ignore_index=255)
    assert (spec.layers, spec.mean, spec.band) == (("up1", "up2"), (0.5, 0.25), None)
    assert spec.images == str(tmp_path)
    assert spec.model_args == {"classes": 2, "name": "x"}
    table = ClassTable(("sky", "road"))
    assert Spec.of(classes=table).classes is table
    assert Spec.of(classes=table, ignore_index=9).classes == ClassTable(
        ("sky", "road"), ignore_index=9
    )


def test_an_unknown_option_is_refused_with_what_was_meant() -> None:
    with pytest.raises(RunError, match="did you mean batch_size"):
        Spec.of(batchsize=3)


def test_a_spec_that_is_not_settled_has_no_preprocessing() -> None:
    with pytest.raises(RunError, match="not settled"):
        _ = Spec.of(size=(64, 64)).preprocessing


@pytest.mark.parametrize(
    ("message", "options", "flags"),
    [
        ("Give mean=.", "mean", "Give --mean."),
        ("Give batch_size=4 here.", "batch_size", "Give --batch-size 4 here."),
        ("Add force=True to go on.", "force", "Add --force to go on."),
        ("Use device='auto' or 'cpu'.", "device", "Use --device auto or 'cpu'."),
        ("A network with classes=4.", (), "A network with classes=4."),
        ("Give images= and masks=.", ("images", "masks"), "Give --images and --masks."),
    ],
)
def test_the_command_line_words_an_option_as_a_flag(
    message: str, options: str | tuple[str, ...], flags: str
) -> None:
    assert UnetcamError(message, option=options).as_flags() == flags
