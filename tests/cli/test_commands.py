from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.runs.factory import CLASSES, SOURCE, write_data, write_network
from unetcam import methods
from unetcam._version import __version__
from unetcam.cli import main
from unetcam.cli.values import TargetName
from unetcam.data import Preprocessing
from unetcam.runs.spec import TARGET_KINDS, Spec

ROOT = Path(__file__).parents[2]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_data(tmp_path, 4, lambda i: [(24, 20), (17, 33)][i % 2])
    write_network(tmp_path)
    return tmp_path


def report(work: Path, *more: str, out: str = "run") -> list[str]:
    folders = ["--images", str(work / "images"), "--masks", str(work / "masks")]
    return [
        "report", f"{work / 'net.py'}:build", *folders, "--classes", CLASSES,
        "--out", str(work / out), "--device", "cpu", "--workers", "0", *more,
    ]  # fmt: skip


def answer(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> Any:
    """The JSON object that a command prints, alone, on stdout."""
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def test_a_report_is_made_of_a_network_and_two_folders(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(report(work)) == 0
    out = capsys.readouterr().out
    run = work / "run"
    assert "4 images explained" in out
    assert str(run / "report.html") in out
    assert {path.name for path in run.iterdir()} == {
        "run.json", "preprocessing.yaml", "rows.parquet", "rows.csv", "summary.csv",
        "skipped.csv", "figures", "report.html", "findings.json", "findings.npz", "check.json",
    }  # fmt: skip
    meta = json.loads((run / "run.json").read_text())
    assert meta["status"] == "finished"
    assert meta["schema_version"] == 2
    assert meta["command"][0] == "unetcam"
    spec = Spec.from_dict(meta["spec"])
    assert (spec.mean, spec.std, spec.max_value, spec.seed) == ((0.0,) * 3, (1.0,) * 3, 255, 0)
    assert Preprocessing.from_yaml((run / "preprocessing.yaml").read_text()) == spec.preprocessing
    assert meta["versions"]["unetcam"] == __version__
    rows = pd.read_parquet(run / "rows.parquet")
    assert len(rows) == 4 * 2 * 3
    csv = pd.read_csv(run / "rows.csv")
    np.testing.assert_allclose(csv["entropy"], rows["entropy"])
    summary = pd.read_csv(run / "summary.csv")
    one = summary.query("class_name == 'cell' and layer == 'up2' and metric == 'gini'").iloc[0]
    here = rows[(rows["class_name"] == "cell") & (rows["layer"] == "up2") & ~rows["empty"]]
    assert one["mean"] == pytest.approx(here["gini"].mean())
    assert one["support"] == here["gini"].notna().sum()
    options = yaml.safe_load((run / "preprocessing.yaml").read_text())["options"]
    assert (options["channels"], options["stride"]) == (3, 4)
    files = set(meta["files"])
    assert {"report.html", "rows.parquet"} <= files
    assert all((run / name).is_file() for name in files)
    assert {f"figures/{path.name}" for path in (run / "figures").iterdir()} <= files


@pytest.mark.usefixtures("plain_page")
def test_the_same_command_twice_gives_the_same_files(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(report(work)) == 0
    assert main(report(work, out="again")) == 0
    for name in ("rows.parquet", "rows.csv", "summary.csv", "skipped.csv"):
        assert (work / "run" / name).read_bytes() == (work / "again" / name).read_bytes()


@pytest.mark.usefixtures("plain_page")
def test_a_finished_report_is_made_anew_without_running_again(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(report(work)) == 0
    (work / "run" / "report.html").unlink()
    (work / "run" / "summary.csv").unlink()
    capsys.readouterr()
    assert main(report(work)) == 0
    assert "finished already" in capsys.readouterr().err
    assert (work / "run" / "report.html").is_file()
    assert (work / "run" / "summary.csv").is_file()


@pytest.mark.usefixtures("plain_page")
def test_another_run_in_the_folder_needs_force(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(report(work)) == 0
    (work / "run" / "notes.txt").write_text("mine")
    assert main(report(work, "--method", "hirescam")) == 2
    assert "method (gradcam there, hirescam here)" in capsys.readouterr().err
    assert main(report(work, "--method", "hirescam", "--force")) == 0
    rows = pd.read_parquet(work / "run" / "rows.parquet")
    assert set(rows["method"]) == {"hirescam"}
    assert (work / "run" / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("plain_page")
def test_a_changed_mask_is_another_run_but_a_moved_data_set_is_not(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(report(work)) == 0
    moved = work / "moved"
    moved.mkdir()
    for name in ("images", "masks"):
        (work / name).rename(moved / name)
    command = report(work)
    command[3], command[5] = str(moved / "images"), str(moved / "masks")
    assert main(command) == 0
    path = next((moved / "masks").iterdir())
    mask = np.array(Image.open(path))
    mask[0, 0] = 1
    Image.fromarray(mask).save(path)
    capsys.readouterr()
    assert main(command) == 2
    assert "the images or masks" in capsys.readouterr().err


def test_a_report_may_explain_what_is_made_up(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(report(work, "--target", "false-positives")) == 0
    rows = pd.read_parquet(work / "run" / "rows.parquet")
    assert set(rows["target"]) == {"false-positives"}
    page = (work / "run" / "report.html").read_text(encoding="utf-8")
    assert "no side of a number is the better one" in page
    assert "Nothing was found" not in page


@pytest.mark.usefixtures("plain_page")
def test_options_reach_the_run(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(
        capsys,
        report(
            work, "--layers", "up2,inc", "--method", "layercam", "--target", "predicted",
            "--size", "16x24", "--resize-mode", "resize", "--mean", "0.5", "--std", "0.25",
            "--max-value", "200", "--band", "2.5", "--threshold", "0.3", "--seed", "7",
            "--batch-size", "3", "--limit", "2", "--amp", "--model-args", "seed=5",
        ),
    )  # fmt: skip
    assert found["layers"] == ["up2", "inc"]
    meta = json.loads((work / "run" / "run.json").read_text())
    config = meta["spec"]
    expected = {
        "method": "layercam", "target": "predicted", "band": 2.5, "threshold": 0.3, "seed": 7,
        "batch_size": 3, "samples": 2, "amp": True, "strides": [1, 1],
        "model_args": {"seed": 5},
    }  # fmt: skip
    assert {name: config[name] for name in expected} == expected
    assert (config["size"], config["resize_mode"]) == ([16, 24], "resize")
    options = yaml.safe_load((work / "run" / "preprocessing.yaml").read_text())["options"]
    assert options["size"] == [16, 24]
    assert options["mode"] == "resize"
    assert options["max_value"] == 200
    assert options["mean"] == [0.5] * 3


def test_a_class_table_and_a_manifest_are_understood(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "classes.csv").write_text(
        "name,value,colour\nsky,0,#102030\nroad,1,#405060\ncar,2,#708090\n"
    )
    lines = [f"images/im0{i}.png,masks/im0{i}.png" for i in range(3)]
    (work / "list.csv").write_text("\n".join(["image,mask", *lines]))
    command = [
        "report", f"{work / 'net.py'}:build", "--manifest", str(work / "list.csv"),
        "--classes", str(work / "classes.csv"), "--out", str(work / "run"),
        "--device", "cpu", "--workers", "0",
    ]  # fmt: skip
    found = answer(capsys, command)
    assert found["classes"] == ["sky", "road", "car"]
    assert found["counts"]["explained"] == 3


@pytest.mark.usefixtures("plain_page")
def test_json_names_what_was_skipped(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "images" / "im02.png").write_bytes(b"broken")
    found = answer(capsys, report(work))
    assert found["counts"]["explained"] == 3
    assert [one["id"] for one in found["skipped"]] == ["im02"]
    assert Path(found["report"]).is_file()


def test_a_file_called_like_a_script_is_shown_and_not_run(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "<script>alert(1)<∕script>"
    for folder in ("images", "masks"):
        (work / folder / "im00.png").rename(work / folder / f"{name}.png")
    (work / "images" / "<img src=x onerror=alert(2)>.png").write_bytes(b"broken")
    assert main(report(work)) == 0
    page = (work / "run" / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page
    rows = pd.read_parquet(work / "run" / "rows.parquet")
    assert name in set(rows["image"])


def test_layers_are_listed_as_a_table_or_as_json(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f"{work / 'net.py'}:build"
    found = answer(capsys, ["layers", model, "--device", "cpu"])
    assert found["decoder"] == ["up1", "up2"]
    assert (found["classes"], found["channels"]) == (3, 3)
    strides = {row["name"]: row["stride"] for row in found["layers"]}
    assert strides["up1"] == 2
    assert main(["layers", model, "--size", "32x16"]) == 0
    assert "32x16" in capsys.readouterr().out


def test_maps_of_single_images_are_written_in_their_own_frame(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = work / "a b<c>.png"
    (work / "images" / "im01.png").rename(odd)
    command = [
        "map", f"{work / 'net.py'}:build", str(odd), str(work / "images" / "im00.png"),
        "--classes", "sky,road/way,car", "--out", str(work / "maps"), "--device", "cpu",
    ]  # fmt: skip
    found = answer(capsys, command)
    assert found["skipped"] == []
    assert len(found["files"]) == 2 * (1 + 2 * 3)
    assert all(Path(name).is_file() for name in found["files"])
    folder = work / "maps" / "a_b_c_"
    raw = np.load(folder / "maps.npz")
    assert list(raw["classes"]) == ["sky", "road/way", "car"]
    assert list(raw["layers"]) == ["up1", "up2"]
    assert raw["map:up1"].shape == (3, 17, 33)
    assert raw["map:up1"].dtype == np.float32
    assert raw["prediction"].shape == (17, 33)
    assert raw["map:up1"].min() >= 0
    assert Image.open(folder / "up1.road_way.png").size == (33, 17)
    assert main(command) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0


def test_a_broken_image_does_not_keep_the_others_from_being_mapped(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "images" / "im00.png").write_bytes(b"broken")
    command = ["map", f"{work / 'net.py'}:build", str(work / "images"), "--out", str(work / "maps")]
    found = answer(capsys, command)
    assert len(found["skipped"]) == 1
    assert len(list((work / "maps").iterdir())) == 3


@pytest.mark.usefixtures("plain_page")
def test_two_reports_are_compared_as_a_table_that_can_be_pasted(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(report(work, out="a")) == 0
    assert main(report(work, "--model-args", "seed=1", out="b")) == 0
    capsys.readouterr()
    a, b = str(work / "a"), str(work / "b")
    assert main(["compare", a, b]) == 0
    printed = capsys.readouterr().out
    assert "| class | layer | measure | A | B |" in printed
    assert main(["compare", a, b, "--out", str(work / "table.md")]) == 0
    assert (work / "table.md").read_text(encoding="utf-8") == printed
    capsys.readouterr()
    found = answer(capsys, ["compare", a, b, "--metrics", "entropy"])
    assert {row["metric"] for row in found["rows"]} == {"entropy"}
    assert len(found["rows"]) == 2 * 3


def test_methods_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, ["methods"])
    assert {"gradcam", "hirescam", "gradcam++", "layercam"} <= {
        one["name"] for one in found["methods"]
    }
    assert "smooth-*" in {one["name"] for one in found["methods"]}
    assert all(all(one.values()) for one in found["methods"])
    assert main(["methods"]) == 0
    assert "gradcam++" in capsys.readouterr().out


FEW = {"rise": {"samples": 8}, "lime": {"samples": 20}, "kernelshap": {"samples": 20}}


@pytest.mark.usefixtures("plain_page")
@pytest.mark.parametrize("method", [*methods.names(), "smooth-layercam"])
def test_a_report_and_maps_of_every_method(
    method: str, work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name alone, on a network with a gate, in batches of images with borders."""
    if method in FEW:  # so that it takes no time
        few = replace(methods.get(method), **FEW[method])
        monkeypatch.setitem(methods.registry._METHODS, method, few)
    (work / "net.py").write_text(SOURCE.replace("TinyUNet", "GatedTinyUNet"))
    found = answer(capsys, ["map", f"{work / 'net.py'}:build", str(work / "images" / "im00.png"),
                            "--out", str(work / "maps"), "--method", method])  # fmt: skip
    raw = np.load(work / "maps" / "im00" / "maps.npz")
    layers = ["up2"] if method == "cam" else ["up1", "up2"]
    assert list(raw["layers"]) == layers
    assert len(found["files"]) == 1 + len(layers) * len(raw["explained"])
    assert list(raw["explained"]) == ["class 0", "class 1", "class 2"]
    assert main(report(work, "--method", method)) == 0
    rows = pd.read_parquet(work / "run" / "rows.parquet")
    assert set(rows["method"]) == {method}
    assert len(rows) == 4 * len(layers) * 3
    assert np.isfinite(rows["entropy"]).any()


@pytest.mark.usefixtures("plain_page")
def test_ctrl_c_exits_with_130_and_says_how_to_go_on(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import unetcam.runs.rows

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(unetcam.runs.rows, "measure", interrupt)
        assert main(report(work)) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "Start the same command again" in err
    assert main(report(work)) == 0


@pytest.mark.usefixtures("plain_page")
def test_a_full_disk_is_one_sentence(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "rows.parquet")

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", full)
        assert main(report(work)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line
    assert main(report(work)) == 0


def test_the_version_and_the_help_are_told_without_loading_torch() -> None:
    code = (
        "import sys; from unetcam.cli import main\n"
        "codes = [main(['--version']), main(['--help']), main(['report', '--help'])]\n"
        "heavy = {'torch', 'pandas', 'numpy', 'scipy', 'albumentations'} & set(sys.modules)\n"
        "assert codes == [0, 0, 0] and not heavy, (codes, heavy)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"unetcam {__version__}" in done.stdout
    assert "smp:Unet" in done.stdout


def test_python_m_unetcam_works() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unetcam", "report"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("unetcam: Missing")


def test_the_demo_runs_to_its_report_and_can_be_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["demo", "--out", str(tmp_path / "demo"), "--device", "cpu", "--workers", "0"]
    found = answer(capsys, command)
    assert found["report"] == str(tmp_path / "demo" / "report.html")
    assert found["layers"] == ["up1", "up2", "up3", "up4"]
    assert found["counts"] == {"images": 24, "explained": 24, "rows": 24 * 16, "skipped": 0}
    assert main(command) == 0
    assert "finished already" in capsys.readouterr().err


def test_the_command_line_offers_every_kind_of_target() -> None:
    assert {name.value for name in TargetName} == set(TARGET_KINDS)
