"""One image of a dataset: what it is made of, and its pixels as an 8-bit square of the side that is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from scalesearch.dataset.faults import reading_image
from scalesearch.errors import DataError
from scalesearch.proxy.images import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPart:
    """One part of a dataset, not yet decoded."""

    labels: Array
    open: Callable[[int], Image.Image]
    """The image at an index; a file's image is only decoded when its pixels are asked for."""
    content: Callable[[int], bytes]
    """What the image at an index is made of: the bytes of its file or, where it has none of its own, its pixels."""
    where: Callable[[int], str]
    """Name of the image at an index in messages."""


def stored_pixels(image: Image.Image) -> bytes:
    """Content of an image that has no file of its own."""
    return f"{image.mode} {image.size} ".encode() + image.tobytes()


def digest(part: OpenPart, index: int) -> bytes:
    """SHA-256 of an image's content; of one that cannot be read, of nothing: decoding it tells why."""
    try:
        with reading_image(part.where(index)):
            return hashlib.sha256(part.content(index)).digest()
    except DataError:
        return hashlib.sha256().digest()


def read(part: OpenPart, index: int, side: int) -> Array:
    """One image as (side, side) where it is grey, else (side, side, 3).

    Raises:
        DataError: it is damaged.
    """
    with reading_image(part.where(index)), part.open(index) as image:
        image.draft(None, (2 * side, 2 * side))  # JPEG only: decodes a large photo at a fraction of its size
        return np.asarray(_fitted(_eight_bit(image), side))


def _eight_bit(image: Image.Image) -> Image.Image:
    """The image as grey or RGB of 8 bits; transparency is dropped."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in ("1", "LA"):
        return image.convert("L")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers without a known range")
    return image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """The image's central square at `side`, bilinear with antialiasing."""
    if image.size == (side, side):
        return image
    width, height = image.size
    square = min(width, height)
    left, top = (width - square) / 2, (height - square) / 2
    box = (left, top, left + square, top + square)
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box)
