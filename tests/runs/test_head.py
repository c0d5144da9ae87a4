"""Networks whose classes don't exclude one another: what is predicted, measured and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unetcam
from unetcam.errors import UnetcamError
from unetcam.measures import Geometry
from unetcam.measures.segmentation import confusion, segmentation_quality
from unetcam.runs import Run

TRUTH = torch.tensor([0, 1, 2, 1]).repeat(3, 16, 4)


class Nested(nn.Module):
    """Channels of whole, core and rim: the image's value times a gain, less a limit of each."""

    def __init__(self, sigmoid: bool = False) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        self.down, self.low = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1)
        self.up, self.head = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 3, 1)
        with torch.no_grad():
            for layer in (self.down, self.low, self.up, self.head):
                layer.weight.zero_()
                layer.bias.zero_()
            self.down.weight[0] = self.up.weight[0, 0] = self.low.weight[:] = 1.0
            self.head.weight[:, 0, 0, 0] = 10.0
            self.head.bias[:] = torch.tensor([5.0, -5.0, -15.0])

    def forward(self, images: Tensor) -> Tensor:
        first = self.down(images)
        low = self.low(nn.functional.max_pool2d(first, 2))
        up = nn.functional.interpolate(low, scale_factor=2)
        logits = self.head(self.up(torch.cat([first, up], 1)))
        return logits.sigmoid() if self.sigmoid else logits


def images() -> Tensor:
    return TRUTH[:, None].float()


def report(folder: Path, *, sigmoid: bool = False, head: str | None = None) -> Run:
    return unetcam.report(
        Nested(sigmoid),
        (images(), TRUTH),
        classes=["whole", "core", "rim"],
        out=folder,
        head=head,
        diagnose=False,
    )


def shares(run: Run) -> list[float]:
    """Of each class the share of pixels that are predicted as it."""
    rows = run.rows[run.rows.layer == run.layers[-1]]
    sizes = rows.groupby("class_index").predicted_pixels.mean()
    return [float(size) / TRUTH[0].numel() for size in sizes]


def test_each_class_is_predicted_where_its_own_logit_is_above_zero(tmp_path: Path) -> None:
    run = report(tmp_path / "run", head="sigmoid")
    assert shares(run) == [1.0, 0.75, 0.25]
    assert run.spec.head == "sigmoid"
    assert "each on its own" in " ".join(run.meta["remarks"])
    assert run.page.exists()
    again = Run.load(tmp_path / "run")
    assert again.spec.head == "sigmoid"
    rows = run.rows[run.rows.layer == run.layers[-1]].set_index(["image", "class_name"])
    core = rows.xs("core", level="class_name")
    # 128 true pixels, 192 predicted, all of the true ones among them
    np.testing.assert_allclose(core.class_iou, 128 / 192)
    assert (core[["predicted_as_0", "predicted_as_1", "predicted_as_2"]] == [128, 128, 0]).all(None)


def test_without_a_head_one_class_is_predicted_at_each_pixel(tmp_path: Path) -> None:
    run = report(tmp_path / "run")
    assert shares(run) == [1.0, 0.0, 0.0]
    assert run.spec.head is None


def test_sigmoids_at_the_end_are_read_so_unasked_and_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="each on its own"):
        run = report(tmp_path / "a", sigmoid=True)
    assert shares(run) == [1.0, 0.75, 0.25]
    with pytest.warns(UserWarning, match="each on its own"):
        run = report(tmp_path / "b", sigmoid=True, head="softmax")
    assert shares(run) == [1.0, 0.0, 0.0]


def test_map_writes_the_prediction_of_each_class(tmp_path: Path) -> None:
    done = unetcam.map(Nested(), list(images()), out=tmp_path / "maps", head="sigmoid")
    archive = next(path for path in done.files if path.name == "maps.npz")
    prediction = np.load(archive)["prediction"]
    assert prediction.dtype == bool
    assert prediction.mean((1, 2)).tolist() == [1.0, 0.75, 0.25]


@pytest.mark.parametrize(("head", "never"), [("sigmoid", False), ("softmax", True)])
def test_the_diagnosis_reads_the_head(tmp_path: Path, head: str, never: bool) -> None:
    # Under a softmax the first class is predicted everywhere and the others nowhere.
    data, names = (images(), TRUTH), ["a", "b", "c"]
    run = unetcam.report(Nested(), data, classes=names, out=tmp_path / "run", head=head)
    assert ("never-predicted" in {one.kind for one in run.findings}) == never


def test_another_head_is_refused() -> None:
    with pytest.raises(UnetcamError, match="There is no head 'sofmax'"):
        unetcam.map(Nested(), list(images()), out="x", head="sofmax")


def test_masks_of_exclusive_classes_measure_as_their_indices_do() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(-1, 3, (2, 9, 7), generator=generator)
    prediction = torch.randint(0, 3, (2, 9, 7), generator=generator)
    masks = torch.stack([prediction == c for c in range(3)], 1)
    assert torch.equal(confusion(truth, prediction, 3), confusion(truth, masks, 3))
    plain = segmentation_quality([2, 0, 2], truth, prediction, num_classes=3)
    several = segmentation_quality([2, 0, 2], truth, masks, num_classes=3)
    for name, numbers in plain.items():
        assert torch.equal(several[name].nan_to_num(-1), numbers.nan_to_num(-1)), name
    one = Geometry(truth, [1, 2], prediction, num_classes=3)
    other = Geometry(truth, [1, 2], masks, num_classes=3)
    assert torch.equal(one.bins, other.bins)
    assert torch.equal(one.near_prediction, other.near_prediction)


def test_masks_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(UnetcamError, match="bring both to the same pixels"):
        Geometry(torch.zeros(1, 4, 4).long(), [0], torch.ones(1, 2, 4, 4).bool(), num_classes=3)
