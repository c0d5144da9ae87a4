"""unetcam layers: what there is to explain in a network."""

from __future__ import annotations

from unetcam.cli import options
from unetcam.cli.console import RichProgress, print_json

EPILOG = """
**Examples**

`unetcam layers smp:Unet --model-args encoder_name=resnet18 --model-args classes=4`

`unetcam layers net.py:build --size 512x512 --json`
"""


def layers(
    model: options.Model,
    size: options.Size = None,
    channels: options.Channels = None,
    checkpoint: options.Checkpoint = None,
    model_args: options.ModelArgs = None,
    key: options.Key = None,
    allow_pickle: options.AllowPickle = False,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """List a network's layers: name, stage, stride, channels, size and where skips enter.

    Below the table the network is drawn as a U: the encoder on the left, and on the right what is
    explained, deepest first.
    """
    size_read = options.read_size(size)
    with RichProgress(json) as progress:
        progress.step("loading")
        from unetcam.runs import ModelRequest, open_network

        network = open_network(
            ModelRequest(
                model,
                checkpoint=checkpoint,
                model_args=model_args or (),
                key=key,
                allow_pickle=allow_pickle,
                device=device,
                channels=channels,
                size=size_read,
            ),
            must_be_trained=False,
        )
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
