"""Reading ahead: worker processes read images while the device works."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from unetcam.data import Frame, Item, Prepared, Sample, Skipped
from unetcam.errors import RunError

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def read_ahead(
    dataset: Dataset[Item | Skipped], indices: Sequence[int], workers: int
) -> Generator[Item | Skipped, None, None]:
    """The data set's entries in the order of `indices`.

    Parameters
    ----------
    dataset : Dataset
        Gives an item or a skipped image for an index.
    indices : sequence of int
    workers : int
        Processes that read; 0 reads in this one, when an entry is asked for.

    Yields
    ------
    Item or Skipped

    Raises
    ------
    RunError
        If a worker process dies.
    """
    workers = min(workers, len(indices))
    if workers == 0:
        yield from (dataset[index] for index in indices)
        return
    loader: DataLoader[Any] = DataLoader(
        _Packing(dataset),
        batch_size=None,
        sampler=list(indices),
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_prepare_worker,
    )
    try:
        for entry in loader:
            yield entry.unpack() if isinstance(entry, _Packed) else entry
    except RuntimeError as error:
        if "worker" not in str(error).lower():
            raise
        raise RunError(
            "A process that reads images was killed, often for want of memory: start the same "
            "command again, with fewer workers, as in workers=0.",
            option="workers",
        ) from error


@dataclass(frozen=True)
class _Packed:
    """An item without tensors.

    Tensors would travel through shared memory, of which a container often has only a few
    megabytes, and over sockets that complain when the receiver is stopped; arrays travel through
    the pipe like everything else.
    """

    sample: Sample
    network_image: NDArray[np.float32]
    network_mask: NDArray[np.int64] | None
    frame: Frame
    image: NDArray[np.uint8]
    truth: NDArray[np.int64]
    spacing: tuple[float, float, float] | None

    @classmethod
    def pack(cls, item: Item) -> _Packed:
        prepared = item.prepared
        mask = None if prepared.mask is None else prepared.mask.numpy()
        return cls(
            item.sample,
            prepared.image.numpy(),
            mask,
            prepared.frame,
            item.image,
            item.truth,
            item.spacing,
        )

    def unpack(self) -> Item:
        mask = None if self.network_mask is None else torch.from_numpy(self.network_mask)
        prepared = Prepared(torch.from_numpy(self.network_image), mask, self.frame)
        return Item(self.sample, prepared, self.image, self.truth, self.spacing)


class _Packing(Dataset["_Packed | Skipped"]):
    """A data set as worker processes send it."""

    def __init__(self, dataset: Dataset[Item | Skipped]) -> None:
        self._dataset = dataset

    def __getitem__(self, index: int) -> _Packed | Skipped:
        entry = self._dataset[index]
        return entry if isinstance(entry, Skipped) else _Packed.pack(entry)


def _as_it_is(entry: T) -> T:
    return entry


def _prepare_worker(_: int) -> None:
    """Workers leave Ctrl-C to their parent, and the cores to each other; they end with it."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # A parent that is killed can't tell them, and one that waits to write would wait for ever.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    cv2.setNumThreads(0)
