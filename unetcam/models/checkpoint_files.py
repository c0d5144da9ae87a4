"""What a checkpoint file holds: read on the CPU, without running code that lies in it."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from unetcam.errors import ModelError, brief, first_few, reason

_REMEDY: Final = "save the Python network's state_dict() and give that file."
_HEAD: Final = 512
_PACKED_MORE: Final = 64 << 20
_MOST_INDEX: Final = 64 << 20
"""Bytes of the largest index of shards that is read."""

#: How the files of other programs begin, and what they are.
_OTHERS: Final = (
    (b"\x89HDF", "an HDF5 file, as Keras writes"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF file"),
)
_OTHER_SUFFIXES: Final = {
    ".onnx": "an ONNX graph",
    ".tflite": "a TensorFlow Lite graph",
    ".engine": "a TensorRT engine",
    ".mlmodel": "a Core ML graph",
}


def read_checkpoint(path: Path, *, allow_pickle: bool = False) -> Any:
    """Read what a checkpoint file holds, on the CPU.

    Parameters
    ----------
    path
        A ``.safetensors`` file, one that ``torch.save`` wrote (told by what it begins with, not
        by its name), or a ``*.index.json`` that lists several such files beside it.
    allow_pickle
        Fall back on unpickling any Python object, which can run code, where the file needs it.

    Returns
    -------
    object
        Mostly a dict, with tensors under names somewhere in it.

    Raises
    ------
    ModelError
        When the file is missing, damaged, of another kind, or needs `allow_pickle`.
    """
    _require_file(path)
    if path.name.endswith(".index.json"):
        return _read_shards(path, allow_pickle=allow_pickle)
    head = _head(path)
    other = _mistaken_for(path, head)
    if other is not None:
        raise ModelError(f"{path} holds no weights that are read here: it is {other}.")
    if _is_safetensors(path, head):
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError, TypeError, MemoryError) as error:
            raise _unreadable(path, error) from error
    _check_archive(path, head)
    return _read_torch(path, allow_pickle=allow_pickle)


def _read_torch(path: Path, *, allow_pickle: bool) -> Any:
    try:
        # nnU-Net and others keep scores as NumPy's numbers beside the weights.
        # An open file, as torch goes by the suffix of a name.
        with torch.serialization.safe_globals(_number_readers()), path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"(?:GLOBAL|class|global)\s+`?([\w.]+)`?", str(error))
        if unsafe is None:
            raise _unreadable(path, error) from error
        if not allow_pickle:
            raise ModelError(
                f"{path} holds more than tensors ({brief(unsafe[1])}), and reading it could run "
                "code: save model.state_dict() alone or, if you trust the file, give "
                "allow_pickle=True.",
                option="allow_pickle",
            ) from error
    except Exception as error:  # torch raises every kind for a damaged file; none is of our code
        raise _unreadable(path, error) from error
    return _unpickle(path)


def _unpickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=False)
    except (AttributeError, ImportError) as error:
        raise ModelError(
            f"{path} was pickled with code that can't be found here ({error}): start in the "
            "folder that holds the code, or save model.state_dict() instead."
        ) from error
    except Exception as error:  # and whatever the code in the file raises
        raise _unreadable(path, error) from error


def _require_file(path: Path) -> None:
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
        empty = is_file and path.stat().st_size == 0
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ModelError(f"{path} can't be opened ({reason(error)}): check the path.") from error
    if is_folder:
        raise ModelError(_of_folder(path))
    if not is_file:
        raise ModelError(f"There is no checkpoint file {path}: check the path.")
    if empty:
        raise ModelError(f"{path} is empty (0 bytes): copy or download it again.")


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _of_folder(path: Path) -> str:
    """What to do with a folder that was given for a file."""
    if (path / ".metadata").is_file():
        return (
            f"{path} is a folder that torch.distributed.checkpoint wrote: join it into one file "
            "with torch.distributed.checkpoint.format_utils.dcp_to_torch_save and give that."
        )
    if (path / "latest").is_file() or any(path.glob("zero_pp_rank_*")):
        return (
            f"{path} is a folder that DeepSpeed wrote: join it into one file with its "
            "zero_to_fp32.py and give that."
        )
    there = sorted(one.name for one in path.iterdir() if one.is_file())
    listed = f" It holds {first_few(there)}" if there else " It is empty"
    return f"{path} is a folder and no file with weights: name the file.{listed}."


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise ModelError(f"{path} can't be opened ({reason(error)}): check the path.") from error


def _mistaken_for(path: Path, head: bytes) -> str | None:
    """What a file is that only bears the name of weights: the end of a sentence, or None."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return 'a Git LFS pointer, so fetch the file itself with "git lfs pull"'
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page (a sign-in or an error, perhaps), so download the file itself"
    if text.startswith(b"<?xml"):
        return "an XML page (an answer of the server, perhaps), so download the file itself"
    if text.startswith((b"{", b"[")):
        return (
            "a JSON text; of a model in several files give the one that ends in .index.json, "
            "and otherwise download the file itself"
        )
    known = next((what for magic, what in _OTHERS if head.startswith(magic)), None)
    suffix = path.suffix.lower()
    if known is None and suffix in _OTHER_SUFFIXES:
        known = f"{_OTHER_SUFFIXES[suffix]}, whose layers can't be explained"
    return known and f"{known}; {_REMEDY[:-1]}"


def _is_safetensors(path: Path, head: bytes) -> bool:
    """By what it begins with: the length of a header, and a brace; else by its name."""
    if head[8:9] == b"{" and len(head) > 8:
        return 0 < int.from_bytes(head[:8], "little") <= path.stat().st_size
    torch_saved = head.startswith((b"PK\x03\x04", b"\x80"))
    return path.suffix.lower() == ".safetensors" and not torch_saved


def _check_archive(path: Path, head: bytes) -> None:
    """Refuse a zip file that is damaged, no checkpoint, or unpacks to far more than it is."""
    if not head.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            unpacked = sum(one.file_size for one in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, MemoryError) as error:
        raise _unreadable(path, error) from error
    last = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last:
        raise ModelError(
            f"{path} is a TorchScript archive, whose layers can't be hooked: {_REMEDY}"
        )
    if "archive_format" in last or "serialized_exported_program.json" in last:
        raise ModelError(
            f"{path} is a program that torch.export saved, whose layers can't be hooked: {_REMEDY}"
        )
    if "data.pkl" not in last:
        raise ModelError(
            f"{path} is a zip archive of other files ({first_few(names)}): unpack it, and give "
            "the file that holds the weights."
        )
    if unpacked > 2 * path.stat().st_size + _PACKED_MORE:
        raise ModelError(
            f"{path} would unpack to {unpacked / 2**30:.1f} GiB, and torch.save packs nothing: "
            "it is damaged or made to fill the memory, so save it again."
        )


def _read_shards(index: Path, *, allow_pickle: bool) -> dict[str, Any]:
    """The weights of a model in several files, by the index that lists them."""
    wrong = f"{index} is no index of a model in several files"
    if index.stat().st_size > _MOST_INDEX:
        raise ModelError(f"{wrong}: it is too large for that.")
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{wrong} (it has no weight_map): give the file with weights.") from error
    if not isinstance(listed, Mapping) or not all(isinstance(v, str) for v in listed.values()):
        raise ModelError(f"{wrong} (its weight_map names no files): write it again.")
    names = sorted(set(listed.values()))
    outside = [name for name in names if not name or Path(name).name != name or "\0" in name]
    if outside:
        raise ModelError(f"{index} names files that don't lie beside it: put them there.")
    missing = [name for name in names if not _is_there(index.parent / name)]
    if missing:
        raise ModelError(
            f"{index} lists {len(names)} files with weights, and {len(missing)} of them do not "
            f"lie beside it ({first_few(missing)}): put them there."
        )
    weights: dict[str, Any] = {}
    for name in names:
        content = read_checkpoint(index.parent / name, allow_pickle=allow_pickle)
        if not isinstance(content, Mapping):
            raise ModelError(f"{index.parent / name} holds no weights under names: write it again.")
        weights.update(content)
    lost = [name for name in listed if name not in weights]
    if lost:
        raise ModelError(
            f"{len(lost)} of the weights that {index} lists are in none of its files "
            f"({first_few(lost)}): copy or download them again."
        )
    return weights


def _unreadable(path: Path, error: BaseException) -> ModelError:
    return ModelError(
        f"{path} can't be read as a checkpoint ({reason(error)}): it may be damaged, cut short or "
        "of another kind, so copy it again, or give a .safetensors file or one that torch.save "
        "wrote."
    )


class _NumberType:
    """In the place of ``numpy.dtype`` while a file is read: its plain types of numbers alone."""

    def __init__(self, kind: str, *_: Any) -> None:
        if not re.fullmatch(r"[biuf][1248]", kind):
            raise pickle.UnpicklingError(f"a NumPy type {kind!r} that is no number")
        self.kind = kind
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.order = state[1]


def _number(kind: _NumberType, content: bytes) -> Any:
    """In the place of NumPy's ``scalar``, which trusts what the file says of a type."""
    dtype = np.dtype(kind.order + kind.kind)
    if not isinstance(content, bytes) or len(content) != dtype.itemsize:
        raise pickle.UnpicklingError("a NumPy number of another length than its type")
    return np.frombuffer(content, dtype)[0]


def _number_readers() -> list[Any]:
    scalar = [(_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [(_NumberType, "numpy.dtype"), _NumberType, *scalar]
