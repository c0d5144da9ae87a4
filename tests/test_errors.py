"""What an error says, and what is told apart from one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from unetcam.data.files import decoding
from unetcam.errors import DataError, first_few, is_own_bug


def slip(module: str) -> Callable[[], None]:
    """A function of a module that asks for an attribute that is not there."""
    scope = {"__name__": module}
    exec("def fail():\n    return None.shape\n", scope)
    made: Callable[[], None] = scope["fail"]  # type: ignore[assignment]
    return made


def test_a_slip_in_our_own_code_is_no_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(AttributeError), decoding(tmp_path / "a.png", "PNG"):
        slip("unetcam.data.images")()


def test_a_slip_of_a_decoder_is_a_damaged_file(tmp_path: Path) -> None:
    said = pytest.raises(DataError, match="can't be read as PNG")
    with said as caught, decoding(tmp_path / "a.png", "PNG"):
        slip("PIL.Image")()
    assert isinstance(caught.value.__cause__, AttributeError)


def test_only_slips_are_bugs() -> None:
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("x")
    assert not is_own_bug(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("the mask is empty", "The mask is empty."),
        ("'a.png' is empty; write it again", "'a.png' is empty; write it again."),
        ("size=0 is no size", "size=0 is no size."),
        ("did you mean it?", "Did you mean it?"),
        ("", ""),
    ],
)
def test_every_error_is_a_sentence(given: str, said: str) -> None:
    error = DataError(given, option="size")
    assert str(error) == said
    assert error.clause == given
    assert str(pickle.loads(pickle.dumps(error))) == said


def test_names_in_a_list_are_cut_and_stay_on_a_line() -> None:
    assert first_few(["a\nb", "x" * 500]) == "a\\nb, " + "x" * 117 + "..."
