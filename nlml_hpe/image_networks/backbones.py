"""Backbones by name: from normalised crops (N, 3, S, S) to maps (N, C, h, w); all begin with random weights.

ResNet-50 has the names of its published weights (``conv1``, ``layer1`` ...), by which HopeNet's are read.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_LEAST_CHANNELS = 16
"""What a 1 x 1 convolution reads at least, lest torch 2.13 write beyond its gradient's memory; see below."""


def to_quickest_layout(network: nn.Module) -> None:
    """Lay a network's weights out in place as its training is quickest: channels last, where torch can.

    ``network`` takes images and has not been trained yet. On a processor a training step takes 15% less time so. But
    torch 2.13 writes beyond the memory of the gradient of a strided 1 x 1 convolution of fewer than 16 channels
    (https://github.com/uxlfoundation/oneDNN/issues/6035; in bfloat16 by some batches and numbers of threads alone),
    which ends the process, so that a network that has 1 x 1 convolutions of so few keeps its layout, and is to be shown
    images that do not lie channels last either.

    Examples
    --------
    >>> for width in (8, 16):
    ...     backbone = backbone_of("residual", width)
    ...     to_quickest_layout(backbone)
    ...     backbone[0].weight.is_contiguous(memory_format=torch.channels_last)
    False
    True
    """
    kernels = [weight for weight in network.parameters() if weight.ndim == 4 and weight.shape[2:] == (1, 1)]
    if all(weight.shape[1] >= _LEAST_CHANNELS for weight in kernels):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def backbone_of(name: str, width: int | None = None) -> nn.Module:
    """The backbone of this name; ``width`` is the channels it begins with, None its usual ones.

    Raises ``ValueError`` for a name that is not known.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; expected one of {sorted(BACKBONES)}")
    made, usual = BACKBONES[name]
    return made(usual if width is None else width)


class Block(nn.Module):
    """Two 3 x 3 convolutions and a way around them (He et al. 2016); ``stride`` 2 halves the map."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        around: list[nn.Module] = []
        if stride != 1 or inputs != outputs:
            around = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.around = nn.Sequential(*around)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, inputs, h, w) to (N, outputs, h / stride, w / stride)."""
        return nn.functional.relu(self.layers(maps) + self.around(maps))


def residual(width: int) -> nn.Sequential:
    """The smallest: 64 px to maps of 4 x 4 with six times ``width`` channels.

    No block keeps the first map's 32 x 32: it would cost a third of the time for a hundredth of the parameters.
    """
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Block(width, 2 * width, 2),
        Block(2 * width, 4 * width, 2),
        Block(4 * width, 4 * width, 1),
        Block(4 * width, 6 * width, 2),
    )


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions with a way around them, four times as wide at its end."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, inputs, h, w) to (N, 4 width, h / stride, w / stride)."""
        inner = nn.functional.relu(self.bn1(self.conv1(maps)))
        inner = nn.functional.relu(self.bn2(self.conv2(inner)))
        return nn.functional.relu(self.bn3(self.conv3(inner)) + self.downsample(maps))


class ResNet50(nn.Module):
    """He et al. 2016, without its classifier: maps of 32 times ``width`` channels at a thirty-second of the size."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = width
        for number, blocks in enumerate((3, 4, 6, 3)):
            inner = width * 2**number
            strides = [1 if number == 0 else 2] + [1] * (blocks - 1)
            layers = []
            for stride in strides:
                layers.append(Bottleneck(inputs, inner, stride))
                inputs = 4 * inner
            self.add_module(f"layer{number + 1}", nn.Sequential(*layers))
        self.channels = inputs

    def forward(self, crops: Tensor) -> Tensor:
        """Maps of normalised crops."""
        maps = self.maxpool(nn.functional.relu(self.bn1(self.conv1(crops))))
        for number in range(1, 5):
            maps = getattr(self, f"layer{number}")(maps)
        return maps


class Inverted(nn.Module):
    """An inverted residual block of MobileNetV2: widen, filter each channel alone, narrow (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int, widen: int) -> None:
        super().__init__()
        inner = inputs * widen
        layers = [] if widen == 1 else _conv_bn(inputs, inner, 1, 1)
        layers += _conv_bn(inner, inner, 3, stride, groups=inner)
        layers += [nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.layers = nn.Sequential(*layers)
        self.around = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, inputs, h, w) to (N, outputs, h / stride, w / stride)."""
        return maps + self.layers(maps) if self.around else self.layers(maps)


def mobilenet_v2(width: int) -> nn.Sequential:
    """MobileNetV2 without its classifier; ``width`` 32 is the published one, with 1,280 channels at its end."""
    layers: list[nn.Module] = _conv_bn(3, width, 3, 2)
    inputs = width
    # Widening, channels at width 32, blocks and first stride: table 2 of Sandler et al. 2018.
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for widen, channels, blocks, first in table:
        outputs = max(8, channels * width // 32)
        for number in range(blocks):
            layers.append(Inverted(inputs, outputs, first if number == 0 else 1, widen))
            inputs = outputs
    return nn.Sequential(*layers, *_conv_bn(inputs, 40 * width, 1, 1))


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU6()]


BACKBONES: dict[str, tuple[Callable[[int], nn.Module], int]] = {
    "residual": (residual, 32),
    "resnet50": (ResNet50, 64),
    "mobilenet_v2": (mobilenet_v2, 32),
}
"""Each with its usual width."""
