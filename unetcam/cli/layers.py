"""unetcam layers: what there is to explain in a network."""

from __future__ import annotations

from typing import Any

from unetcam.cli import options
from unetcam.cli.console import RichProgress, print_json

EPILOG = """
**Examples**

`unetcam layers smp:Unet --model-args encoder_name=resnet18 --model-args classes=4`

`unetcam layers net.py:build --size 512x512 --json`
"""


@options.takes(
    *("checkpoint", "model_args", "key", "allow_pickle", "partial", "channels", "size", "device")
)
def layers(model: options.Model, json: options.Json = False, **given: Any) -> None:
    """List a network's layers: name, stage, stride, channels, size and where skips enter.

    Below the table the network is drawn as a U: the encoder on the left, and on the right what is
    explained, deepest first.
    """
    with RichProgress(json) as progress:
        progress.step("loading")
        from unetcam.runs import Spec, open_network

        network = open_network(Spec.of(model=model, **given), must_be_trained=False)
    if json:
        print_json(
            {
                "model": model,
                "classes": network.classes,
                "channels": network.channels,
                "decoder": list(network.table.decoder),
                "layers": network.table.to_rows(),
            }
        )
    else:
        print(f"{network.table}\n\n{network.table.drawn()}")
