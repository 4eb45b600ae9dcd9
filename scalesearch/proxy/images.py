"""The images of a study as arrays, and their way to the workers: prepared once, memory-mapped by each.

Needs numpy alone: a worker opens them without the libraries that read datasets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from scalesearch.dataset.faults import ARRAY_DAMAGE, first_line
from scalesearch.errors import DataError
from scalesearch.files import write_whole
from scalesearch.jsonfile import read_object

SUMMARY = "images.json"
CHUNK = 2**20
"""Of a file that is read at a time [B]."""

Array = np.ndarray[Any, Any]
Map = np.memmap[Any, Any]


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
    return Images(**arrays, fingerprint=_fingerprint(arrays, lambda name: [arrays[name].data]))


def _fingerprint(arrays: Mapping[str, Array], values: Callable[[str], Iterable[bytes | memoryview]]) -> str:
    """Of arrays whose values come in parts."""
    digest = hashlib.sha256()
    for name in ARRAYS:
        digest.update(f"{name} {arrays[name].shape}".encode())
        for part in values(name):
            digest.update(part)
    return digest.hexdigest()


def _fingerprint_on_disk(folder: Path, maps: Mapping[str, Map]) -> str:
    """Of arrays that are mapped, by reading: what a disk cannot give is an error then, and under a map a SIGBUS."""
    return _fingerprint(maps, lambda name: _values(folder / f"{name}.npy", maps[name].offset))


def _values(path: Path, start: int) -> Iterator[bytes]:
    with _naming(path), path.open("rb") as file:
        file.seek(start)
        while part := file.read(CHUNK):
            yield part


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """Has what numpy or the disk says of a file name it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    except ARRAY_DAMAGE as error:
        raise ValueError(f"{path.name}: {first_line(error)}") from error


def seal(folder: Path, key: str) -> None:
    """Write the summary of four arrays that lie in a folder as `.npy` files, for `open_images`.

    Args:
        folder: where they lie.
        key: of what they were made; kept in the summary.
    """
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
    shapes = {name: array.shape for name, array in arrays.items()}
    summary = {"fingerprint": _fingerprint_on_disk(folder, arrays), "key": key, "shapes": shapes}
    write_whole(folder / SUMMARY, json.dumps(summary, indent=1).encode())


def open_images(folder: Path, *, verify: bool = False) -> Images:
    """Memory-map, read-only, the arrays that `seal` vouches for.

    Args:
        folder: where they lie.
        verify: whether to read every byte and compare the fingerprint, also if no file was written since.

    Raises:
        DataError: a file is missing, cut short, on a disk that cannot read it, or not what the summary says.
    """
    try:
        verify = verify or _is_touched(folder)
        with _naming(folder / SUMMARY):
            summary = read_object(folder / SUMMARY)
        shapes, fingerprint = summary["shapes"], str(summary["fingerprint"])
        arrays = {name: _mapped(folder / f"{name}.npy", name, tuple(shapes[name])) for name in ARRAYS}
        if verify and _fingerprint_on_disk(folder, arrays) != fingerprint:
            raise ValueError("its bytes have changed")
    except ARRAY_DAMAGE as error:
        fault = f"{folder} does not hold the images of a study: {_reason(error)}"
        raise DataError(fault, mend="delete the folder and run again") from error
    return Images(**arrays, fingerprint=fingerprint)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{Path(error.filename).name}: {error.strerror}"
    return first_line(error)


def _is_touched(folder: Path) -> bool:
    """Whether an array was written to behind the summary, which is the last file of a set."""
    sealed = (folder / SUMMARY).stat().st_mtime_ns
    return any((folder / f"{name}.npy").stat().st_mtime_ns > sealed for name in ARRAYS)


def _mapped(path: Path, name: str, shape: tuple[int, ...]) -> Map:
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path.name} is not a file")
    with _naming(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    dtype = np.dtype(np.uint8 if name.endswith("images") else np.int64)
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{path.name} holds {array.dtype} of {array.shape}, not {dtype} of {shape}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{path.name} holds its values in another order")
    return array
