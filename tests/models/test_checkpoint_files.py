"""What a checkpoint file may turn out to be."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.models import test_checkpoints
from tests.models.test_checkpoints import Net, State, assert_holds, load, numbers
from unetcam.errors import ModelError
from unetcam.models import load_model
from unetcam.models.checkpoint_files import read_checkpoint
from unetcam.models.checkpoints import load_checkpoint


@pytest.fixture
def weights() -> State:
    return numbers(Net())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "best.pt"


class TestOtherFiles:
    """Files that stand where weights should be."""

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", r"is empty \(0 bytes\)"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n", "Git LFS"),
            (b"<!DOCTYPE html><html></html>", "an HTML page"),
            (b"\n\n  <HTML><body>sign in", "an HTML page"),
            (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "an XML page"),
            (b'{"error": "not found"}', "a JSON text"),
            (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file, as Keras writes"),
            (b"\x1f\x8b\x08" + bytes(99), "a gzip file: unpack it first"),
            (b"\x93NUMPY" + bytes(99), "a NumPy array"),
        ],
    )
    @pytest.mark.parametrize("name", ["best.pt", "best.safetensors"])
    def test_is_told_what_it_is(self, name: str, content: bytes, said: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=said):
            load_checkpoint(Net(), tmp_path / name, allow_pickle=True)

    @pytest.mark.parametrize("name", ["net.onnx", "net.tflite"])
    def test_is_told_by_its_name(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(b"\x08\x07\x12\x07pytorch")
        with pytest.raises(ModelError, match="whose layers can't be explained"):
            load_checkpoint(Net(), tmp_path / name)

    def test_a_file_of_another_suffix_is_read_by_what_it_holds(
        self, weights: State, tmp_path: Path
    ) -> None:
        save_file(weights, tmp_path / "best.pt")
        torch.save(weights, tmp_path / "best.safetensors")
        for name in ("best.pt", "best.safetensors"):
            model = Net()
            load_checkpoint(model, tmp_path / name)
            assert_holds(model, weights)

    def test_an_archive_of_other_files(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            archive.writestr("readme.txt", "hello")
        with pytest.raises(ModelError, match=r"zip archive of other files \(readme.txt\)"):
            load_checkpoint(Net(), tmp_path / "a.pt")

    def test_an_archive_that_unpacks_to_far_more(self, weights: State, tmp_path: Path) -> None:
        torch.save(weights, tmp_path / "a.pt")
        with zipfile.ZipFile(tmp_path / "a.pt", "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data/99", bytes(80 << 20))
        with pytest.raises(ModelError, match="would unpack to"):
            load_checkpoint(Net(), tmp_path / "a.pt")

    def test_an_archive_with_a_damaged_directory(self, weights: State, path: Path) -> None:
        torch.save(weights, path)
        content = bytearray(path.read_bytes())
        at = content.rindex(b"PK\x01\x02")
        content[at + 42 : at + 46] = b"\xff" * 4
        path.write_bytes(content)
        with pytest.raises(ModelError, match="can't be read as a checkpoint"):
            load_checkpoint(Net(), path)

    @pytest.mark.parametrize(
        ("made", "said"),
        [
            (".metadata", "torch.distributed.checkpoint"),
            ("latest", "DeepSpeed"),
            ("a.pt", "It holds a.pt"),
        ],
    )
    def test_a_folder(self, made: str, said: str, tmp_path: Path) -> None:
        (tmp_path / made).write_bytes(b"x")
        with pytest.raises(ModelError, match=said):
            load_checkpoint(Net(), tmp_path)

    def test_an_exported_program(self, tmp_path: Path) -> None:
        program = torch.export.export(Net().eval(), (torch.zeros(1, 1, 8, 8),))
        torch.export.save(program, tmp_path / "net.pt2")
        with pytest.raises(ModelError, match=r"torch\.export saved"):
            load_checkpoint(Net(), tmp_path / "net.pt2")
        with pytest.raises(ModelError, match=r"torch\.export saved"):
            load_model(str(tmp_path / "net.pt2"))

    def test_numpys_numbers_beside_the_weights(self, weights: State, path: Path) -> None:
        scores = [np.float64(0.5), np.float32(0.25), np.int64(3), np.bool_(True)]
        torch.save({"network_weights": weights, "scores": scores, "best": scores[0]}, path)
        assert read_checkpoint(path)["scores"] == scores
        assert_holds(load(torch.load(path, weights_only=False), path), weights)

    def test_a_numpy_type_that_could_hold_an_object_is_no_number(self, path: Path) -> None:
        class Crafted:
            def __reduce__(self) -> tuple[Any, ...]:
                return np._core.multiarray.scalar, (np.dtype("V8"), b"12345678")

        torch.save({"weights": Crafted()}, path)
        with pytest.raises(ModelError, match=r"can't be read|more than tensors"):
            read_checkpoint(path)


class TestShards:
    @pytest.fixture
    def index(self, weights: State, tmp_path: Path) -> Path:
        halves = {
            "model-00001-of-00002.safetensors": "body",
            "model-00002-of-00002.safetensors": "head",
        }
        listed = {}
        for name, part in halves.items():
            some = {n: v for n, v in weights.items() if n.startswith(part)}
            save_file(some, tmp_path / name)
            listed |= dict.fromkeys(some, name)
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(json.dumps({"metadata": {"total_size": 9}, "weight_map": listed}))
        return path

    def test_are_read_together(self, index: Path, weights: State) -> None:
        model = Net()
        load_checkpoint(model, index)
        assert_holds(model, weights)

    def test_that_are_not_there_are_named(self, index: Path) -> None:
        (index.parent / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(ModelError, match=r"1 of them do not lie beside it \(model-00002"):
            load_checkpoint(Net(), index)

    def test_one_of_them_alone_asks_for_the_index(self, index: Path) -> None:
        with pytest.raises(ModelError, match=r"part 1 of 2 .*\.index\.json"):
            load_checkpoint(Net(), index.parent / "model-00001-of-00002.safetensors")

    @pytest.mark.parametrize(
        "text",
        [
            *("{}", "[]", "{", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[" * 100000),
            *('{"weight_map": {"a": "../x.bin"}}', '{"weight_map": {"a": "/etc/passwd"}}'),
        ],
    )
    def test_of_a_damaged_index(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(text)
        with pytest.raises(ModelError, match=r"is no index|lie beside it"):
            load_checkpoint(Net(), path)


class Trap:
    """Unpickling this calls a function: what a hostile checkpoint would do."""

    sprung = False

    def __reduce__(self) -> tuple[Any, ...]:
        return spring, ()


def spring() -> int:
    Trap.sprung = True
    return 1


class TestPickles:
    def test_code_is_never_run_unless_allowed(self, weights: State, path: Path) -> None:
        Trap.sprung = False
        with pytest.raises(
            ModelError, match=r"holds more than tensors .*spring.*allow_pickle=True"
        ):
            load({"state_dict": weights, "extra": Trap()}, path)
        assert not Trap.sprung
        assert_holds(
            load({"state_dict": weights, "extra": Trap()}, path, allow_pickle=True), weights
        )
        assert Trap.sprung

    def test_arguments_beside_the_weights_load_when_allowed(
        self, weights: State, path: Path
    ) -> None:
        content = {"state_dict": weights, "args": argparse.Namespace(rate=0.1)}
        with pytest.raises(ModelError, match=r"argparse\.Namespace"):
            load(content, path)
        assert_holds(load(content, path, allow_pickle=True), weights)

    def test_whole_network_serves_as_checkpoint_when_allowed(self, path: Path) -> None:
        saved = Net()
        with pytest.raises(ModelError, match="allow_pickle=True"):
            load(saved, path)
        assert_holds(load(saved, path, allow_pickle=True), saved.state_dict())
        assert_holds(load({"model": saved}, path, allow_pickle=True), saved.state_dict())

    def test_whole_network_serves_as_model_when_allowed(self, path: Path) -> None:
        saved = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        torch.save(saved, path)
        assert_holds(load_model(str(path), allow_pickle=True), saved.state_dict())
        with pytest.raises(ModelError, match="allow_pickle=True"):
            load_model(str(path))
        with pytest.raises(ModelError, match="leave out model_args="):
            load_model(str(path), allow_pickle=True, model_args={"classes": 3})

    def test_network_of_code_that_is_gone(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.save(Net(), path)
        monkeypatch.delattr(test_checkpoints, "Net")
        with pytest.raises(ModelError, match=r"can't be found here .*Net"):
            load_checkpoint(nn.Conv2d(1, 1, 1), path, allow_pickle=True)
