"""unetcam report on volumes, by a 3-D network."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tests.cli.test_kill import started
from tests.networks import UNet3d, seeded
from tests.runs.factory import write_data
from unetcam import UNetCAM
from unetcam.cli import main
from unetcam.measures import measure
from unetcam.targets import Region, TruthRegion

CLASSES = "air,bone,gut"
#: Left to right, back to front, feet to head: none but the last is a multiple of the stride.
SHAPE = (14, 11, 12)
AFFINE = np.diag([1.0, 1.0, 2.5, 1.0])
KEYS = ["image", "layer", "class_index"]


def build() -> nn.Module:
    return seeded(UNet3d())


class Near(nn.Module):
    """Sees two voxels far, so that tiles tell all."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Conv3d(4, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inside(x))


def build_near() -> nn.Module:
    return seeded(Near())


def blobs(seed: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """A volume and its labels: a bone, a larger gut and air."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.mgrid[tuple(slice(side) for side in shape)], axis=-1)
    labels = np.zeros(shape, np.uint8)
    for index, radius in ((2, 4.0), (1, 2.5)):
        centre = np.array(shape) * rng.uniform(0.3, 0.7, 3)
        labels[np.linalg.norm(grid - centre, axis=-1) < radius] = index
    values = np.clip(80 * labels + rng.integers(0, 60, shape), 0, 255).astype(np.uint8)
    return values, labels


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "net3.py").write_text(
        "from tests.cli.test_report_volumes import build, build_near\n"
    )
    for number in range(3):
        values, labels = blobs(number)
        save(tmp_path / "images" / f"v{number}.nii.gz", values)
        save(tmp_path / "masks" / f"v{number}.nii.gz", labels)
    return tmp_path


def command(work: Path, *more: str, out: str = "run", net: str = "build") -> list[str]:
    return [
        "report", f"{work / 'net3.py'}:{net}", "--images", str(work / "images"), "--masks",
        str(work / "masks"), "--classes", CLASSES, "--out", str(work / out), "--device", "cpu",
        "--workers", "0", "--max-value", "255", *more,
    ]  # fmt: skip


def rows(work: Path, *more: str, out: str = "run", net: str = "build") -> pd.DataFrame:
    assert main([*command(work, *more, out=out, net=net), "--quiet"]) == 0
    return pd.read_parquet(work / out / "rows.parquet")


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


def measured(values: np.ndarray, labels: np.ndarray, kind: str) -> dict[tuple[str, int], Any]:
    """What cam and measure say of a volume that is filled up by hand."""
    padded = tuple(-(-side // 4) * 4 for side in values.shape)
    offset = [(a - b) // 2 for a, b in zip(padded, values.shape, strict=True)]
    inside = tuple(slice(a, a + side) for a, side in zip(offset, values.shape, strict=True))
    volume = torch.zeros(1, 1, *padded)
    volume[0, 0][inside] = torch.from_numpy(values).float() / 255
    truth = torch.full((1, *padded), -1)
    truth[0][inside] = torch.from_numpy(labels).long()
    targets = (
        [Region(index, truth >= 0) for index in range(3)]
        if kind == "class"
        else [TruthRegion(index, truth) for index in range(3)]
    )
    result = UNetCAM(build())(volume, targets).resized()
    prediction = result.logits.argmax(1)[(slice(None), *inside)]
    found = {}
    for layer in result.layers:
        maps = result[layer][(slice(None), slice(None), *inside)]
        table = measure(maps, range(3), truth[(slice(None), *inside)], prediction, num_classes=3)
        for index in range(3):
            found[layer, index] = {name: float(one[0, index]) for name, one in table.items()}
    return found


@pytest.mark.parametrize("kind", ["class", "truth"])
def test_the_rows_are_those_of_cam_and_measure(work: Path, kind: str) -> None:
    made = rows(work, "--target", kind)
    assert len(made) == 3 * 2 * 3
    assert set(made["stage_stride"]) == {1, 2}
    assert "hot_z" in made
    for name, own in made.groupby("image"):
        expected = measured(*blobs(int(str(name)[1:])), kind)
        for row in own.to_dict("records"):
            for measure_name, value in expected[row["layer"], row["class_index"]].items():
                np.testing.assert_allclose(
                    float(row[measure_name]), value, rtol=1e-4, atol=1e-6, err_msg=measure_name
                )


def test_neither_the_order_of_the_voxels_nor_the_kind_of_file_matters(work: Path) -> None:
    plain = rows(work)
    turn = nib.orientations.axcodes2ornt
    for number, codes in enumerate(("LPS", "SAR", "PIL")):
        for folder, own in (("images", codes), ("masks", ("RAS", "IPR", "ASL")[number])):
            path = work / folder / f"v{number}.nii.gz"
            image = nib.load(path)
            change = nib.orientations.ornt_transform(turn("RAS"), turn(tuple(own)))
            turned = image.as_reoriented(change)
            values = np.asarray(turned.dataobj)
            path.unlink()
            if number == 2 and folder == "masks":
                header = {
                    "space": "RAS",
                    "space directions": turned.affine[:3, :3].T,
                    "space origin": turned.affine[:3, 3],
                    "kinds": ["domain"] * 3,
                }
                nrrd.write(str(work / folder / "v2.nrrd"), values, header)
            else:
                save(path, values, turned.affine)
    pd.testing.assert_frame_equal(rows(work, out="turned"), plain)
    # As they are stored the axes differ, and still each mask lies on its image.
    stored = rows(work, "--orientation", "file", out="stored")
    same = ["image", "layer", "class_index", "truth_pixels", "band_pixels"]
    pd.testing.assert_frame_equal(
        stored[[name for name in same if name in stored]],
        plain[[name for name in same if name in plain]],
    )
    assert not np.allclose(stored["class_iou"], plain["class_iou"], equal_nan=True)


def test_a_stopped_run_goes_on_and_ends_with_the_same_rows(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from unetcam.runs.explain import Explained, Explainer

    plain = rows(work, "--tile", "8x8x12", "--overlap", "4")
    whole, count = Explainer.explain, 0

    def stopped(self: Explainer, items: Any) -> Explained:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return whole(self, items)

    more = ["--tile", "8x8x12", "--overlap", "4"]
    with monkeypatch.context() as patched:
        patched.setattr(Explainer, "explain", stopped)
        assert main(command(work, *more, out="again")) == 130
    assert len(list((work / "again" / "parts").iterdir())) == 2  # each volume once it is done
    capsys.readouterr()
    line = refused(capsys, command(work, "--orientation", "LPS", *more, out="again"))
    assert "differs in orientation (RAS there, LPS here)" in line
    assert "tile (8, 8, 12 there, None here)" in refused(capsys, command(work, out="again"))
    assert main(command(work, *more, out="again")) == 0
    assert "goes on after 2 of 3" in capsys.readouterr().err
    made = (work / "again" / "rows.parquet").read_bytes()
    assert made == (work / "run" / "rows.parquet").read_bytes()
    assert len(plain) == 18
    config = json.loads((work / "again" / "run.json").read_text())["spec"]
    assert (config["orientation"], config["tile"], config["overlap"]) == ("RAS", [8, 8, 12], 4)
    assert config["batch_size"] == 1


@pytest.mark.usefixtures("plain_page")
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_run_goes_on_and_ends_with_the_same_rows(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3, 30):
        values, labels = blobs(number)
        save(work / "images" / f"v{number}.nii.gz", values)
        save(work / "masks" / f"v{number}.nii.gz", labels)
    process = started(command(work), work / "run")
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert json.loads((work / "run" / "run.json").read_text())["status"] == "running"
    assert main(command(work)) == 0
    assert "goes on after" in capsys.readouterr().err
    assert main(command(work, out="straight")) == 0
    made = [(work / out / "rows.parquet").read_bytes() for out in ("run", "straight")]
    assert made[0] == made[1]


@pytest.mark.parametrize("kind", ["class", "predicted", "truth", "false-negatives"])
def test_tiles_give_the_whole_where_the_network_sees_no_further(work: Path, kind: str) -> None:
    more = ["--layers", "inside", "--target", kind]
    whole = rows(work, *more, net="build_near")
    tiled = rows(work, *more, "--tile", "10", "--overlap", "8", out="tiled", net="build_near")
    assert whole["truth_energy"].notna().any()
    # The null is drawn for whole images alone.
    measured = [name for name in whole if "_null" not in name]
    numbers = [name for name in measured if whole[name].dtype.kind == "f"]
    assert len(numbers) > 20
    np.testing.assert_allclose(tiled[numbers], whole[numbers], rtol=1e-3, atol=1e-5)


def test_neither_batches_workers_nor_classes_one_by_one_matter(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import unetcam.runs.rows

    plain = rows(work)
    pd.testing.assert_frame_equal(rows(work, "--workers", "2", out="read"), plain)
    three = rows(work, "--batch-size", "3", out="three")
    pd.testing.assert_frame_equal(three, plain, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(unetcam.runs.rows, "MEASURED_AT_ONCE", 2 * int(np.prod(SHAPE)))
    pd.testing.assert_frame_equal(rows(work, out="two"), plain)


def test_a_manifest_may_name_a_file_for_each_class(work: Path) -> None:
    plain = rows(work)
    entries = []
    for number in range(3):
        labels = np.asarray(nib.load(work / "masks" / f"v{number}.nii.gz").dataobj)
        masks = {}
        for index, name in ((1, "bone"), (2, "gut")):
            masks[name] = f"parts/{name}{number}.nii"
            save(work / masks[name], (labels == index).astype(np.uint8))
        entries.append({"id": f"v{number}", "image": f"images/v{number}.nii.gz", "mask": masks})
    (work / "data.json").write_text(json.dumps(entries))
    found = [
        "report", f"{work / 'net3.py'}:build", "--manifest", str(work / "data.json"), "--classes",
        CLASSES, "--out", str(work / "listed"), "--device", "cpu", "--workers", "0",
        "--max-value", "255",
    ]  # fmt: skip
    assert main([*found, "--limit", "2"]) == 0
    made = pd.read_parquet(work / "listed" / "rows.parquet")
    pd.testing.assert_frame_equal(made, plain[plain["image"] != "v2"])


def test_the_page_shows_the_slices_with_most_of_each_class(work: Path) -> None:
    made = rows(work)
    page = (work / "run" / "report.html").read_text()
    assert "Each image of this report is a volume." in page
    assert "distances in voxels" in page
    best = made[made["layer"] == "dec1"]
    shown = re.findall(r"(Axial|Coronal|Sagittal) slice (\d+) of (\d+) of volume (v\d)", page)
    assert shown
    # 1 x 1 x 2.5 mm: the finest plane is axial.
    assert {(plane, count) for plane, _, count, _ in shown} == {("Axial", "12")}
    for folder in ("images", "masks"):
        assert len(list((work / folder).iterdir())) == 3
    pictures = list((work / "run" / "figures").glob("example_bone_*_image.png"))
    assert len(pictures) == best[best["class_index"] == 1]["image"].nunique()
    assert page.count('<img src="data:image/webp') >= 3 * len(pictures)


def test_what_does_not_pair_is_skipped_by_name(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, labels = blobs(7)
    save(work / "images" / "smaller.nii.gz", values)
    save(work / "masks" / "smaller.nii.gz", labels[:-1])
    save(work / "images" / "apart.nii.gz", values)
    save(work / "masks" / "apart.nii.gz", labels, np.diag([1.0, 1, 2, 1]))
    save(work / "images" / "alone.nii.gz", values)
    save(work / "images" / "odd.nii.gz", values)
    save(work / "masks" / "odd.nii.gz", labels + 5)
    write_data(work, 1)
    assert main([*command(work), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["explained"] == 3
    reasons = {one["id"]: one["reason"] for one in found["skipped"]}
    assert set(reasons) == {"smaller", "apart", "alone", "odd", "im00"}
    assert "has (13, 11, 12) voxels" in reasons["smaller"]
    assert "mm away from its image" in reasons["apart"]
    assert "alone.nii.gz" in reasons["alone"]
    assert "unknown values 5, 6, 7" in reasons["odd"]
    assert "is no volume, and the network is three-dimensional" in reasons["im00"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--orientation", "RAL"], "'RAL' is no orientation"),
        (["--tile", "8x8"], "A tile of 2 sides does not fit the network"),
        (["--overlap", "4"], "give --tile as well"),
        (["--tile", "8", "--batch-size", "2"], "leave out --batch-size"),
        (["--resize-mode", "resize"], "olumes keep their size"),
        (["--size", "64x64"], "The network takes volumes, and a size of 64 x 64"),
    ],
)
def test_what_does_not_fit_a_volume_is_refused(
    work: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert words in refused(capsys, command(work, *more))
    assert not (work / "run").exists()


def test_masks_of_slices_are_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (work / "masks").iterdir():
        path.unlink()
    write_data(work, 3)
    for number, path in enumerate(sorted((work / "masks").iterdir())):
        path.rename(path.with_name(f"v{number}.png"))
    for path in (work / "images").glob("*.png"):
        path.unlink()
    line = refused(capsys, command(work))
    assert "is a volume and its mask 'v0.png' is not" in line
