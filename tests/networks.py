"""Networks for the tests, each of another way of writing a U-Net."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


def double_conv(inputs: int, outputs: int, *, inplace: bool = True) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=inplace),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=inplace),
    )


class Down(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pool_conv = nn.Sequential(nn.MaxPool2d(2), double_conv(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool_conv(x)


class Up(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, bilinear: bool) -> None:
        super().__init__()
        if bilinear:
            self.up: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        else:
            self.up = nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2)
        self.conv = double_conv(inputs, outputs)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        deep = self.up(deep)
        down, right = (a - b for a, b in zip(skip.shape[2:], deep.shape[2:], strict=True))
        deep = F.pad(deep, [right // 2, right - right // 2, down // 2, down - down // 2])
        return self.conv(torch.cat([skip, deep], dim=1))


class UNet(nn.Module):
    """The shape that most hand-written U-Nets have: inc, down1..4, up1..4, outc."""

    def __init__(
        self, channels: int = 1, classes: int = 3, width: int = 4, *, bilinear: bool = False
    ) -> None:
        super().__init__()
        w, f = width, 2 if bilinear else 1
        self.inc = double_conv(channels, w)
        self.down1, self.down2 = Down(w, 2 * w), Down(2 * w, 4 * w)
        self.down3, self.down4 = Down(4 * w, 8 * w), Down(8 * w, 16 * w // f)
        self.up1 = Up(16 * w, 8 * w // f, bilinear=bilinear)
        self.up2 = Up(8 * w, 4 * w // f, bilinear=bilinear)
        self.up3 = Up(4 * w, 2 * w // f, bilinear=bilinear)
        self.up4 = Up(2 * w, w, bilinear=bilinear)
        self.outc = nn.Conv2d(w, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        x = self.up1(self.down4(x4), x4)
        x = self.up4(self.up3(self.up2(x, x3), x2), x1)
        return self.outc(x)


class GatedUNet(UNet):
    """The same with gates: for the pixels of the first skip, for the channels of the third."""

    def __init__(self, channels: int = 1, classes: int = 3, width: int = 4) -> None:
        super().__init__(channels, classes, width)
        self.pixels = nn.Conv2d(width, 1, 1)
        self.channels = nn.Conv2d(4 * width, 4 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        squeezed = self.channels(F.adaptive_avg_pool2d(x3, 1))
        deep = self.up1(self.down4(x4), x4)
        deep = self.up3(self.up2(deep, x3 * torch.sigmoid(squeezed)), x2)
        return self.outc(self.up4(deep, x1 * torch.sigmoid(self.pixels(x1))))


class Nameless(nn.Module):
    """A U-Net whose modules' names and order say nothing, upsampled by functions."""

    def __init__(self) -> None:
        super().__init__()
        self.z9 = nn.Conv2d(8, 3, 1)
        self.k = nn.ModuleDict(
            {
                "p": double_conv(1, 8),
                "aa": double_conv(24, 16),
                "r": double_conv(24, 8),
                "b": double_conv(8, 16),
                "w": double_conv(16, 16),
            }
        )
        self.h = nn.Conv2d(16, 8, 1)

    def forward(self, t: Tensor) -> Tensor:
        a = self.k["p"](t)
        b = self.k["b"](F.max_pool2d(a, 2))
        c = self.h(self.k["w"](F.avg_pool2d(b, 2)))
        d = self.k["aa"](torch.cat((F.interpolate(c, scale_factor=2), b), dim=1))
        return self.z9(self.k["r"](torch.cat((F.interpolate(d, size=a.shape[2:]), a), dim=1)))


class ValidUNet(nn.Module):
    """The first U-Net's kind: no padding, skips cropped, the logits smaller than the image."""

    def __init__(self, width: int = 2, depth: int = 3) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3),
                nn.ReLU(),
                nn.Conv2d(outputs, outputs, 3),
                nn.ReLU(),
            )

        widths = [width * 2**i for i in range(depth + 1)]
        self.down = nn.ModuleList(block(i, o) for i, o in zip([1, *widths], widths, strict=False))
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1])
        )
        self.up = nn.ModuleList(block(2 * w, w) for w in reversed(widths[:-1]))
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down[:-1]:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.down[-1](x)
        for grow, block in zip(self.grow, self.up, strict=True):
            x, skip = grow(x), skips.pop()
            y0, x0 = ((a - b) // 2 for a, b in zip(skip.shape[2:], x.shape[2:], strict=True))
            x = block(torch.cat([skip[:, :, y0:, x0:][:, :, : x.shape[2], : x.shape[3]], x], 1))
        return self.out(x)


class UNet3d(nn.Module):
    """Two stages in three dimensions."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.enc1 = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU())
        self.enc2 = nn.Sequential(nn.Conv3d(4, 8, 3, stride=2, padding=1), nn.ReLU())
        self.enc3 = nn.Sequential(nn.Conv3d(8, 8, 3, stride=2, padding=1), nn.ReLU())
        self.up2 = nn.ConvTranspose3d(8, 8, 2, stride=2)
        self.dec2 = nn.Sequential(nn.Conv3d(16, 8, 3, padding=1), nn.ReLU())
        self.up1 = nn.ConvTranspose3d(8, 4, 2, stride=2)
        self.dec1 = nn.Sequential(nn.Conv3d(8, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Conv3d(4, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc1(x)
        b = self.enc2(a)
        y = self.dec2(torch.cat([b, self.up2(self.enc3(b))], dim=1))
        return self.head(self.dec1(torch.cat([a, self.up1(y)], dim=1)))


class GatedUNet3d(UNet3d):
    """The same with a gate on each skip."""

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc1(x)
        b = self.enc2(a)
        b_gated = b * b.mean(dim=(2, 3, 4), keepdim=True).sigmoid()
        y = self.dec2(torch.cat([b_gated, self.up2(self.enc3(b))], dim=1))
        a_gated = a * a.mean(dim=1, keepdim=True).sigmoid()
        return self.head(self.dec1(torch.cat([a_gated, self.up1(y)], dim=1)))


def seeded(network: nn.Module, seed: int = 0, *, norms: bool = True) -> nn.Module:
    """The network in evaluation, with weights and batch statistics that are far from trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            scale = 1 / max(1.0, parameter[0].numel() ** 0.5) if parameter.ndim > 1 else 0.3
            offset = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(offset + scale * noise)
        for module in network.modules():
            if norms and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network.eval()
