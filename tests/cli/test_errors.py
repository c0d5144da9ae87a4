"""Every mistake of a person: one sentence on stderr, exit code 2, and never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runs.factory import CLASSES, write_data, write_network
from unetcam.cli import main

Arguments = Callable[[Path], list[str]]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_data(tmp_path, 2)
    write_network(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Run it; gives the sentence."""
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    (line,) = err.splitlines()
    assert line.startswith("unetcam: ")
    assert line.endswith((".", "?"))
    return line


def report(work: Path, **change: str | None) -> list[str]:
    """A report's arguments with some options changed; None takes one away."""
    options: dict[str, str | None] = {
        "--images": str(work / "images"),
        "--masks": str(work / "masks"),
        "--classes": CLASSES,
        "--out": str(work / "run"),
        "--device": "cpu",
        "--workers": "0",
    }
    model = change.pop("model", f"{work / 'net.py'}:build")
    options.update({f"--{name.replace('_', '-')}": value for name, value in change.items()})
    given = [part for name, value in options.items() if value is not None for part in (name, value)]
    return ["report", *([model] if model is not None else []), *given]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": None}, "MODEL"),
        ({"classes": None}, "--classes"),
        ({"out": None}, "--out"),
        ({"images": None}, "--images and --masks"),
        ({"masks": None}, "--images and --masks"),
        ({"manifest": "list.csv"}, "manifest"),
        ({"manifest": "none.csv", "images": None, "masks": None}, "none.csv"),
        ({"images": "no/such/folder"}, "folder"),
        ({"masks": "no/such/folder"}, "folder"),
        ({"classes": "background"}, "two classes"),
        ({"classes": "none.csv"}, "none.csv"),
        ({"classes": "background,cell"}, "gives 3 classes, but --classes names 2"),
        ({"model": "nonsense"}, "nonsense"),
        ({"model": "smp:Unett"}, "did you mean smp:Unet?"),
        ({"model": "smp:Unet", "model_args": "classes=3"}, "has random weights"),
        ({"model": "none.py:build"}, "none.py"),
        ({"model_args": "classes"}, "classes"),
        ({"model_args": "colour=red"}, "colour"),
        ({"checkpoint": "none.pth"}, "none.pth"),
        ({"channels": "5"}, "--channels"),
        ({"channels": "0"}, "0 channels"),
        ({"layers": "up11"}, "'up1'"),
        ({"layers": "up1,up1"}, "twice"),
        ({"layers": "up1,,up2"}, "between commas"),
        ({"method": "gradcm"}, "did you mean gradcam?"),
        ({"target": "everything"}, "everything"),
        ({"size": "256"}, "256x256"),
        ({"size": "0x16"}, "256x256"),
        ({"size": "17x17"}, "--size"),
        ({"resize_mode": "crop"}, "crop"),
        ({"mean": "a,b"}, "list of numbers"),
        ({"mean": "0.1,0.2"}, "mean"),
        ({"std": "0"}, "std"),
        ({"max_value": "-1"}, "largest value"),
        ({"device": "tpu"}, "auto, cpu, cuda"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"band": "0"}, "1 or more"),
        ({"threshold": "2"}, "0 to 1"),
        ({"seed": "-1"}, "Seed"),
        ({"batch_size": "0"}, "1 or more"),
        ({"batch_size": "many"}, "integer"),
        ({"workers": "-1"}, "workers"),
        ({"limit": "0"}, "limit"),
        ({"colour": "red"}, "--colour"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_report_that_cannot_be_made_says_why(
    work: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str | None], words: str
) -> None:
    assert words in refused(capsys, report(work, **change))
    assert not (work / "run").exists()


def test_no_command_shows_the_help_and_an_unknown_one_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    assert "report" in capsys.readouterr().out
    assert "explain" in refused(capsys, ["explain"])


def test_a_folder_without_images_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "empty").mkdir()
    refused(capsys, report(work, images=str(work / "empty")))


def test_masks_that_all_have_unknown_values_name_the_value(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (work / "masks").iterdir():
        Image.fromarray(np.full((24, 20), 77, np.uint8)).save(path)
    line = refused(capsys, [*report(work), "--quiet"])
    assert "all 2 were skipped" in line
    assert "77" in line


def test_a_factory_that_fails_is_no_traceback(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "bad.py").write_text("def build():\n    return 1 / 0\n")
    assert "division by zero" in refused(capsys, report(work, model=f"{work / 'bad.py'}:build"))


def test_a_network_that_gives_no_map_is_no_traceback(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "flat.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    refused(capsys, report(work, model=f"{work / 'flat.py'}:build"))


def test_a_network_for_volumes_takes_no_images(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "deep.py").write_text("from tests.networks import UNet3d\nbuild = UNet3d\n")
    line = refused(capsys, report(work, model=f"{work / 'deep.py'}:build"))
    assert "three-dimensional" in line


def test_an_output_folder_with_other_files_is_refused(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "net.py" in refused(capsys, report(work, out=str(work)))
    assert "is a file" in refused(capsys, report(work, out=str(work / "net.py")))
    assert not (work / "run.json").exists()


def test_a_folder_that_may_not_be_written_is_refused(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "can't be written" in refused(capsys, report(work, out="/proc/none/run"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda work: ["--target", "truth", str(work / "images")], "need masks"),
        (lambda work: ["--target", "false-negatives", str(work / "images")], "need masks"),
        (lambda work: [str(work / "none.png")], "none.png"),
        (lambda work: [str(work / "net.py")], "net.py"),
        (lambda work: [], "IMAGE"),
        (lambda work: [str(work / "images"), "--classes", "a,b"], "3 classes"),
        (lambda work: [str(work / "images"), "--layers", "nowhere"], "nowhere"),
        (lambda work: [str(work / "images"), "--method", "nowhere"], "nowhere"),
    ],
)
def test_maps_that_cannot_be_made_say_why(
    work: Path, capsys: pytest.CaptureFixture[str], arguments: Arguments, words: str
) -> None:
    command = ["map", f"{work / 'net.py'}:build", *arguments(work), "--out", str(work / "maps")]
    assert words in refused(capsys, command)
    assert not (work / "maps").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda work: [str(work / "images"), str(work / "masks")], "holds no run"),
        (lambda work: [str(work / "a"), str(work / "b")], "There is no folder"),
        (lambda work: [str(work / "a")], "RUN_B"),
        (lambda work: ["a", "b", "--out", str(work / "net.py")], "is there already"),
        (lambda work: ["a", "b", "--metrics", ","], "between commas"),
    ],
)
def test_runs_that_cannot_be_compared_say_why(
    work: Path, capsys: pytest.CaptureFixture[str], arguments: Arguments, words: str
) -> None:
    assert words in refused(capsys, ["compare", *arguments(work)])


def test_layers_of_what_is_no_network_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nonsense" in refused(capsys, ["layers", "nonsense"])


def test_a_demo_is_not_written_over_other_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").touch()
    assert "thesis.tex" in refused(capsys, ["demo", "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_message_can_not_steer_the_terminal(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, report(work, images="no\x1b[31m\nfolder"))
    assert "\x1b" not in line


def test_debug_shows_the_cause(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "broken.py").write_text("def build():\n    raise ZeroDivisionError('deep inside')\n")
    command = report(work, model=f"{work / 'broken.py'}:build")
    assert main(["--debug", *command]) == 2
    told = capsys.readouterr().err
    assert "ZeroDivisionError: deep inside" in told
    assert "direct cause" in told
    assert told.splitlines()[-1].startswith("unetcam: ")
    assert "Traceback" not in refused(capsys, command)
