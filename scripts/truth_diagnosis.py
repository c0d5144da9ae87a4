"""The toolkit's own diagnosis of a planted network, and which of its findings are true."""

from __future__ import annotations

from typing import Any

from truth_networks import Planted
from truth_scenes import CLASSES

IMAGES = 24


def diagnosed(network: Planted) -> dict[str, Any]:
    """Diagnose a network on 24 images of its own kind, as a user would."""
    import unetcam

    _, images, masks = network.examples(IMAGES)
    result = unetcam.diagnose(network.model, images, masks, classes=list(CLASSES))
    answer: dict[str, Any] = result.to_dict()
    return answer
