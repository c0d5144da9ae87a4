"""The script that trains a network on nuclei, with few crops and for few rounds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from unetcam.models import load_model

SCRIPTS = Path(__file__).parents[2] / "scripts"


def loaded(name: str) -> ModuleType:
    pytest.importorskip("stardist")
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return loaded("train_nuclei")


@pytest.fixture(scope="module")
def out(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nuclei")
    with torch.random.fork_rng():
        script.main(
            folder,
            epochs=3,
            crops=8,
            batch_size=4,
            seed=0,
            rate=1e-3,
            threads=torch.get_num_threads(),
        )
    return folder


def test_held_out_columns_lie_apart_from_the_training_columns(script: ModuleType) -> None:
    assert script.HELD_OUT_COLUMNS.start - script.TRAINING_COLUMNS.stop >= 32


def test_written_tiles_are_the_held_out_pixels(script: ModuleType, out: Path) -> None:
    image, mask = script.read_nuclei()
    for name, whole in (("images", image), ("masks", mask)):
        files = sorted((out / name).iterdir())
        assert len(files) == 10
        tiles = [np.asarray(Image.open(file)) for file in files]
        rows = [np.hstack(tiles[first : first + 2]) for first in range(0, 10, 2)]
        np.testing.assert_array_equal(np.vstack(rows), whole[:480, 320:512])


def test_touching_nuclei_have_a_boundary_between_them(script: ModuleType) -> None:
    from stardist.data import test_image_nuclei_2d

    _, instances = test_image_nuclei_2d(return_mask=True)
    _, mask = script.read_nuclei()
    left, right = instances[:, :-1], instances[:, 1:]
    touching = (left != right) & (left > 0) & (right > 0)
    assert touching.sum() > 100
    assert (mask[:, :-1][touching] == 2).all()
    assert (mask[:, 1:][touching] == 2).all()


@pytest.mark.parametrize("form", ["folder", "checkpoint"])
def test_both_forms_of_the_network_load_and_reach_the_iou_on_record(
    script: ModuleType, out: Path, form: str
) -> None:
    record = json.loads((out / "nuclei.json").read_text(encoding="utf-8"))
    if form == "folder":
        model = load_model(str(out / "model"))
    else:
        model = load_model(
            record["model"],
            model_args=record["model_args"],
            checkpoint=out / "weights.safetensors",
        )
    tiles = script.held_out_tiles(*script.read_nuclei())
    assert script.held_out_iou(model, *tiles) == pytest.approx(record["held_out_iou"], abs=1e-3)


def test_early_weights_are_another_state_of_the_same_network(out: Path) -> None:
    early = load_model(str(out / "model"), checkpoint=out / "early.safetensors").state_dict()
    late = load_model(str(out / "model")).state_dict()
    assert any(not torch.equal(early[name], late[name]) for name in late)


def test_each_nucleus_is_explained_for_itself(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = loaded("nuclei_by_instance")
    image, masks = script.read_instances()
    assert image.shape == (1, 1, 512, 512)
    assert masks.flatten(1).any(dim=1).all()
    assert masks.sum(dim=0).max() == 1
    figure = tmp_path / "nuclei.png"
    script.main(str(out / "model"), figure, "decoder.blocks.3")
    assert f"{len(masks)} nuclei at 'decoder.blocks.3' (16 channels)" in capsys.readouterr().out
    assert Image.open(figure).width > 800
