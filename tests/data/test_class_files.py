"""Class files of people and tools: what each says of names, values and colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unetcam.data import IGNORE, ClassTable, parse_classes
from unetcam.errors import DataError

NAMES = ("a", "b", "c")


def read(folder: Path, name: str, content: Any) -> ClassTable:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return parse_classes(str(path))


CATEGORIES = [{"id": i, "name": n, "supercategory": "x"} for i, n in ((2, "a"), (0, "b"), (1, "c"))]

VALUES: dict[str, tuple[str, Any, tuple[int, ...]]] = {
    **{
        f"a column {column}": ("c.csv", f"{column},name\n2,a\n0,b\n1,c\n", (2, 0, 1))
        for column in ("value", "id", "index", "label", "trainId", "Idx", "Pixel Value", "class_id")
    },
    "Roboflow": ("_classes.csv", "Pixel Value, Class\n0, a\n1, b\n2, c\n", (0, 1, 2)),
    "ADE20K": (
        "o.csv",
        "Idx,Ratio,Val,Name\n1,.1,9,a\n2,.2,7,b\n3,.3,5,c\n",
        (1, 2, 3),
    ),
    "tabs": ("c.tsv", "name\tid\na\t5\nb\t6\nc\t7\n", (5, 6, 7)),
    "COCO": ("instances.json", {"images": [], "categories": CATEGORIES}, (2, 0, 1)),
    "nnU-Net": (
        "dataset.json",
        {"channel_names": {"0": "CT"}, "labels": {"b": 1, "a": 0, "c": 2}},
        (0, 1, 2),
    ),
    "nnU-Net 1": ("dataset.json", {"labels": {"0": "a", "1": "b", "2": "c"}}, (0, 1, 2)),
    "Ultralytics list": ("data.yaml", "path: .\nnc: 3\nnames: [a, b, c]\n", (0, 1, 2)),
    "Ultralytics mapping": ("data.yaml", "nc: 3\nnames:\n  0: a\n  1: b\n  2: c\n", (0, 1, 2)),
    "id2label": ("config.json", {"0": "a", "2": "c", "1": "b"}, (0, 1, 2)),
    "a model's configuration": (
        "config.json",
        {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}},
        (0, 1, 2),
    ),
    "a MONAI bundle": (
        "metadata.json",
        {"network_data_format": {"outputs": {"pred": {"channel_def": dict(enumerate(NAMES))}}}},
        (0, 1, 2),
    ),
    "names to values": ("c.json", {"a": 4, "b": 2, "c": 0}, (4, 2, 0)),
    "numbered lines": ("c.txt", "0 a\n1 b\n2 c\n", (0, 1, 2)),
    "lines with values": ("c.txt", "a: 3\nb: 4\nc: 5\n", (3, 4, 5)),
    "a header in a text": ("c.txt", "name,value\na,3\nb,4\nc,5\n", (3, 4, 5)),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_are_read_wherever_they_stand(tmp_path: Path, kind: str) -> None:
    name, content, values = VALUES[kind]
    table = read(tmp_path, name, content)
    assert table.names == NAMES
    assert table.values == values


COLOURS = ((0, 0, 0), (128, 0, 0), (0, 128, 9))
CODED: dict[str, tuple[str, Any]] = {
    "CVAT": (
        "labelmap.txt",
        "# label:color_rgb::\na:0,0,0::\nb:128,0,0::\nc:0,128,9::",
    ),
    "CVAT without its head": ("m.txt", "a:0,0,0::\nb:128,0,0::\nc:0,128,9::\n"),
    "CVAT as JSON": (
        "labels.json",
        [
            {"name": n, "id": 812 + i, "color": c, "attributes": []}
            for i, (n, c) in enumerate(zip(NAMES, ("#000000", "#800000", "#008009"), strict=True))
        ],
    ),
    "Supervisely": (
        "meta.json",
        {
            "classes": [
                {"title": n, "shape": "polygon", "color": c, "id": 77 + i}
                for i, (n, c) in enumerate(
                    zip(NAMES, ("#000000", "#800000", "#008009"), strict=True)
                )
            ],
            "tags": [],
        },
    ),
    "CamVid": ("label_colors.txt", "0 0 0\ta\n128 0 0\tb\n0 128 9\tc\n"),
    "ITK-SNAP": (
        "l.label",
        '# ITK-SnAP\n0 0 0 0 0 0 0 "a"\n1 128 0 0 1 1 1 "b"\n2 0 128 9 .5 1 1 "c"\n',
    ),
    "3D Slicer": ("t.ctbl", "# Color\n0 a 0 0 0 0\n1 b 128 0 0 255\n2 c 0 128 9 255\n"),
    "columns": ("c.csv", "name,r,g,b\na,0,0,0\nb,128,0,0\nc,0,128,9\n"),
    "names to colours": ("c.json", {"a": [0, 0, 0], "b": [128, 0, 0], "c": [0, 128, 9]}),
    "names to hexadecimals": ("c.yaml", "a: '#000000'\nb: '#800000'\nc: '#008009'\n"),
    "colours to names": ("c.json", {"0,0,0": "a", "128,0,0": "b", "#008009": "c"}),
}


@pytest.mark.parametrize("kind", CODED)
def test_colours_are_read_wherever_they_stand(tmp_path: Path, kind: str) -> None:
    table = read(tmp_path, *CODED[kind])
    assert table.names == NAMES
    assert table.colours == COLOURS
    assert table.values == (0, 1, 2)


MERGED: dict[str, tuple[str, Any]] = {
    "rows of one name": ("c.csv", "name,value\na,0\nb,1\nb,4\nc,2\nignore,9\nignore,255\n"),
    "lists": ("c.yaml", "classes: {a: 0, b: [1, 4], c: 2, ignore: [9, 255]}\n"),
    "records with lists": (
        "c.json",
        [{"name": n, "value": v} for n, v in (("a", 0), ("b", [1, 4]), ("c", 2))]
        + [{"name": "ignore", "value": [9, 255]}],
    ),
}


@pytest.mark.parametrize("kind", MERGED)
def test_several_values_are_one_class(tmp_path: Path, kind: str) -> None:
    table = read(tmp_path, *MERGED[kind])
    assert table.names == NAMES
    left_out = [(9, IGNORE), (255, IGNORE)]
    assert sorted(table.value_codes()) == [(0, 0), (1, 1), (2, 2), (4, 1), *left_out]


def test_the_command_lines_form_names_values_too() -> None:
    table = parse_classes("background=0, tumour = 1+2+4,cyst=3", ignore_index=9)
    assert table.names == ("background", "tumour", "cyst")
    assert table.values == (0, 1, 3)
    assert table.more_values == ((2, 1), (4, 1))
    with pytest.raises(DataError, match="'b' has no value and other classes have one"):
        parse_classes("a=0,b")


def test_a_void_that_stands_beside_many_names_is_left_out(tmp_path: Path) -> None:
    content = "name,trainId\nunlabeled,255\nego vehicle,255\nroad,0\nwalk,1\nplate,-1\n"
    table = read(tmp_path, "cityscapes.csv", content)
    assert table.names == ("road", "walk")
    assert table.ignore_index == 255


def test_yaml_keeps_names_that_look_like_something_else(tmp_path: Path) -> None:
    table = read(tmp_path, "c.yaml", "- no\n- on\n- 1e3\n- 010\n- null\n")
    assert table.names == ("no", "on", "1e3", "010", "null")


FAULTS: dict[str, tuple[str, Any, str]] = {
    "two columns that differ": ("c.csv", "name,id,trainId\na,7,0\nb,8,1\n", "'id' and 'trainId'"),
    "a column of unknown numbers": ("c.csv", "name,dn\na,10\nb,20\n", "its column 'dn' holds"),
    "regions": ("d.json", {"labels": {"a": 0, "whole": [1, 2], "core": [2]}}, "may overlap"),
    "lists of three": ("d.json", {"a": [1, 2, 3], "b": [4, 5, 6]}, "may be values or colours"),
    "beyond 64 bits": ("d.json", {"a": 0, "b": 2**64}, "give a whole number of 64 bits"),
    "too many digits": ("d.json", '{"a": 0, "b": ' + "9" * 5000 + "}", "can't be read"),
    "a nested name": ("d.json", [["a"], ["b"]], "a class's name is a list"),
    "deep nesting": ("d.json", "[" * 10**5, "can't be read"),
    "deep YAML": ("d.yaml", "[" * 5000, "can't be read"),
    "YAML that multiplies": (
        "d.yaml",
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n"
            for p, c in zip("abcdefgh", "bcdefghi", strict=True)
        )
        + "classes: [*i, *i]\n",
        "a class's name is a list",
    ),
    "no text": ("d.txt", "a\0b\n\udcff".encode("utf-8", "surrogateescape"), "can't be read"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_what_is_no_class_table_is_told_in_one_line(tmp_path: Path, kind: str) -> None:
    name, content, words = FAULTS[kind]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=words) as error:
        parse_classes(str(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_table_crosses_a_run_as_plain_values() -> None:
    table = ClassTable(
        ("a", "b"),
        (0, 5),
        ((0, 0, 0), (9, 9, 9)),
        255,
        (1, 2, 3),
        ((7, 1), (8, -1)),
        (((4, 4, 4), 1),),
        accept_255=False,
    )
    assert ClassTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table
    with pytest.raises(DataError, match="no class table"):
        ClassTable.from_dict({"names": 3})
