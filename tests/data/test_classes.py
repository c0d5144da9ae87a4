"""Class tables in every form that a person may write, and their faults by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetcam.data import ClassTable, parse_classes
from unetcam.errors import DataError

FULL = ClassTable(
    ("background", "grey matter", "white"), (0, 128, 255), ((0, 0, 0), (255, 0, 0), (0, 128, 7))
)


def test_names_with_commas_get_values_from_zero() -> None:
    table = parse_classes(" background ,grey matter,white")
    assert table == ClassTable(("background", "grey matter", "white"), (0, 1, 2))
    assert len(table) == 3
    assert table.index("white") == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "name,value,colour\nbackground,0,#000000\ngrey matter,128,#ff0000\n"
         "white,255,#008007\n"),
        ("a.CSV", "\ufeffName;Value;Color\nbackground;0;0 0 0\ngrey matter;128;255,0,0\n"
         "white;255;(0, 128, 7)\n"),
        ("b.csv", "name,r,g,b,value\nbackground,0,0,0,0\ngrey matter,255,0,0,128\n"
         "white,0,128,7,255\n"),
        ("a.json", '[{"name": "background", "value": 0, "colour": [0, 0, 0]},'
         '{"name": "grey matter", "value": 128, "colour": "#FF0000"},'
         '{"name": "white", "value": 255, "colour": [0, 128, 7]}]'),
        ("a.yaml", "classes:\n- {name: background, value: 0, color: [0, 0, 0]}\n"
         "- {name: grey matter, value: 128, color: '#ff0000'}\n"
         "- {name: white, value: 255, color: [0, 128, 7]}\n"),
    ],
)  # fmt: skip
def test_every_file_form_gives_the_same_table(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert parse_classes(str(tmp_path / name)) == FULL


def test_text_files_and_mappings(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# tissue\nbackground\n\ngrey, outer\n")
    assert parse_classes(str(tmp_path / "a.txt")).names == ("background", "grey, outer")
    (tmp_path / "a.yml").write_text("classes: {road: 7, car: 3}\nignore_index: 255\n")
    assert parse_classes(str(tmp_path / "a.yml")) == ClassTable(
        ("road", "car"), (7, 3), ignore_index=255
    )


def test_a_row_called_ignore_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "name,value,colour\na,0,#000000\nb,1,#ffffff\nIgnore,255,#e0e0c0\n"
    )
    table = parse_classes(str(tmp_path / "a.csv"))
    assert table.names == ("a", "b")
    assert table.ignore_index == 255
    assert table.ignore_colour == (0xE0, 0xE0, 0xC0)
    with pytest.raises(DataError, match="leaves out the value 255, and ignore_index=9 was given"):
        parse_classes(str(tmp_path / "a.csv"), ignore_index=9)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("cell", "needs at least two classes (only 'cell' was given)"),
        ("", "needs at least two classes"),
        ("a,,b", "A class has no name"),
        ("a,b,a", "The name a stands for two classes"),
    ],
)
def test_faults_of_a_spec_are_told(spec: str, reason: str) -> None:
    with pytest.raises(DataError, match=re.escape(reason)):
        parse_classes(spec)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "a,value\nb,0\n", "no column 'name'"),
        ("a.csv", "name,value\na,0\nb,\n", "only some classes have a value"),
        ("a.csv", "name,value\na,0\nb,x\n", "value of 'b' is 'x'; give a whole number"),
        ("a.csv", "name,value\na,0\nb,0\n", "the value 0 stands for two classes"),
        ("a.csv", "name,colour\na,red\nb,blue\n", "the colour of 'a' is 'red'"),
        ("a.csv", "name,colour\na,0 0 300\nb,0 0 0\n", "is no RGB colour"),
        ("a.json", "{", "can't be read"),
        ("a.json", "3", "neither a list of classes nor a mapping"),
        ("a.yaml", "[a, b", "can't be read"),
        ("a.txt", "", "0 bytes"),
    ],
)
def test_faults_of_a_file_are_told_with_its_name(
    tmp_path: Path, name: str, content: str, reason: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=re.escape(reason)) as error:
        parse_classes(str(tmp_path / name))
    assert f"'{name}'" in str(error.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'gone.csv' does not exist"):
        parse_classes(str(tmp_path / "gone.csv"))


def test_the_ignore_index_may_not_be_a_class() -> None:
    with pytest.raises(DataError, match="ignore index 1 is also the value of the class 'b'"):
        parse_classes("a,b", ignore_index=1)


def test_an_unknown_name_is_told_with_the_known() -> None:
    with pytest.raises(DataError, match="There is no class 'c'; the classes are a, b"):
        parse_classes("a,b").index("c")


@given(st.integers(2, 300))
def test_display_colours_are_distinct_for_any_number_of_classes(count: int) -> None:
    table = ClassTable(tuple(f"c{n}" for n in range(count)))
    colours = table.display_colours()
    assert len(set(colours)) == count
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)


def test_own_colours_are_displayed() -> None:
    assert FULL.display_colours() == ["#000000", "#ff0000", "#008007"]
