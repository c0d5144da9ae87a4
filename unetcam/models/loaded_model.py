"""A network together with everything that one look at it showed."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unetcam.engine.request import TapPoint
from unetcam.engine.state import preserved
from unetcam.engine.tensors import at_least_single, plain_images
from unetcam.errors import LayerError, ModelError, UnetcamError, reason
from unetcam.models.activations import OutputKind, WithoutActivation
from unetcam.models.io import Inputs, bound, check_images, detached, image_of
from unetcam.models.layer_names import Address, addresses, tap_points
from unetcam.models.layers import LayerTable
from unetcam.models.look import Look
from unetcam.models.outputs import LayoutOf, Output, OutputMap, output_maps
from unetcam.models.supported import check_supported, failure, unwrapped
from unetcam.models.tracing import ForwardError, trace

#: Of networks whose layers hold tokens, the traces of the last so many image sizes are kept.
_KEPT = 8


class LoadedModel:
    """A network, out of what wraps it, and what one traced run of it showed.

    It is made once, by :func:`unetcam.load` or :meth:`of`, and taken by everything that takes a
    network. The run is traced when it is first needed, kept on this object, and not made again.

    Attributes
    ----------
    module : nn.Module
        Out of ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``'s wrapper.
    output : callable or None
        Picks the logits from what the module returns; None: they are found by the trace.
    remarks : tuple of str
        What a person should know of how its weights were loaded.

    Examples
    --------
    >>> import torch
    >>> network = nn.Sequential(
    ...     nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Upsample(scale_factor=2),
    ...     nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 2, 1))
    >>> loaded = LoadedModel.of(network, torch.zeros(1, 1, 8, 8))
    >>> loaded.table.decoder, loaded.classes, loaded.channels, loaded.dims, loaded.stride
    (('2',), 2, 1, 2, 2)
    >>> loaded.logits(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 2, 8, 8])
    """

    def __init__(self, module: nn.Module, *, output: Output | None = None) -> None:
        check_supported(module)
        if output is not None and not callable(output):
            raise ModelError(
                f"output={output!r} is no function: pass one that picks the logits from what the "
                "model returns, as output=lambda returned: returned['out']."
            )
        self.module = unwrapped(module)
        self.output = output
        self.remarks: tuple[str, ...] = ()
        self._looks: OrderedDict[tuple[int, ...], Look] = OrderedDict()

    @classmethod
    def of(
        cls,
        model: nn.Module | LoadedModel,
        example: Inputs | None = None,
        *,
        output: Output | None = None,
    ) -> LoadedModel:
        """The loaded model of a network; one that is loaded already is itself.

        Parameters
        ----------
        model : nn.Module or LoadedModel
            Left as found.
        example : Tensor, tuple or dict, optional
            Images (B, C, *spatial) to look at it with at once; see :func:`find_layers`.
        output : callable, optional
            Picks the logits from what the model returns.

        Raises
        ------
        ModelError
            For what is no network, one of a kind that can't be hooked, and one that fails on the
            example.
        """
        if isinstance(model, LoadedModel):
            loaded = model if output is None else cls(model.module, output=output)
        else:
            loaded = cls(model, output=output)
        if example is not None:
            loaded.look(example)
        return loaded

    def __repr__(self) -> str:
        name = type(self.module).__name__
        if not self._looks:
            return f"LoadedModel({name}, not looked at yet)"
        return f"LoadedModel({name}, {self.channels} channels, {self.classes} classes)"

    # -- what is known -----------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where its parameters are; without any, where the images were that it was shown."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            return tensor.device
        return self._first.device if self._looks else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The type of its images: that of the first parameter of real numbers."""
        kinds = (parameter.dtype for parameter in self.module.parameters())
        return next((kind for kind in kinds if kind.is_floating_point), torch.float32)

    @property
    def is_traced(self) -> bool:
        """Whether a traced run is known."""
        return bool(self._looks)

    @property
    def table(self) -> LayerTable:
        """Its layers, from the image to the logits."""
        return self._first.table

    @property
    def channels(self) -> int:
        """Channels of the images that it was looked at with."""
        return self._first.channels

    @property
    def dims(self) -> Literal[2, 3]:
        """2 for a network of images, 3 for one of volumes."""
        return 3 if len(self._first.size) == 3 else 2

    @property
    def classes(self) -> int:
        """How many classes its logits have: two where there is one channel."""
        channels = self._first.output.channels
        return 2 if channels == 1 else channels

    @property
    def output_kind(self) -> OutputKind:
        """Whether it returns logits, or what a softmax or sigmoid at its end makes of them.

        What is explained, and what :meth:`logits` gives, are the logits either way.
        """
        return self._first.kind

    @property
    def output_sentence(self) -> str | None:
        """What a person is told of a network that returns no logits; None of one that does."""
        return self._first.kind_sentence

    @property
    def head(self) -> Literal["softmax", "sigmoid"]:
        """Whether its classes exclude one another: not where several channels end in sigmoids."""
        several = self._first.output.channels > 1
        return "sigmoid" if several and self.output_kind == "sigmoid" else "softmax"

    @property
    def stride(self) -> int:
        """The largest stride of its layers: what an image's sides must be multiples of."""
        return max((layer.stride for layer in self.table), default=1)

    @property
    def batch_size(self) -> int | None:
        """How many images it takes at once, where it insists; otherwise None."""
        return self._first.run.batch_size

    @property
    def _first(self) -> Look:
        for look in self._looks.values():
            return look
        raise LayerError(
            "The model hasn't been looked at yet: give LoadedModel.of an example, or explain an "
            "image first."
        )

    # -- looking -----------------------------------------------------------------------------

    def look(self, inputs: Inputs, *, anew: bool = False) -> Look:
        """What a traced run shows; one that was made before, unless it is to be made anew.

        Parameters
        ----------
        inputs : Tensor, tuple or dict
            Images (B, C, *spatial), or the arguments of a network of several inputs.
        anew : bool
            Whether the run must be one of images of this size.
        """
        image = image_of(inputs)
        check_images(self.module, image)
        key = tuple(image.shape[1:])
        if key in self._looks:
            return self._looks[key]
        if not anew:
            for look in self._looks.values():
                if look.channels == image.shape[1] and len(look.size) == image.ndim - 2:
                    return look
        look = self._traced(inputs)
        if len(self._looks) > _KEPT:
            oldest_but_first = list(self._looks)[1]
            del self._looks[oldest_but_first]
        self._looks[key] = look
        return look

    def forget(self) -> None:
        """Let go of the traced runs; the next question traces anew."""
        self._looks.clear()

    def _traced(self, inputs: Inputs) -> Look:
        try:
            look = Look(trace(self.module, inputs, self._picked, self._outputs), inputs)
        except ForwardError as error:
            cause = error.__cause__
            assert isinstance(cause, Exception)
            raise failure(self.module, inputs, cause) from cause
        if not self._looks:
            self._warn_of(look)
        return look

    def _warn_of(self, look: Look) -> None:
        if look.rivals and self.output is None:
            others = ", ".join(str(rival.channels) for rival in look.rivals)
            warnings.warn(
                "The model returns several maps of one size, and the one of "
                f"{look.output.channels} channels is taken for the logits (the others have "
                f"{others}): pass output= to say which they are.",
                stacklevel=2,
            )
        if look.kind == "sigmoid" and look.output.channels > 1 and look.kind_sentence:
            warnings.warn(look.kind_sentence, stacklevel=2)

    def tap_points(self, wanted: Sequence[Address], inputs: Inputs) -> dict[str, TapPoint]:
        """Where each of the layers is tapped, by its name.

        Raises
        ------
        LayerError
            For a run or a part that a layer doesn't have, and for tokens whose pixels can't be
            told.
        """
        look = self.look(inputs)
        points = tap_points(self.module, wanted, look)
        tokens = any(p.layout is not None and p.layout.flat for p in points.values())
        if tokens and look.size != tuple(image_of(inputs).shape[2:]):
            points = tap_points(self.module, wanted, self.look(inputs, anew=True))
        return points

    def addresses(self, layers: Sequence[str | nn.Module]) -> tuple[Address, ...]:
        """The layers that are meant, in the given order; see :mod:`~unetcam.models.layer_names`."""
        return addresses(self.module, layers)

    # -- running -----------------------------------------------------------------------------

    def logits(self, images: Inputs) -> Tensor:
        """The logits of images, in a plain forward without a graph.

        Parameters
        ----------
        images : Tensor, tuple or dict
            (B, C, *spatial), floating point, on the model's device.

        Returns
        -------
        Tensor
            (B, classes or 1, *spatial), in at least single precision; of a network that ends in a
            softmax or sigmoid what enters it. The model is evaluated and left as found, and the
            images are not changed. A network that takes one number of images alone is given so
            many, the last one repeated.

        Raises
        ------
        ModelError
            For images that the model can't be given.
        """
        self.look(images)
        count = self.batch_size
        if isinstance(images, Tensor) and count is not None and len(images) != count:
            return torch.cat([self.logits(part) for part in self.batches(images)])[: len(images)]
        image = plain_images(image_of(images)).clone()
        run, pick = self.forward_of(images)
        with preserved(self.module), torch.no_grad():
            try:
                returned = run(image)
            except (UnetcamError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # the network's own code, whatever it raises
                raise failure(self.module, images, error) from error
            return at_least_single(pick(returned, image))

    def batches(self, images: Tensor) -> list[Tensor]:
        """Images (B, C, *spatial) as a network takes them that insists on some number at once.

        The last one is repeated until the last batch is full; of any other network one batch.
        """
        count = self.batch_size
        if count is None or len(images) == count:
            return [images]
        lacking = -len(images) % count
        last = images[-1:].expand(lacking, *images.shape[1:])
        return list(torch.split(torch.cat([images, last]), count))

    def forward_of(self, inputs: Inputs) -> tuple[nn.Module, Callable[[Any, Tensor], Tensor]]:
        """What maps images alone to what the network returns, and what picks the logits from it.

        Parameters
        ----------
        inputs : Tensor, tuple or dict
            The images, beside whatever else the network takes.
        """
        run = bound(self.module, detached(inputs))
        if self.look(inputs).kind == "logits":
            return run, self._pick
        return WithoutActivation(run, self._pick, self.output_kind), lambda logits, images: logits

    def _pick(self, returned: Any, images: Tensor) -> Tensor:
        """The output (B, C, *spatial) that counts, as the module returned it for `images`."""
        look = self.look(images)
        if look.output.form == "tokens":
            look = self.look(images, anew=True)
        return look.output.read(self._picked(returned), images)

    def _outputs(self, returned: Any, images: Tensor, layout_of: LayoutOf) -> list[OutputMap]:
        try:
            if self.output is None or isinstance(returned, Tensor):
                return output_maps(returned, images, layout_of)
        except ModelError as error:
            if self.output is None:
                raise
            cause: ModelError | None = error
        else:
            cause = None
        shape = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
        raise ModelError(
            f"output= gave {shape}, which is no segmentation map (B, C, *spatial) for images of "
            f"shape {tuple(images.shape)}: return the logits."
        ) from cause

    def _picked(self, returned: Any) -> Any:
        if self.output is None:
            return returned
        try:
            return self.output(returned)
        except (LookupError, AttributeError, TypeError) as error:
            raise ModelError(
                f"output= can't pick the logits from the {type(returned).__name__} that the model "
                f"returns ({reason(error)}): pass a function that does."
            ) from error


def find_layers(
    model: nn.Module | LoadedModel, example: Inputs, *, output: Output | None = None
) -> LayerTable:
    """The layers of a segmentation network, stage by stage.

    Parameters
    ----------
    model : nn.Module or LoadedModel
        Any network that maps (B, C, *spatial) to logits (B, classes, *spatial); left as found.
        The names are those inside ``DataParallel``, ``DistributedDataParallel`` and
        ``torch.compile``'s wrapper.
    example : Tensor, tuple or dict
        (B, C, *spatial) on the model's device, of a size that the network takes; its first image
        is run. A tuple or dict holds the arguments of a network of several inputs.
    output : callable, optional
        Picks the logits from what the model returns; see :func:`~unetcam.models.io.pick_logits`
        for what is understood without.

    Returns
    -------
    LayerTable
        From the image to the logits; ``.decoder`` holds the names of the decoder's layers.

    Raises
    ------
    ModelError
        When the logits can't be traced back to the image, or the model is of a kind that can't be
        hooked.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(
    ...     nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Upsample(scale_factor=2),
    ...     nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 2, 1))
    >>> print(find_layers(model, torch.zeros(1, 1, 8, 8)))
    layer  stage       stride  channels  size  skips
    0      bottleneck       2         4  4x4
    2      decoder          1         8  8x8
    3      head             1         2  8x8
    """
    return LoadedModel.of(model, output=output).look(example).table
