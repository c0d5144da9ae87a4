"""The derivative of every logit with respect to a uniform shift of each of a layer's channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from unetcam.engine.memory import chunked
from unetcam.engine.perturb import Recording
from unetcam.engine.state import preserved
from unetcam.engine.tensors import at_least_single, copied, plain_images
from unetcam.errors import LayerError, NumericalError, UnetcamError, reason


@dataclass(frozen=True)
class ChannelDerivatives:
    """What the forward-mode passes of one layer gave.

    Attributes
    ----------
    activation : Tensor
        (B, K, *layer_spatial), as the layer gave it, in at least single precision as all of them.
    logits : Tensor
        (B, C, *spatial).
    derivative : Tensor
        (B, K, C, *spatial): how each logit moves when all pixels of channel k are raised alike.
    """

    activation: Tensor
    logits: Tensor
    derivative: Tensor


def channel_derivatives(
    model: nn.Module,
    images: Tensor,
    name: str,
    layer: nn.Module,
    output: Callable[[Any], Tensor],
    *,
    memory: int,
) -> ChannelDerivatives:
    """Push each channel's shift forward to the logits, in chunks.

    The modules before the layer run once; what is pushed is the part behind it.

    Parameters
    ----------
    model : nn.Module
        Left exactly as found.
    images : Tensor
        (B, C, *spatial) on the model's device.
    name : str
    layer : nn.Module
    output : callable
        Picks the logits from what the model returns.
    memory : int
        Bytes that a chunk's intermediate tensors may take; where the device runs out of memory
        all the same, the chunk is halved.

    Returns
    -------
    ChannelDerivatives

    Raises
    ------
    LayerError
        When the logits don't depend on the layer, or an operation behind it has no forward-mode
        derivative.
    NumericalError
        For NaN or infinity.
    """
    with preserved(model), torch.no_grad():
        images = plain_images(images)
        recording = Recording(model, layer, images)
        activation = recording.activation
        logits = output(recording.result)
        channels = activation.shape[1]

        def shifted(shift: Tensor) -> Tensor:
            raised = shift.view(1, channels, *[1] * (activation.ndim - 2))
            with recording.replayed(lambda: activation + raised):
                return output(model(copied(images)))

        zero = torch.zeros(channels, dtype=activation.dtype, device=activation.device)
        tangents = torch.eye(channels, dtype=activation.dtype, device=activation.device)

        def push(tangent: Tensor) -> Tensor:
            moved: Tensor = jvp(shifted, (zero,), (tangent,))[1]
            return moved

        # A pass holds about as much as its largest tensors: the logits' pixels at twice the width.
        width = max(channels, logits.shape[1])
        each = 4 * width * logits[:, 0].numel() * logits.element_size()
        try:
            parts = chunked(vmap(push), tangents, each, memory)
        except (UnetcamError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the network's own code in a mode that it may not be made for
            raise LayerError(
                f"The part behind the layer '{name}' can't be run again on its own, or has no "
                f"forward-mode derivative ({reason(error)}): use cam(...), which goes backward."
            ) from error
        derivative = torch.cat(parts).movedim(0, 1)
        finite = torch.stack([torch.isfinite(x).all() for x in (activation, logits, derivative)])
        if not finite.all():
            raise NumericalError(
                f"NaN or infinity in the field of layer '{name}': check the images, the "
                "preprocessing and the checkpoint."
            )
        return ChannelDerivatives(
            at_least_single(activation),
            at_least_single(logits.detach()),
            at_least_single(derivative.contiguous()),
        )
