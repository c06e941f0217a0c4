"""What varies between two looks at one stored crop: framing, which changes the rotation, and colours, which do not.

Everything happens on whole batches, on the device that the images lie on, drawn by the generator that is
passed in.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nlml_hpe.image_networks.config import AugmentationConfig
from nlml_hpe.image_networks.crop import SHARE, image_from_crop, square_around, turned
from nlml_hpe.rotation import mirrored

PLAIN = AugmentationConfig(**dict.fromkeys(AugmentationConfig.model_fields, 0.0))
"""No change at all: the crop as inference cuts it."""


def augment(
    images: Tensor,
    rotations: Tensor,
    boxes: Tensor,
    size: int,
    settings: AugmentationConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Crops as a network is shown them, and the rotations that these show.

    Parameters
    ----------
    images : (N, S, S, 3) uint8 tensor
        Stored crops, RGB.
    rotations : (N, 3, 3) tensor
        Head to camera.
    boxes : (N, 4) tensor
        The box of the 68 points in pixels of the stored crop.
    size : int
        Pixels on a side of the result.
    settings : AugmentationConfig
        What may vary.
    generator : torch.Generator
        On the images' device; the same state gives the same batch.

    Returns
    -------
    crops : (N, 3, size, size) float32 tensor
        RGB in 0..255.
    rotations : (N, 3, 3) float32 tensor
        Of the heads as the crops show them.

    Examples
    --------
    >>> batch = torch.zeros(2, 96, 96, 3, dtype=torch.uint8), torch.eye(3).expand(2, 3, 3)
    >>> boxes = torch.tensor([[24.0, 24.0, 72.0, 72.0]]).expand(2, 4)
    >>> crops, rotations = augment(*batch, boxes, 64, AugmentationConfig(), torch.Generator().manual_seed(0))
    >>> crops.shape
    torch.Size([2, 3, 64, 64])
    """
    crops, shown = reframed(images, rotations, boxes, size, settings, generator)
    return recolored(crops, settings, generator), shown


def reframed(
    images: Tensor,
    rotations: Tensor,
    boxes: Tensor,
    size: int,
    settings: AugmentationConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The framing alone: turn, shift and scale of the crop, and the mirror image.

    Parameters
    ----------
    images, rotations, boxes, size, settings, generator
        As of ``augment``.

    Returns
    -------
    crops : (N, 3, size, size) float32 tensor
        RGB in 0..255.
    rotations : (N, 3, 3) float32 tensor
        Of the heads as the crops show them.
    """
    drawn = _uniform((len(images), 5), images.device, generator).cpu().double().numpy()
    square = square_around(boxes.cpu().double().numpy(), SHARE)
    # A larger square makes the head smaller; the logarithm makes twice as large as likely as half.
    side = square[:, 2:] * (1 + settings.scale) ** drawn[:, :1]
    square[:, :2] += settings.shift * drawn[:, 1:3] * side
    square[:, 2:] = side
    turn = settings.turn_deg * drawn[:, 3]
    matrix = image_from_crop(square, size, turn)
    flip = drawn[:, 4] < 2 * settings.mirror - 1
    shown = turned(rotations.cpu().double().numpy(), turn)
    shown[flip] = mirrored(shown[flip])
    # The mirror image is read from right to left.
    matrix[flip, :, 2] += matrix[flip, :, 0] * size
    matrix[flip, :, 0] *= -1
    found = torch.from_numpy(matrix).to(images.device, torch.float32)
    crops = _sampled(images, found, size)
    return crops, torch.from_numpy(shown).to(images.device, torch.float32)


def recolored(crops: Tensor, settings: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Colour, sharpness and what hides a part; poses stay as they are.

    Parameters
    ----------
    crops : (N, 3, s, s) float32 tensor
        RGB in 0..255.
    settings, generator
        As of ``augment``.

    Returns
    -------
    (N, 3, s, s) float32 tensor
        RGB in 0..255.
    """
    crops = crops / 255
    if settings.surround:
        crops = _surrounded(crops, settings.surround, generator)
    if settings.soft:
        crops = _softened(crops, settings.soft, generator)
    if settings.filter:
        crops = _filtered(crops, settings.filter, generator)
    crops = _toned(crops, settings, generator)
    if settings.noise:
        crops = _noisy(crops, settings.noise, generator)
    if settings.blocks:
        crops = _blocky(crops, settings.blocks, generator)
    if settings.erase or settings.frame:
        crops = _erased(crops, settings, generator)
    return crops.clamp(0, 1) * 255


def _sampled(images: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Crops (N, 3, size, size) of images (N, S, S, 3) by maps (N, 2, 3) from crop to image pixels."""
    stored = images.shape[1]
    centre = torch.arange(size, device=images.device, dtype=torch.float32) + 0.5
    x, y = centre[None, None, :, None], centre[None, :, None, None]
    matrix = matrix[:, :, None, None, :].movedim(1, -2)
    place = matrix[..., 0] * x + matrix[..., 1] * y + matrix[..., 2]
    pictures = images.permute(0, 3, 1, 2).float()
    return nn.functional.grid_sample(pictures, place * (2 / stored) - 1, padding_mode="border", align_corners=False)


def _uniform(shape: tuple[int, ...], device: torch.device, generator: torch.Generator) -> Tensor:
    """Numbers drawn evenly from -1 to 1."""
    return torch.rand(shape, device=device, generator=generator) * 2 - 1


def _chosen(count: int, share: float, device: torch.device, generator: torch.Generator) -> Tensor:
    """Indices of about this share of a batch."""
    return torch.nonzero(torch.rand(count, device=device, generator=generator) < share)[:, 0]


def _surrounded(crops: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Some crops with the surroundings of another one, or with one colour in their place.

    Rendered necks, shoulders and hair go with a pose otherwise than people's do; what lies about the face must not tell
    it. Each side is hidden up to the face itself, or less, or not at all.
    """
    count, device, size = len(crops), crops.device, crops.shape[-1]
    place = ((torch.arange(size, device=device) + 0.5) / size)[None]
    reach = 0.18 * torch.rand((4, count, 1), device=device, generator=generator)
    reach = reach * (torch.rand((4, count, 1), device=device, generator=generator) < 0.75)
    across, down = ((place > reach[side]) & (place < 1 - reach[side + 1]) for side in (0, 2))
    seen = across[:, None, :] & down[:, :, None]
    color = torch.rand((count, 3, 1, 1), device=device, generator=generator)
    flat, hidden = (torch.rand((2, count, 1, 1, 1), device=device, generator=generator)).unbind()
    around = torch.where(flat < 0.5, color, crops.roll(1, 0))
    return torch.where(seen[:, None] | (hidden >= share), crops, around)


def _softened(crops: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Some crops seen at two thirds to 0.29 of their resolution.

    Each of three shares is a third of ``share``, and a crop may be drawn more than once: by 0.35 31% change.
    """
    size, crops = crops.shape[-1], crops.clone()
    for divisor in (1.5, 2.2, 3.5):
        rows = _chosen(len(crops), share / 3, crops.device, generator)
        if len(rows):
            small = nn.functional.interpolate(crops[rows], size=max(4, round(size / divisor)), mode="area")
            crops[rows] = nn.functional.interpolate(small, size=size, mode="bilinear", align_corners=False)
    return crops


def _filtered(crops: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Some crops through random 3 x 3 filters of all colours, mixed with what they were (Xu et al. 2021, RandConv).

    What a surface looks like changes, edges stay where they are: the shape alone tells the pose.
    """
    rows = _chosen(len(crops), share, crops.device, generator)
    if not len(rows):
        return crops
    chosen, count, size = crops[rows], len(rows), crops.shape[-1]
    kernels = torch.randn((3 * count, 3, 3, 3), device=crops.device, generator=generator)
    padded = nn.functional.pad(chosen, (1, 1, 1, 1), mode="replicate").reshape(1, 3 * count, size + 2, size + 2)
    made = nn.functional.conv2d(padded, kernels, groups=count).view(count, 3, size, size)
    # As bright and as rich in contrast as before, channel by channel.
    deviation, mean = torch.std_mean(made, dim=(2, 3), keepdim=True)
    wanted, middle = torch.std_mean(chosen, dim=(2, 3), keepdim=True)
    made = (made - mean) * (wanted / deviation.clamp_min(1e-6)) + middle
    weight = (_uniform((count, 1, 1, 1), crops.device, generator) + 1) / 2
    crops = crops.clone()
    crops[rows] = chosen + weight * (made - chosen)
    return crops


def _toned(crops: Tensor, settings: AugmentationConfig, generator: torch.Generator) -> Tensor:
    count, device = len(crops), crops.device

    def drawn(*shape: int) -> Tensor:
        return _uniform((count, *shape), device, generator)

    red, green, blue = crops.split(1, dim=1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    saturation = 1 + 3 * settings.color * drawn(1, 1, 1)
    black_and_white = (drawn(1, 1, 1) + 1) / 2 < settings.grey
    saturation = torch.where(black_and_white, torch.zeros_like(saturation), saturation.clamp_min(0))
    gain = 1 + settings.color * drawn(3, 1, 1)
    crops = (grey + saturation * (crops - grey)) * gain
    middle = grey.mean(dim=(2, 3), keepdim=True)
    contrast = torch.exp(settings.contrast * drawn(1, 1, 1))
    crops = middle + contrast * (crops - middle) + 0.25 * settings.contrast * drawn(1, 1, 1)
    return crops.clamp(1e-4, 1) ** torch.exp(settings.gamma * drawn(1, 1, 1))


def _noisy(crops: Tensor, bound: float, generator: torch.Generator) -> Tensor:
    """Sensor noise, of half of the crops in all channels alike, as film has it."""
    strength = (bound * _uniform((len(crops), 1, 1, 1), crops.device, generator)).clamp_min(0)
    noise = torch.randn(crops.shape, device=crops.device, generator=generator)
    film = _uniform((len(crops), 1, 1, 1), crops.device, generator) > 0
    return crops + strength * torch.where(film, noise[:, :1], noise)


def _blocky(crops: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Some crops with the 8 x 8 blocks of a strongly compressed JPEG; others have lost sharpness the same way.

    Blocks begin at the upper left corner; those that the right and the lower border cut go on as the border is.
    """
    size = crops.shape[-1]
    rows = _chosen(len(crops), share, crops.device, generator)
    if not len(rows):
        return crops
    basis = _cosines(crops.device)
    whole = nn.functional.pad(crops[rows], (0, -size % 8, 0, -size % 8), mode="replicate")
    blocks = whole.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)
    waves = basis @ blocks @ basis.T
    order = torch.arange(8, device=crops.device)
    coarse = 1 + (order[:, None] + order) * 0.7
    strength = (_uniform((len(rows), 1, 1, 1, 1, 1), crops.device, generator) + 1) * 0.06 + 0.01
    step = coarse * strength
    restored = basis.T @ (torch.round(waves / step) * step) @ basis
    crops = crops.clone()
    crops[rows] = restored.transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, :size, :size]
    return crops


def _cosines(device: torch.device) -> Tensor:
    """The orthonormal discrete cosine transform of 8 values, as an (8, 8) matrix."""
    place = torch.arange(8, device=device, dtype=torch.float32)
    basis = torch.cos(math.pi / 8 * (place + 0.5) * place[:, None]) / 2
    return torch.where(place[:, None] == 0, basis / math.sqrt(2), basis)


def _erased(crops: Tensor, settings: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Boxes of one colour over the face, and borders where the picture ends."""
    count, device, size = len(crops), crops.device, crops.shape[-1]
    place = torch.arange(size, device=device) / size
    for share, edge in ((settings.erase, False), (settings.erase / 2, False), (settings.frame, True)):
        middle = (_uniform((count, 2), device, generator) + 1) / 2
        half = 0.05 + 0.16 * (_uniform((count, 2), device, generator) + 1) / 2
        color = (_uniform((count, 3), device, generator) + 1) / 2
        if edge:
            # A band along one of the four sides, black more often than not.
            middle, half = middle.round(), half * 1.3
            along = _uniform((count,), device, generator) > 0
            half = torch.where(torch.stack([along, ~along], 1), torch.full_like(half, 2.0), half)
            color = torch.where(color[:, :1] < 0.7, torch.zeros_like(color), color)
        inside = (place - middle[:, :, None]).abs() < half[:, :, None]
        hit = torch.rand(count, device=device, generator=generator) < share
        mask = (inside[:, 0, None, :] & inside[:, 1, :, None] & hit[:, None, None])[:, None]
        crops = torch.where(mask, color[:, :, None, None], crops)
    return crops
