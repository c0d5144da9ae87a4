"""A report from Python: networks and data in memory or by name, and what it returns."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import unetcam
from tests.runs.factory import CLASSES, TinyUNet, write_data, write_network
from unetcam.errors import DataError, ModelError, RunError, UnetcamError
from unetcam.runs import Run

NAMES = CLASSES.split(",")


pytestmark = pytest.mark.usefixtures("plain_page")


def arrays(count: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 24, 20, generator=generator)
    return images, torch.randint(0, 3, (count, 24, 20), generator=generator)


class Pairs(Dataset[Any]):
    def __init__(self, images: Tensor, masks: Tensor) -> None:
        self.images, self.masks = images, masks
        self.names = [f"case {n}" for n in range(len(images))]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.masks[index]


def network(seed: int = 2) -> TinyUNet:
    torch.manual_seed(seed)
    return TinyUNet().eval()


def report(model: Any, data: Any, out: Path, **options: Any) -> Run:
    return unetcam.report(
        model, data, out=out, **{"classes": NAMES, "batch_size": 2, "device": "auto", **options}
    )


def test_a_network_and_arrays_in_memory_give_a_run(tmp_path: Path) -> None:
    images, masks = arrays()
    run = report(network(), (images, masks), tmp_path / "run")
    assert len(run.rows) == 5 * 2 * 3
    assert run.page.is_file()
    assert run.path == tmp_path / "run"
    assert run.spec.model.endswith("TinyUNet")
    assert run.classes.names == tuple(NAMES)
    assert set(run.summary["class_name"]) == set(NAMES)
    shown = run._repr_html_()
    assert "5 images explained" in shown
    assert "cell" in shown


def test_what_is_in_memory_is_explained_as_by_hand(tmp_path: Path) -> None:
    from unetcam.measures import measure

    model, (images, masks) = network(), arrays(3)
    rows = report(model, (images, masks), tmp_path / "run").rows
    with unetcam.UNetCAM(model, layers=["up1"]) as cam:
        result = cam(images)
    expected = measure(
        result.resized()["up1"], range(3), masks, result.logits.argmax(1), num_classes=3
    )
    ours = rows[rows["layer"] == "up1"]
    for name in ("entropy", "truth_energy", "class_iou"):
        np.testing.assert_allclose(
            ours[name].to_numpy(float), expected[name].flatten().double().numpy(),
            rtol=1e-3, atol=1e-5,
        )  # fmt: skip


def test_a_loaded_model_is_taken_as_it_is(tmp_path: Path) -> None:
    from unetcam.models import LoadedModel

    plain = report(network(), arrays(), tmp_path / "plain").rows
    loaded = LoadedModel.of(network(), torch.zeros(1, 3, 24, 20))
    pd.testing.assert_frame_equal(report(loaded, arrays(), tmp_path / "loaded").rows, plain)
    with pytest.raises(RunError, match="leave out checkpoint="):
        report(loaded, arrays(), tmp_path / "other", checkpoint="best.pth")


def test_every_form_of_data_gives_the_same_rows(tmp_path: Path) -> None:
    images, masks = arrays()
    pairs = Pairs(images, masks)
    forms = {
        "arrays": (images.numpy(), masks.numpy()),
        "dataset": pairs,
        "loader": DataLoader(pairs, batch_size=3),
        "dicts": [{"image": i, "label": m} for i, m in zip(images, masks, strict=True)],
        "generator": ((i, m) for i, m in zip(images, masks, strict=True)),
    }
    model = network()
    expected = report(model, (images, masks), tmp_path / "tensors").rows.drop(columns="image")
    for name, data in forms.items():
        rows = report(model, data, tmp_path / name).rows
        pd.testing.assert_frame_equal(rows.drop(columns="image"), expected, obj=name)
    named = pd.read_parquet(tmp_path / "dataset" / "rows.parquet")["image"]
    assert list(dict.fromkeys(named)) == pairs.names


def test_python_and_files_give_what_the_command_line_gives(tmp_path: Path) -> None:
    from unetcam.cli import main

    write_data(tmp_path, 4)
    model = write_network(tmp_path)
    folders = (tmp_path / "images", tmp_path / "masks")
    command = [
        "report", model, "--images", str(folders[0]), "--masks", str(folders[1]), "--classes",
        CLASSES, "--out", str(tmp_path / "cli"), "--device", "cpu", "--workers", "0", "--mean",
        "0.5", "--band", "3", "-q",
    ]  # fmt: skip
    assert main(command) == 0
    run = unetcam.report(
        model, folders, out=tmp_path / "python", classes=CLASSES, device="cpu", mean=[0.5], band=3
    )
    assert run.spec == Run.load(tmp_path / "cli").spec
    for name in ("rows.csv", "summary.csv"):
        assert (tmp_path / "cli" / name).read_bytes() == (tmp_path / "python" / name).read_bytes()


def test_the_model_is_left_as_it_was_found(tmp_path: Path) -> None:
    model = network().train()
    model.up1.eval()
    model.out.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    state = torch.get_rng_state()
    report(model, arrays(), tmp_path / "run")
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert not model.out.weight.requires_grad
    assert all(value.grad is None for value in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_in_training_mode_is_explained_as_in_eval_mode(tmp_path: Path) -> None:
    class Dropping(TinyUNet):
        def __init__(self) -> None:
            super().__init__()
            self.up2.append(nn.Dropout(0.5))

    torch.manual_seed(2)
    model = Dropping()
    eval_rows = report(model.eval(), arrays(), tmp_path / "eval").rows
    train_rows = report(model.train(), arrays(), tmp_path / "train").rows
    pd.testing.assert_frame_equal(eval_rows, train_rows)


def test_an_image_without_a_mask_is_skipped_with_its_reason(tmp_path: Path) -> None:
    images, masks = arrays(3)
    data = [(images[0], masks[0]), (images[1], None), (images[2], masks[2])]
    run = report(network(), data, tmp_path / "run")
    assert run.rows["image"].nunique() == 2
    assert "No mask" in run.skipped[0].reason


def test_the_first_images_may_be_enough(tmp_path: Path) -> None:
    run = report(network(), arrays(), tmp_path / "run", limit=2)
    assert run.rows["image"].nunique() == 2
    assert run.spec.samples == 2


def test_other_data_in_the_same_folder_is_another_run(tmp_path: Path) -> None:
    report(network(), arrays(seed=0), tmp_path / "run")
    with pytest.raises(RunError, match=r"images or masks.*force=True"):
        report(network(), arrays(seed=1), tmp_path / "run")
    with pytest.raises(RunError, match="network's weights"):
        report(network(seed=3), arrays(seed=0), tmp_path / "run")
    report(network(), arrays(seed=0), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": 3}, ModelError, "int is no network"),
        ({"data": 3}, DataError, "no data set"),
        ({"classes": ["a", "b"]}, ModelError, "gives 3 classes, but classes= names 2"),
        ({"mean": [0.5]}, RunError, "leave out mean="),
        ({"pair": "{stem}_m"}, RunError, "leave out pair="),
        ({"checkpoint": "x.pth"}, RunError, "leave out checkpoint="),
        ({"layer": ["up1"]}, RunError, "did you mean layers"),
        ({"target": "everything"}, RunError, "no target"),
        ({"workers": -1}, RunError, "workers"),
        ({"device": "cuda:77"}, RunError, "cuda:77"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_is_told_in_python_s_words(
    tmp_path: Path, change: dict[str, Any], error: type[UnetcamError], words: str
) -> None:
    options = {"model": network(), "data": arrays(), **change}
    with pytest.raises(error, match=words) as caught:
        report(options.pop("model"), options.pop("data"), tmp_path / "run", **options)
    assert "--" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_help_shows_the_options() -> None:
    for task in (unetcam.report, unetcam.map):
        parameters = inspect.signature(task).parameters
        assert {"classes", "ignore_index", "method", "mean", "tile"} <= set(parameters)
        assert parameters["method"].default == "gradcam"
