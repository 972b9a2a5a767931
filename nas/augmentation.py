"""Random changes to a batch of images that leave their labels true: flips and shifted crops."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Augmentation = Literal["none", "flip", "crop", "flip_crop"]


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Images (batch, channels, height, width) changed at random, each by itself; "none" is any tensor.

    flip: mirrored left to right with probability 1/2. crop: padded by zeros of an eighth of the side
    (4 pixels at 32 and 2 at 16, as NAS-Bench-201) and cut to size anywhere. The generator is a CPU's.
    """
    if augmentation in ("flip", "flip_crop"):
        images = flip(images, torch.rand(len(images), generator=generator) < 0.5)
    if augmentation in ("crop", "flip_crop"):
        pad = tuple(max(1, side // 8) for side in images.shape[2:])
        top, left = (torch.randint(2 * p + 1, (len(images),), generator=generator) for p in pad)
        images = crop(images, top - pad[0], left - pad[1])
    return images


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Images (batch, channels, height, width), mirrored left to right where chosen (batch,) is true."""
    return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(3), images)


def crop(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """What windows moved by (batch,) pixels down and right see of images (batch, channels, h, w).

    Zeros lie around the image.
    """
    num, channels, height, width = images.shape
    down, right = down.to(images.device), right.to(images.device)
    rim = int(max(down.abs().max(), right.abs().max())) if num else 0
    padded = functional.pad(images, (rim, rim, rim, rim))
    rows = (down + rim)[:, None] + torch.arange(height, device=images.device)  # (batch, h)
    columns = (right + rim)[:, None] + torch.arange(width, device=images.device)  # (batch, w)
    each = torch.arange(num, device=images.device)[:, None, None, None]
    plane = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[each, plane, rows[:, None, :, None], columns[:, None, None, :]]


def cutout(images: Tensor, side: int, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Images (batch, channels, height, width), in each a square of `side` pixels around a random pixel
    replaced by `fill`, which broadcasts to an image; beyond the image's rim it is cut off.

    Reference: DeVries, Taylor, Improved Regularization of Convolutional Neural Networks with Cutout,
    arXiv 1708.04552, 2017. The generator is a CPU's.
    """
    hidden = [_strip(len(images), size, side, generator).to(images.device) for size in images.shape[2:]]
    square = hidden[0][:, None, :, None] & hidden[1][:, None, None, :]
    return torch.where(square, fill.to(images.dtype), images)


def _strip(num: int, size: int, side: int, generator: torch.Generator) -> Tensor:
    """Whether each of `size` places is in a strip of `side` around a random one: (num, size)."""
    start = torch.randint(size, (num, 1), generator=generator) - side // 2
    place = torch.arange(size)
    return (place >= start) & (place < start + side)
