"""The images of a study as arrays, and their way to the workers: prepared once, memory-mapped by each.

Needs numpy alone: a worker opens them without the libraries that read datasets.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from scalesearch.dataset.faults import ARRAY_DAMAGE
from scalesearch.errors import DataError
from scalesearch.files import write_whole
from scalesearch.jsonfile import read_object

SUMMARY = "images.json"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """The training and validation images of a study.

    Images are uint8 of shape (count, channels, side, side) with 1 or 3 channels, labels int64 of shape (count,).
    """

    train_images: Array
    train_labels: Array
    validation_images: Array
    validation_labels: Array
    fingerprint: str
    """SHA-256 over shapes and values of the four arrays."""


ARRAYS = tuple(entry.name for entry in fields(Images) if entry.name != "fingerprint")


def fingerprinted(**arrays: Array) -> Images:
    """The images of four arrays, with the fingerprint that belongs to them."""
    digest = hashlib.sha256()
    for name in ARRAYS:
        digest.update(f"{name} {arrays[name].shape}".encode())
        digest.update(arrays[name].data)
    return Images(**arrays, fingerprint=digest.hexdigest())


def seal(folder: Path, key: str) -> None:
    """Write the summary of four arrays that lie in a folder as `.npy` files, for `open_images`.

    Args:
        folder: where they lie.
        key: of what they were made; kept in the summary.
    """
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
    shapes = {name: array.shape for name, array in arrays.items()}
    summary = {"fingerprint": fingerprinted(**arrays).fingerprint, "key": key, "shapes": shapes}
    write_whole(folder / SUMMARY, json.dumps(summary, indent=1).encode())


def open_images(folder: Path, *, verify: bool = False) -> Images:
    """Memory-map, read-only, the arrays that `seal` vouches for.

    Args:
        folder: where they lie.
        verify: whether to read every byte and compare the fingerprint, also if no file was written since.

    Raises:
        DataError: a file is missing, cut short, or not what the summary says.
    """
    try:
        verify = verify or _is_touched(folder)
        summary = read_object(folder / SUMMARY)
        shapes, fingerprint = summary["shapes"], str(summary["fingerprint"])
        arrays = {name: _mapped(folder / f"{name}.npy", name, tuple(shapes[name])) for name in ARRAYS}
        if verify and fingerprinted(**arrays).fingerprint != fingerprint:
            raise ValueError("its bytes have changed")
    except ARRAY_DAMAGE as error:
        fault = f"{folder} does not hold the images of a study: {error}"
        raise DataError(fault, mend="delete the folder and run again") from error
    return Images(**arrays, fingerprint=fingerprint)


def _is_touched(folder: Path) -> bool:
    """Whether an array was written to behind the summary, which is the last file of a set."""
    sealed = (folder / SUMMARY).stat().st_mtime_ns
    return any((folder / f"{name}.npy").stat().st_mtime_ns > sealed for name in ARRAYS)


def _mapped(path: Path, name: str, shape: tuple[int, ...]) -> Array:
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path.name} is not a file")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    dtype = np.dtype(np.uint8 if name.endswith("images") else np.int64)
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{path.name} holds {array.dtype} of {array.shape}, not {dtype} of {shape}")
    return array
