"""What one traced run of a network showed: its layers, its input, which output is the logits."""

from __future__ import annotations

from functools import cached_property

from unetcam.errors import ModelError
from unetcam.models.activations import OutputKind, kind_of, sentence_of
from unetcam.models.decoder_path import is_learned
from unetcam.models.io import Inputs, image_of
from unetcam.models.layers import LayerTable
from unetcam.models.outputs import OutputMap
from unetcam.models.topology import table_of
from unetcam.models.tracing import Call, Trace


class Look:
    """What one traced run of a network showed.

    Parameters
    ----------
    run : Trace
    inputs : Inputs
        What was run.

    Attributes
    ----------
    run : Trace
    size : tuple of int
        The image's spatial size.
    channels : int
        The image's.
    device : torch.device
        The image's.
    output : OutputMap
        Which of what the network returned the logits are, or are made into.
    kind : str
        Whether it is logits, or what a softmax or sigmoid made of them.
    """

    def __init__(self, run: Trace, inputs: Inputs) -> None:
        image = image_of(inputs)
        self.run = run
        self.size = tuple(image.shape[2:])
        self.channels = int(image.shape[1])
        self.device = image.device
        self._table: LayerTable | ModelError
        try:
            self._table = table_of(run)
        except ModelError as error:
            self._table = error
        self.output = self._chosen_output()
        self.kind: OutputKind = kind_of(self.output, run.nodes, is_learned)

    @property
    def table(self) -> LayerTable:
        """The layers.

        Raises
        ------
        ModelError
            Where the logits can't be traced back to the image.
        """
        if isinstance(self._table, ModelError):
            raise self._table
        return self._table

    @cached_property
    def calls(self) -> dict[str, list[Call]]:
        """The runs of each module by its name, in the order in which they began."""
        calls: dict[str, list[Call]] = {}
        for call in sorted(self.run.calls, key=lambda call: call.start):
            calls.setdefault(call.name, []).append(call)
        return calls

    @property
    def kind_sentence(self) -> str | None:
        """What a person is told where the output is no logits; None of logits."""
        return sentence_of(self.kind, self.output.channels)

    @property
    def rivals(self) -> tuple[OutputMap, ...]:
        """Outputs of the same size as the chosen one, but of other channels, that may be meant."""
        if isinstance(self._table, ModelError):
            return ()
        return tuple(
            self.run.outputs[index]
            for index in self._table.rivals
            if self.run.outputs[index].channels != self.output.channels
        )

    def _chosen_output(self) -> OutputMap:
        if isinstance(self._table, LayerTable):
            return self.run.outputs[self._table.output]
        return max(self.run.outputs, key=lambda output: output.pixels)
