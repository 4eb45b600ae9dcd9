"""How faults of images are told: what the libraries raise on damage, as one line that names the place."""

from __future__ import annotations

import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from scalesearch.errors import DataError

ARRAY_DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, OverflowError, MemoryError, RuntimeError),
    *(struct.error, SyntaxError, tokenize.TokenError),  # of headers, which are Python's literals
)
"""All that numpy raises over files that hold no arrays."""


@contextmanager
def reading_image(where: str) -> Generator[None]:
    """Turns everything that Pillow raises on a damaged image into one line that names it.

    Raises:
        DataError: the image inside cannot be read.
    """
    from PIL import Image

    damage = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError)
    try:
        yield
    except (*damage, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise unreadable([(where, image_reason(where, error))], 1) from error


def image_reason(where: str, error: BaseException) -> str:
    """Why the image of that name, a file or not, made Pillow raise."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        is_empty = os.path.isfile(where) and os.path.getsize(where) == 0
        return "the file is empty" if is_empty else "its format is unknown"
    return first_line(error)


def unreadable(images: Sequence[tuple[str, str]], total: int) -> DataError:
    """One line for all images that cannot be read, given as (name, reason), of `total` that were wanted."""
    if len(images) == 1:
        where, reason = images[0]
        return DataError(f"{where} is not a readable image: {reason}", mend="replace or remove it")
    named = few([f"{where} ({reason})" for where, reason in images])
    return DataError(f"{len(images):,} of {total:,} images are not readable: {named}", mend="replace or remove them")


@contextmanager
def reading_npz(where: str) -> Generator[None]:
    """Turns everything that zipfile and numpy raise on a damaged archive into one line that names it.

    Raises:
        DataError: the archive inside cannot be read.
    """
    try:
        yield
    except DataError:
        raise
    except (*ARRAY_DAMAGE, zlib.error, zipfile.BadZipFile) as error:
        fault = f"{where} is not a readable .npz archive: {first_line(error)}"
        raise DataError(fault, mend="write it again with numpy.savez_compressed") from error


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).splitlines()), type(error).__name__)


def few(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
