"""Networks, most of other people's libraries, with random weights, and the layers to be found."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import monai.networks.nets as monai
import segmentation_models_pytorch as smp
import torchvision.models.segmentation as torchvision
import transformers
from dynamic_network_architectures.architectures import unet as nnunet
from torch import nn

from tests import networks


@dataclass(frozen=True)
class Entry:
    """A network and what is to be found in it.

    Attributes
    ----------
    build : callable
        Makes the network.
    image : tuple of int
        (C, *spatial) of an image that it takes.
    decoder : Mapping of str to int
        The decoder's layers, deepest first, and their strides.
    """

    build: Callable[[], nn.Module]
    image: tuple[int, ...]
    decoder: Mapping[str, int]


ZOO: dict[str, Entry] = {}


def add(name: str, image: tuple[int, ...], layers: str, strides: str, build: Any) -> None:
    """Add a network: its layers' names and their strides, deepest first, as words."""
    pairs = zip(layers.split(), map(int, strides.split()), strict=True)
    ZOO[name] = Entry(build, image, dict(pairs))


def add_both(name: str, side: int, layers: str, strides: str, build: Callable[[int], Any]) -> None:
    """Add the two- and the three-dimensional network, of which `build` makes the one it is told."""
    for dims in (2, 3):
        image = (1, *[side] * dims)
        add(f"{name}, {dims}-D", image, layers, strides, functools.partial(build, dims))


# -- written by hand -------------------------------------------------------------------------

add("A plain U-Net", (1, 32, 32), "up1 up2 up3 up4", "8 4 2 1", networks.UNet)
add(
    "A plain U-Net, bilinear", (1, 35, 45), "up1 up2 up3 up4", "8 4 2 1",
    lambda: networks.UNet(bilinear=True),
)  # fmt: skip
add("Upsampled by functions", (1, 16, 16), "k.aa k.r", "2 1", networks.Nameless)
add(
    "Without padding", (1, 108, 116), "up.0 up.1 up.2", "4 2 1",
    lambda: networks.ValidUNet(width=4),
)  # fmt: skip
add("In three dimensions", (1, 8, 8, 8), "dec2 dec1", "2 1", networks.UNet3d)

# -- segmentation-models-pytorch -------------------------------------------------------------

BLOCKS = [f"decoder.blocks.{i}" for i in range(5)]
DENSE = [f"decoder.blocks.x_0_{i}" for i in range(5)]
LATERALS = ["decoder.fpn_lateral_blocks.0", "decoder.fpn_lateral_blocks.1"]

#: What a person would choose: each stage's last map before the next upsampling, with its stride.
SMP = {
    "Unet": (BLOCKS, [16, 8, 4, 2, 1]),
    "UnetPlusPlus": (DENSE, [16, 8, 4, 2, 1]),
    "MAnet": (["decoder.center", *BLOCKS], [32, 16, 8, 4, 2, 1]),
    "Linknet": (BLOCKS, [16, 8, 4, 2, 1]),
    "FPN": (["decoder.p5", "decoder.p4", "decoder.p3", "decoder.merge"], [32, 16, 8, 4]),
    "PAN": (["decoder.gau3", "decoder.gau2", "decoder.gau1"], [16, 8, 4]),
    "DeepLabV3": (["decoder"], [8]),
    "DeepLabV3Plus": (["decoder.aspp", "decoder.block2"], [16, 4]),
    "UPerNet": (["decoder.psp", *LATERALS, "decoder.fusion_block"], [32, 16, 8, 4]),
    "Segformer": (["decoder.mlp_stage.0", "decoder.fuse_stage"], [32, 4]),
    "PSPNet": (["decoder"], [8]),
}

for architecture, (layers, strides) in SMP.items():
    side = 128 if architecture == "PAN" else 64
    add(
        f"smp {architecture}", (3, side, side), " ".join(layers), " ".join(map(str, strides)),
        functools.partial(getattr(smp, architecture), "resnet18", encoder_weights=None, classes=3),
    )  # fmt: skip

# -- MONAI -----------------------------------------------------------------------------------

FEATURES = (2, 2, 4, 4, 8, 2)

add_both(
    "MONAI UNet", 16, "model.1.submodule.1.submodule.2 model.1.submodule.2", "4 2",
    lambda dims: monai.UNet(dims, 1, 3, (4, 8, 16, 16), (2, 2, 2)),
)  # fmt: skip
add_both(
    "MONAI UNet, residual", 16, "model.1.submodule.2 model.2.0", "2 1",
    lambda dims: monai.UNet(dims, 1, 3, (4, 8, 16), (2, 2), num_res_units=2),
)  # fmt: skip
add_both(
    "MONAI BasicUNet", 32, "upcat_4 upcat_3 upcat_2 upcat_1", "8 4 2 1",
    lambda dims: monai.BasicUNet(dims, 1, 3, FEATURES),
)  # fmt: skip
add_both(
    "MONAI BasicUNet, interpolated", 32, "upcat_4 upcat_3 upcat_2 upcat_1", "8 4 2 1",
    lambda dims: monai.BasicUNet(dims, 1, 3, FEATURES, upsample="nontrainable"),
)  # fmt: skip
add_both(
    "MONAI BasicUNetPlusPlus", 32, "upcat_3_1 upcat_2_2 upcat_1_3 upcat_0_4", "8 4 2 1",
    lambda dims: monai.BasicUNetPlusPlus(dims, 1, 3, FEATURES),
)  # fmt: skip
add_both(
    "MONAI BasicUNetPlusPlus, deep", 32, "upcat_3_1 upcat_2_2 upcat_1_3 upcat_0_4", "8 4 2 1",
    lambda dims: monai.BasicUNetPlusPlus(dims, 1, 3, FEATURES, deep_supervision=True),
)  # fmt: skip
add_both(
    "MONAI AttentionUnet", 16, "model.1.submodule.1.merge model.1.merge", "2 1",
    lambda dims: monai.AttentionUnet(dims, 1, 3, (4, 8, 16), (2, 2)),
)  # fmt: skip
for deep in (False, True):
    add_both(
        f"MONAI DynUNet{', deep' * deep}", 16, "upsamples.0 upsamples.1 upsamples.2", "4 2 1",
        lambda dims, deep=deep: monai.DynUNet(
            dims, 1, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, [4, 8, 8, 16],
            deep_supervision=deep, deep_supr_num=2 if deep else 1, res_block=deep,
        ),
    )  # fmt: skip
add_both(
    "MONAI SegResNet", 16, "up_layers.0 up_layers.1 up_layers.2", "4 2 1",
    lambda dims: monai.SegResNet(dims, 8, 1, 3),
)  # fmt: skip
add_both(
    "MONAI SegResNetDS", 16, "up_layers.0.blocks up_layers.1.blocks", "2 1",
    lambda dims: monai.SegResNetDS(dims, 8, 1, 3, blocks_down=(1, 1, 1), dsdepth=2),
)  # fmt: skip
add_both(
    "MONAI MedNeXt, deep", 32, "dec_stages.0 dec_stages.1 dec_stages.2 dec_stages.3", "8 4 2 1",
    lambda dims: monai.MedNeXt(
        dims, 4, 1, 3, blocks_down=(1,) * 4, blocks_bottleneck=1, blocks_up=(1,) * 4,
        deep_supervision=True,
    ),
)  # fmt: skip
add(
    "MONAI FlexibleUNet", (3, 64, 64), " ".join(BLOCKS), "16 8 4 2 1",
    lambda: monai.FlexibleUNet(3, 3, "resnet18"),
)  # fmt: skip
add(
    "MONAI VNet, 2-D", (1, 32, 32), "up_tr256 up_tr128 up_tr64 up_tr32", "8 4 2 1",
    lambda: monai.VNet(2, 1, 3),
)  # fmt: skip
add(
    "MONAI VNet, 3-D", (1, 16, 16, 16), "up_tr256 up_tr128 up_tr64 up_tr32", "8 4 2 1",
    lambda: monai.VNet(3, 1, 3),
)  # fmt: skip
add_both(
    "MONAI UNETR", 32, "decoder5 decoder4 decoder3 decoder2", "8 4 2 1",
    lambda dims: monai.UNETR(1, 3, (32,) * dims, 4, 24, 48, 3, spatial_dims=dims),
)  # fmt: skip
add_both(
    "MONAI SwinUNETR", 64, "encoder10 decoder5 decoder4 decoder3 decoder2 decoder1",
    "32 16 8 4 2 1",
    lambda dims: monai.SwinUNETR(
        1, 3, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4), feature_size=12, spatial_dims=dims
    ),
)  # fmt: skip

# -- nnU-Net v2 ------------------------------------------------------------------------------


def nnunet_network(kind: type[nn.Module], deep: bool, dims: int) -> nn.Module:
    """As nnU-Net's plans make it: instance norm, leaky ReLU in place, one stride per stage."""
    blocks = "n_conv" if kind is nnunet.PlainConvUNet else "n_blocks"
    return kind(
        1, 4, [4, 8, 16, 16], (nn.Conv2d, nn.Conv3d)[dims - 2], 3, [1, 2, 2, 2],
        num_classes=3, n_conv_per_stage_decoder=1, conv_bias=True,
        norm_op=(nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 2], norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=deep,
        **{f"{blocks}_per_stage": 2},
    )  # fmt: skip


for kind in (nnunet.PlainConvUNet, nnunet.ResidualEncoderUNet):
    for deep in (False, True):
        add_both(
            f"nnU-Net {kind.__name__}{', deep' * deep}", 16,
            "decoder.stages.0 decoder.stages.1 decoder.stages.2", "4 2 1",
            functools.partial(nnunet_network, kind, deep),
        )  # fmt: skip

add(
    "nnU-Net PlainConvUNet, slices apart", (1, 8, 32, 32),
    "decoder.stages.0 decoder.stages.1 decoder.stages.2", "4 2 1",
    lambda: nnunet.PlainConvUNet(
        1, 4, [4, 8, 16, 16], nn.Conv3d, [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
        [[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 2, 2]], 2, 3, 1, norm_op=nn.InstanceNorm3d,
        nonlin=nn.LeakyReLU,
    ),
)  # fmt: skip

# -- torchvision -----------------------------------------------------------------------------

RANDOM = {"weights": None, "weights_backbone": None, "num_classes": 3}

add(
    "torchvision fcn_resnet50", (3, 64, 64), "classifier.2", "8",
    lambda: torchvision.fcn_resnet50(aux_loss=True, **RANDOM),
)  # fmt: skip
add(
    "torchvision deeplabv3_resnet50", (3, 64, 64), "classifier.3", "8",
    lambda: torchvision.deeplabv3_resnet50(aux_loss=True, **RANDOM),
)  # fmt: skip
add(
    "torchvision deeplabv3_mobilenet_v3_large", (3, 64, 64), "classifier.3", "16",
    lambda: torchvision.deeplabv3_mobilenet_v3_large(aux_loss=True, **RANDOM),
)  # fmt: skip
add(
    "torchvision lraspp_mobilenet_v3_large", (3, 64, 64), "classifier.cbr", "16",
    lambda: torchvision.lraspp_mobilenet_v3_large(**RANDOM),
)  # fmt: skip

# -- transformers ----------------------------------------------------------------------------

STAGES = ["stage1", "stage2", "stage3", "stage4"]
PYRAMID = (
    "decode_head.bottleneck decode_head.fpn_convs.2 decode_head.fpn_convs.1 "
    "decode_head.fpn_bottleneck"
)


def segformer() -> nn.Module:
    config = transformers.SegformerConfig(
        num_labels=3, depths=[1] * 4, hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=16,
        num_attention_heads=[1, 2, 2, 4],
    )  # fmt: skip
    return transformers.SegformerForSemanticSegmentation(config)


def upernet(backbone: Any) -> nn.Module:
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=16, num_labels=3, use_auxiliary_head=False
    )
    return transformers.UperNetForSemanticSegmentation(config)


add(
    "transformers Segformer", (3, 64, 64),
    "decode_head.linear_projections.3 decode_head.activation", "32 4", segformer,
)  # fmt: skip
add(
    "transformers UperNet, ConvNeXt", (3, 64, 64), PYRAMID, "32 16 8 4",
    lambda: upernet(
        transformers.ConvNextConfig(
            depths=[1] * 4, hidden_sizes=[8, 16, 24, 32], out_features=STAGES
        )
    ),
)  # fmt: skip
add(
    "transformers UperNet, Swin", (3, 64, 64), PYRAMID, "32 16 8 4",
    lambda: upernet(
        transformers.SwinConfig(
            embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 4], window_size=4, out_features=STAGES
        )
    ),
)  # fmt: skip
add(
    "transformers DPT", (3, 64, 64),
    "neck.convs.3 neck.fusion_stage.layers.0 neck.fusion_stage.layers.1 "
    "neck.fusion_stage.layers.2 head.head.2",
    "32 16 8 4 2",
    lambda: transformers.DPTForSemanticSegmentation(
        transformers.DPTConfig(
            num_labels=3, hidden_size=24, num_hidden_layers=4, num_attention_heads=3,
            intermediate_size=48, image_size=64, patch_size=16, is_hybrid=False,
            backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8] * 4, fusion_hidden_size=16,
        )
    ),
)  # fmt: skip
