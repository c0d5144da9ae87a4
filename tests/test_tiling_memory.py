"""What is too large for one pass is explained within four gigabytes, the process and all."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIMIT = 4e9

EXPLAIN = """
import resource, sys
import torch
from tests.networks import UNet, UNet3d, seeded
from unetcam import UNetCAM
from unetcam.targets import ClassScore, PredictedRegion, Region

dims, side, method = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
model = seeded(UNet(1, 3) if dims == 2 else UNet3d())
tile, overlap = (512, 64) if dims == 2 else (96, 32)
image = torch.rand(1, 1, *[side] * dims)
mask = torch.zeros([side] * dims, dtype=torch.bool)
mask[side // 3 : side // 2] = True
wanted = [ClassScore(0), PredictedRegion(1), Region(2, mask)]
result = UNetCAM(model, method=method).tiled(image, tile, overlap, targets=wanted)
finest = result[result.layers[-1]]
assert finest.shape == (1, 3, *[side] * dims)
assert (finest[0].flatten(1).amax(dim=1) > 0).any()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts the peak as Linux does")
@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
@pytest.mark.parametrize(("dims", "side"), [(2, 8192), (3, 256)])
def test_a_large_image_takes_little_memory(dims: int, side: int, method: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXPLAIN, str(dims), str(side), method],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < LIMIT
