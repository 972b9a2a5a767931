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
