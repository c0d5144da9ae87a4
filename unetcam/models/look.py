"""What one traced run of a network showed: its layers, its input, which output is the logits."""

from __future__ import annotations

from unetcam.errors import ModelError
from unetcam.models.io import Inputs, image_of
from unetcam.models.layers import LayerTable
from unetcam.models.topology import table_of
from unetcam.models.tracing import Trace


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
    """

    def __init__(self, run: Trace, inputs: Inputs) -> None:
        image = image_of(inputs)
        self.run = run
        self.size = tuple(image.shape[2:])
        self.channels = int(image.shape[1])
        self.device = image.device
        self._table: LayerTable | ModelError | None = None

    @property
    def table(self) -> LayerTable:
        """The layers.

        Raises
        ------
        ModelError
            Where the logits can't be traced back to the image.
        """
        if self._table is None:
            try:
                self._table = table_of(self.run)
            except ModelError as error:
                self._table = error
        if isinstance(self._table, ModelError):
            raise self._table
        return self._table

    @property
    def output(self) -> int | None:
        """Which of several heads the logits are; None where the run doesn't tell."""
        try:
            return self.table.output
        except ModelError:
            return None
