from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.runs.factory import TinyUNet, plan, write_data
from tests.targets.reference import band, components
from unetcam import UNetCAM, targets
from unetcam.data import Skipped
from unetcam.errors import RunError
from unetcam.measures import measure
from unetcam.measures.null import null_columns
from unetcam.models import LoadedModel
from unetcam.runs import Plan, Run, execute
from unetcam.runs.explain import Explainer
from unetcam.runs.loop import chunks
from unetcam.runs.progress import Silent
from unetcam.runs.read_ahead import read_ahead
from unetcam.runs.spec import TARGET_KINDS


class Recorder(Silent):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.lost: list[Skipped] = []
        self.done = self.total = 0

    def begin(self, total: int, done: int) -> None:
        self.total, self.done = total, done

    def advance(self, images: int) -> None:
        self.done += images

    def skipped(self, one: Skipped) -> None:
        self.lost.append(one)

    def note(self, text: str) -> None:
        self.notes.append(text)


def run(ready: Plan, out: Path, **options: Any) -> Run:
    return execute(ready, out, **options)


def mixed(index: int) -> tuple[int, int]:
    return [(24, 20), (17, 33), (24, 20), (20, 24)][index % 4]


class StopAfter(Recorder):
    """Ctrl-C after so many images."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self._left = images

    def advance(self, images: int) -> None:
        super().advance(images)
        self._left -= images
        if self._left <= 0:
            raise KeyboardInterrupt


def test_there_is_one_row_per_image_layer_and_class_in_that_order(tmp_path: Path) -> None:
    found = run(plan(tmp_path, 5, size=mixed), tmp_path / "run")
    keys = [
        (f"im{i:02d}", layer, index)
        for i in range(5)
        for layer in ("up1", "up2")
        for index in range(3)
    ]
    rows = found.rows
    assert list(zip(rows["image"], rows["layer"], rows["class_index"], strict=True)) == keys
    assert found.layers == ["up1", "up2"]
    assert set(rows.loc[rows["layer"] == "up1", "stage_stride"]) == {2}
    assert set(rows["target"]) == {"class"}
    assert rows["empty"].dtype == bool
    assert rows["truth_pixels"].dtype == np.int64


def regions_of(kind: str, c: int, predicted: Tensor, truth: Tensor, inside: Tensor) -> Tensor:
    """The pixels of an image, (h, w), that a kind of target explains for a class."""
    true, other = truth == c, (truth != c) & (truth >= 0)
    missed, made_up = true & (predicted != c), other & (predicted == c)
    simple = {
        "class": inside,
        "predicted": (predicted == c) & inside,
        "truth": true,
        "false-positives": made_up,
        "false-negatives": missed,
    }
    if kind in simple:
        return simple[kind]
    if kind == "boundary-errors":
        width = max(1.0, 0.02 * np.hypot(*truth.shape))
        return torch.from_numpy(band(true.numpy(), other.numpy(), width)) & (missed | made_up)
    parts = [torch.from_numpy(part) for part in components(true.numpy())]
    unmet = [part for part in parts if not (part & (predicted == c)).any()]
    return torch.stack([torch.zeros_like(true), *unmet]).any(0)


@pytest.mark.parametrize("kind", TARGET_KINDS)
def test_the_numbers_are_those_of_the_maps_brought_back_one_image_at_a_time(
    tmp_path: Path, kind: str
) -> None:
    ready = plan(tmp_path, 4, size=mixed, target=kind)
    rows = run(ready, tmp_path / "run").rows
    dataset = ready.dataset()
    explained = 0
    for position, sample in enumerate(ready.samples):
        item = dataset[position]
        assert not isinstance(item, Skipped)
        frame = item.prepared.frame
        inside = torch.zeros(frame.padded, dtype=torch.bool)
        (top, left), (height, width) = frame.offset, frame.resized
        inside[top : top + height, left : left + width] = True
        with torch.no_grad():
            logits = ready.network.module(item.prepared.image[None])
        truth, predicted = item.prepared.mask, logits[0].argmax(0)
        regions = [regions_of(kind, c, predicted, truth, inside) for c in range(3)]
        explained += sum(bool(region.any()) for region in regions)
        # within=, for a class without a pixel is no mistake here
        wanted = [targets.ClassScore(c, within=region) for c, region in enumerate(regions)]
        with UNetCAM(ready.network.module, layers=["up1", "up2"]) as cam:
            result = cam(item.prepared.image[None], wanted)
        prediction = frame.restore(result.logits).argmax(1)
        for layer, maps in result.resized(frame.padded).maps.items():
            expected = measure(
                frame.restore(maps), range(3), torch.from_numpy(item.truth)[None], prediction,
                num_classes=3,
            )  # fmt: skip
            ours = rows[(rows["image"] == sample.id) & (rows["layer"] == layer)]
            for name, values in expected.items():
                # batches of another size round otherwise in single precision
                np.testing.assert_allclose(
                    ours[name].to_numpy(float), values[0].double().numpy(),
                    rtol=1e-3, atol=1e-4, err_msg=f"{sample.id} {layer} {name}",
                )  # fmt: skip
    assert explained


@pytest.mark.parametrize("stop", [1, 16, 17, 33])
def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_rows(
    tmp_path: Path, stop: int
) -> None:
    ready = plan(tmp_path, 36, size=mixed, batch_size=3)
    run(ready, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        run(ready, tmp_path / "stopped", progress=StopAfter(stop))
    told = Recorder()
    run(ready, tmp_path / "stopped", progress=told)
    assert told.done == told.total == 36
    straight, stopped = (tmp_path / name / "rows.parquet" for name in ("straight", "stopped"))
    assert straight.read_bytes() == stopped.read_bytes()
    for name in ("rows.csv", "summary.csv", "skipped.csv"):
        assert (tmp_path / "straight" / name).read_bytes() == (
            tmp_path / "stopped" / name
        ).read_bytes()


def test_worker_processes_give_the_same_rows(tmp_path: Path) -> None:
    ready = plan(tmp_path, 7, size=mixed)
    here = run(ready, tmp_path / "here", workers=0)
    there = run(ready, tmp_path / "there", workers=2)
    pd.testing.assert_frame_equal(here.rows, there.rows)


def test_a_finished_run_is_not_explained_again(tmp_path: Path) -> None:
    ready = plan(tmp_path, 3)
    run(ready, tmp_path / "run")
    before = (tmp_path / "run" / "rows.parquet").stat().st_mtime_ns
    told = Recorder()
    run(ready, tmp_path / "run", progress=told)
    assert told.total == 0
    assert "finished already" in told.notes[0]
    assert (tmp_path / "run" / "rows.parquet").stat().st_mtime_ns == before


def test_a_broken_image_is_reported_and_the_others_are_explained(tmp_path: Path) -> None:
    write_data(tmp_path, 5)
    (tmp_path / "images" / "im01.png").write_bytes(b"not an image")
    Image.fromarray(np.full((24, 20), 77, np.uint8)).save(tmp_path / "masks" / "im03.png")
    told = Recorder()
    found = run(plan(tmp_path), tmp_path / "run", progress=told, workers=1)
    assert list(dict.fromkeys(found.rows["image"])) == ["im00", "im02", "im04"]
    assert [one.id for one in found.skipped] == ["im01", "im03"]
    assert "77" in found.skipped[1].reason
    assert told.lost == found.skipped
    assert told.done == 5
    table = pd.read_csv(tmp_path / "run" / "skipped.csv")
    assert list(table["id"]) == ["im01", "im03"]


class FailsOnBright(nn.Module):
    """Fails where an image of the batch is white; gives NaN where one is black."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        if (x.flatten(1).amin(1) >= 1).any():
            raise RuntimeError("the scene is too bright\nand more")
        nan = torch.where(x.flatten(1).amax(1) <= 0, torch.nan, 0.0)
        return self.net(x) + nan[:, None, None, None]


def test_only_the_image_that_makes_a_batch_fail_is_skipped(tmp_path: Path) -> None:
    write_data(tmp_path, 6)
    for index, value in ((1, 255), (4, 0)):
        Image.fromarray(np.full((24, 20, 3), value, np.uint8)).save(
            tmp_path / "images" / f"im{index:02d}.png"
        )
    ready = plan(tmp_path, batch_size=3)
    torch.manual_seed(0)
    model = FailsOnBright(ready.network.module)
    layers = ("net.up1", "net.up2")
    network = LoadedModel.of(model, torch.zeros(1, 3, 64, 64))
    ready = replace(ready, network=network, spec=ready.spec.settled(layers=layers))
    found = execute(ready, tmp_path / "run")
    assert sorted(set(found.rows["image"])) == ["im00", "im02", "im03", "im05"]
    bright, dark = found.skipped
    assert "RuntimeError: the scene is too bright" in bright.reason
    assert "more" not in bright.reason
    assert "NaN" in dark.reason or "finite" in dark.reason


def test_when_every_image_is_broken_the_run_fails_and_says_why(tmp_path: Path) -> None:
    images, _ = write_data(tmp_path, 2)
    for path in images.iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(RunError, match="all 2 were skipped"):
        run(plan(tmp_path), tmp_path / "run")


def test_what_workers_send_is_what_was_read(tmp_path: Path) -> None:
    write_data(tmp_path, 3, mixed)
    (tmp_path / "images" / "im01.png").write_bytes(b"not an image")
    ready = plan(tmp_path)
    dataset = ready.dataset()
    for index, sent in zip((2, 1, 0), read_ahead(dataset, (2, 1, 0), 2), strict=True):
        read = dataset[index]
        if isinstance(read, Skipped) or isinstance(sent, Skipped):
            assert read == sent
            continue
        assert sent.sample == read.sample
        assert sent.prepared.frame == read.prepared.frame
        assert torch.equal(sent.prepared.image, read.prepared.image)
        assert sent.prepared.mask is not None
        assert read.prepared.mask is not None
        assert torch.equal(sent.prepared.mask, read.prepared.mask)
        np.testing.assert_array_equal(sent.image, read.image)
        np.testing.assert_array_equal(sent.truth, read.truth)


def test_a_worker_that_dies_is_told_in_one_sentence(tmp_path: Path) -> None:
    ready = plan(tmp_path, 4)
    dataset = ready.dataset()
    with pytest.raises(RunError, match="fewer workers"):
        list(read_ahead(_Deadly(dataset), range(4), 1))  # type: ignore[arg-type]


class _Deadly:
    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        import os

        os._exit(9)


def test_batches_do_not_depend_on_where_a_run_was_stopped() -> None:
    for count in (1, 15, 16, 17, 100):
        for batch in (1, 3, 4, 5, 16, 40):
            parts = chunks(count, batch)
            assert [i for part in parts for i in part] == list(range(count))
            assert all(len(part) % batch == 0 for part in parts[:-1])


def test_pixels_that_are_ignored_count_nowhere(tmp_path: Path) -> None:
    write_data(tmp_path, 2)
    path = tmp_path / "masks" / "im00.png"
    mask = np.array(Image.open(path))
    mask[:4] = 250
    Image.fromarray(mask).save(path)
    rows = run(plan(tmp_path, ignore_index=250), tmp_path / "run").rows
    counted = rows[(rows["image"] == "im00") & (rows["layer"] == "up1")]["truth_pixels"].sum()
    assert counted == 20 * 20


def test_a_truth_region_fits_a_network_with_smaller_logits(tmp_path: Path) -> None:
    class Half(TinyUNet):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.avg_pool2d(super().forward(x), 2)

    ready = plan(tmp_path, 3, target="truth")
    torch.manual_seed(0)
    ready = replace(ready, network=LoadedModel.of(Half(), torch.zeros(1, 3, 32, 32)))
    rows = execute(ready, tmp_path / "run").rows
    assert set(rows["image"]) == {"im00", "im01", "im02"}
    assert rows["truth_energy"].notna().any()


def test_what_is_explained_is_in_the_images_own_frame_and_scaled_to_one(tmp_path: Path) -> None:
    ready = plan(tmp_path, 2, size=lambda i: (17, 33))
    dataset = ready.dataset()
    items = [item for item in (dataset[0], dataset[1]) if not isinstance(item, Skipped)]
    with Explainer(ready.network.module, ready.spec) as explainer:
        (batch,) = explainer.explained(items)
        alone = [next(explainer.explained([item])) for item in items]
    assert batch.items == tuple(items)
    assert batch.prediction.shape == (2, 17, 33)
    assert batch.maps("up1").shape == (2, 3, 17, 33)
    for index in range(3):
        scaled = alone[1].scaled("up1", index)
        assert scaled.shape == (17, 33)
        assert scaled.max() in (0.0, 1.0)


def test_mixed_precision_gives_nearly_the_same_overlap(tmp_path: Path) -> None:
    exact = run(plan(tmp_path, 3), tmp_path / "exact").rows
    mixed_precision = run(plan(tmp_path, amp=True), tmp_path / "amp").rows
    assert not exact["entropy"].equals(mixed_precision["entropy"])
    # bfloat16 carries 8 bits: maps agree to some per cent
    np.testing.assert_allclose(exact["entropy"], mixed_precision["entropy"], atol=0.1)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    ready = plan(tmp_path, 64, size=lambda i: (48, 48), batch_size=4)
    peaks = {}
    for count in (16, 16, 64):  # the first fills caches
        tracemalloc.start()
        execute(
            replace(ready, source=ready.source.subset(range(count))),
            tmp_path / f"run{count}",
            force=True,
        )
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # rows of 48 more images are 288 x 75 numbers, which pandas holds a few times at the end;
    # the images themselves would be 48 x 48 x (3 + 8 + 12 + 8) bytes x 48
    assert peaks[64] - peaks[16] < 2_500_000


def test_images_in_a_tile_of_their_size_give_the_same_rows(tmp_path: Path) -> None:
    whole = run(plan(tmp_path, 2, batch_size=1), tmp_path / "run").rows
    ready = plan(tmp_path, 2, batch_size=None, tile=(24, 20), overlap=4)
    assert (ready.spec.tile, ready.spec.batch_size) == ((24, 20), 1)
    tiled = run(ready, tmp_path / "tiled").rows
    null = list(null_columns())  # of a whole image's forward, which tiles do not have
    assert whole["truth_energy_null"].notna().any()
    assert tiled[null].isna().all(axis=None)
    pd.testing.assert_frame_equal(
        tiled.drop(columns=null), whole.drop(columns=null), rtol=1e-4, atol=1e-6
    )


def test_the_null_is_measured_in_a_sample_of_the_images(tmp_path: Path) -> None:
    """The eight images of ten that carry it have what random weights give at their layer."""
    ready = plan(tmp_path, 10)
    rows = run(ready, tmp_path / "run").rows
    ids = rows["image"].drop_duplicates().tolist()
    with_null = rows.loc[rows["truth_energy_null"].notna(), "image"].drop_duplicates().tolist()
    assert with_null == [ids[at] for at in (0, 1, 2, 3, 5, 6, 7, 8)]
    low, mean, high = (rows[f"effective_area_null{end}"] for end in ("_low", "", "_high"))
    known = mean.notna()
    assert (low[known] <= mean[known]).all()
    assert (mean[known] <= high[known]).all()
    # The null knows nothing of a class: what asks no class is the same for all of them.
    per_map = rows[known].groupby(["image", "layer"])["effective_area_null"].nunique()
    assert (per_map == 1).all()
    spread = rows.loc[known].groupby("image")["effective_area_null"].nunique()
    assert spread.max() == len(ready.spec.layers)
