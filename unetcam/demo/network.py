"""The demo's network: a small U-Net whose modules carry the names most hand-written ones have."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DoubleConv(nn.Sequential):
    """Two 3 x 3 convolutions, each followed by batch normalisation and an in-place ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Down(nn.Sequential):
    """One encoder stage: halve the resolution, then convolve."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels))


class Up(nn.Module):
    """One decoder stage: bring the feature map to the skip's resolution, join them, convolve."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = DoubleConv(in_channels + skip_channels, out_channels)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Join (B, C, h, w) ``features`` with (B, S, H, W) ``skip`` into (B, out, H, W)."""
        size = skip.shape[-2:]
        upsampled = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
        joined: Tensor = self.conv(torch.cat([skip, upsampled], dim=1))
        return joined


class DemoUNet(nn.Module):
    """A U-Net of four downsamplings (stride 16) and, as it is by default, half a million weights.

    Parameters
    ----------
    in_channels
        Channels of the input image.
    classes
        Channels of the logits.
    width
        Channels at full resolution; deeper stages have 2, 4, 8 and 8 times as many.

    Examples
    --------
    >>> import torch
    >>> model = DemoUNet().eval()
    >>> model(torch.zeros(1, 1, 32, 48)).shape
    torch.Size([1, 4, 32, 48])
    >>> sum(parameter.numel() for parameter in model.parameters())
    472096
    """

    def __init__(self, in_channels: int = 1, classes: int = 4, width: int = 12) -> None:
        super().__init__()
        self.inc = DoubleConv(in_channels, width)
        self.down1 = Down(width, 2 * width)
        self.down2 = Down(2 * width, 4 * width)
        self.down3 = Down(4 * width, 8 * width)
        self.down4 = Down(8 * width, 8 * width)
        self.up1 = Up(8 * width, 8 * width, 4 * width)
        self.up2 = Up(4 * width, 4 * width, 2 * width)
        self.up3 = Up(2 * width, 2 * width, width)
        self.up4 = Up(width, width, width)
        self.outc = nn.Conv2d(width, classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised (B, in_channels, H, W) images to (B, classes, H, W) logits."""
        full = self.inc(images)
        half = self.down1(full)
        quarter = self.down2(half)
        eighth = self.down3(quarter)
        features = self.down4(eighth)
        features = self.up1(features, eighth)
        features = self.up2(features, quarter)
        features = self.up3(features, half)
        features = self.up4(features, full)
        logits: Tensor = self.outc(features)
        return logits
