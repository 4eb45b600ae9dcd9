"""Chosen images decoded into the folder that `open_images` maps: chunk by chunk, on every core, never all in memory.

Everything unfinished lies in a folder inside. A chunk is written down when its bytes are on the disk, so that a decode
that was killed goes on from its finished chunks; one of other images is never continued. A folder of arrays with its
summary is complete: what is left to do then is to move it into place, which may be repeated.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import PIL

from scalesearch.dataset.faults import image_reason, unreadable
from scalesearch.errors import DataError
from scalesearch.files import make_folder, nearest, settle, whole_file, write_whole
from scalesearch.jsonfile import read_object
from scalesearch.proxy.choice import CHUNK, Choice, Chunk, Told, Wanted, pooled
from scalesearch.proxy.images import ARRAYS, SUMMARY, Array, Images, open_images, seal
from scalesearch.proxy.pixels import read

RESERVE = 200_000_000
"""Of a disk that images leave free, for all else that a run writes [bytes]."""
UNFINISHED = "unfinished"
GREY = "grey"
RECORD = "chunks"


def decode(choice: Choice, key: str, folder: Path, told: Told) -> Images:
    """Decode what is chosen into a folder, or go on with it, and map the result.

    Args:
        choice: what to decode.
        key: its `key_of`.
        folder: where to; prepared images that are there already are replaced.
        told: hears of every chunk.

    Raises:
        DataError: images are damaged (all of them are told of), colour would stand beside grey, or the disk has no
            room. What is decoded stays, and the same call goes on.
    """
    place = folder / UNFINISHED
    try:
        left = _complete(place, key)
        ready = left
        if ready is None:
            identity = f"{key} by Pillow {PIL.__version__} in chunks of {CHUNK}"
            is_grey = _decode_chunks(choice, place, identity, told)
            ready = _completed(choice, place, key, is_grey=is_grey)
        _move(ready, place, folder)
    except OSError as error:
        fault = f"{folder} cannot be written: {error.strerror or error}"
        raise DataError(fault, mend="mend that and run again, or name another place with --cache DIR") from error
    try:
        return open_images(folder, verify=left is not None)
    except DataError:
        if left is None:
            raise
        return decode(choice, key, folder, told)  # a loss of power had left zeros under their names


def _decode_chunks(choice: Choice, place: Path, identity: str, told: Told) -> bool:
    """Decode what no earlier process has; returns whether all images are grey."""
    recorded = _recorded(choice, place, identity)
    if not recorded:
        _clear(place)
    chunks = choice.chunks
    left = [chunk for chunk in chunks if not recorded.intersection(chunk.lines)]
    _refuse_full(place, sum(_missing(place / one.file, len(one.indices) * choice.image_bytes) for one in choice.wanted))
    if not recorded:
        _begin(choice, place, identity)
    damaged: list[tuple[str, str]] = []
    for chunk, (is_grey, faults) in pooled(lambda one: _decode_chunk(one, choice, place), left, "decoded", told):
        damaged += faults
        recorded.add(chunk.lines[is_grey])
    if damaged:
        raise unreadable(damaged, choice.count)
    return all(chunk.lines[True] in recorded for chunk in chunks)


def _recorded(choice: Choice, place: Path, identity: str) -> set[str]:
    """Lines of the record: which decode it is of, then its finished chunks; none where it is of another decode."""
    parts = [place / name for name in (RECORD, *(one.file for one in choice.wanted))]
    if not all(path.is_file() and not path.is_symlink() for path in parts):  # they are written in place
        return set()
    lines = (place / RECORD).read_text(errors="replace").splitlines()
    return set(lines) if lines[:1] == [identity] else set()


def _clear(place: Path) -> None:
    """Remove a decode of other images, and prepared images that cannot be used."""
    for name in (SUMMARY, *(f"{array}.npy" for array in ARRAYS)):
        (place.parent / name).unlink(missing_ok=True)
    if place.exists():
        shutil.rmtree(place)


def _begin(choice: Choice, place: Path, identity: str) -> None:
    """Files of the final shape, without pixels, and a record of no chunk."""
    make_folder(place)
    for one in choice.wanted:
        with whole_file(place / one.file) as file:
            _write_header(file, (len(one.indices), 3, choice.side, choice.side))
            file.truncate(file.tell() + len(one.indices) * choice.image_bytes)
    write_whole(place / RECORD, f"{identity}\n".encode())


def _decode_chunk(chunk: Chunk, choice: Choice, place: Path) -> tuple[bool, list[tuple[str, str]]]:
    """Whether all images of a chunk are grey, and name and reason of each that cannot be read."""
    part, path, is_grey = chunk.wanted.part, place / chunk.wanted.file, True
    faults: list[tuple[str, str]] = []
    with path.open("r+b") as file:
        file.seek((chunk.start - len(chunk.wanted.indices)) * choice.image_bytes, os.SEEK_END)
        for index in chunk.indices.tolist():
            try:
                image = read(part, index, choice.side)
            except DataError as error:  # what follows is written in the wrong place, of a chunk that does not count
                faults.append((part.where(index), image_reason(part.where(index), error.__cause__ or error)))
            else:
                is_grey &= image.ndim == 2
                file.write(_in_colour(image).tobytes())
        file.flush()
        os.fsync(file.fileno())
    if not faults:
        with (place / RECORD).open("ab", buffering=0) as record:
            record.write(f"{chunk.lines[is_grey]}\n".encode())
    return is_grey, faults


def _in_colour(image: Array) -> Array:
    return np.broadcast_to(image, (3, *image.shape)) if image.ndim == 2 else image.transpose(2, 0, 1)


def _completed(choice: Choice, place: Path, key: str, *, is_grey: bool) -> Path:
    """The folder of all four arrays, with their summary."""
    is_single = is_grey if choice.beside is None else open_images(choice.beside).train_images.shape[1] == 1
    if is_single and not is_grey:
        _refuse_colour(choice.wanted, place)
    ready = place / GREY if is_single else place
    make_folder(ready)
    for one in choice.wanted:
        if is_single:
            _write_grey(place / one.file, ready / one.file)
        with whole_file(ready / f"{one.name}_labels.npy") as file:
            _write_labels(file, one.labels)
    if choice.beside is not None:
        for name in ("train_images.npy", "train_labels.npy"):
            _share(choice.beside / name, ready / name)
    seal(ready, key)
    return ready


def _write_grey(source: Path, target: Path) -> None:
    pixels = np.load(source, mmap_mode="r", allow_pickle=False)
    count, _, *sides = pixels.shape
    _refuse_full(target.parent, pixels.nbytes // 3)
    with whole_file(target) as file:
        _write_header(file, (count, 1, *sides))
        for start in range(0, count, CHUNK):
            file.write(np.ascontiguousarray(pixels[start : start + CHUNK, :1]).data)


def _refuse_colour(wanted: Sequence[Wanted], place: Path) -> None:
    for one in wanted:
        pixels = np.load(place / one.file, mmap_mode="r", allow_pickle=False)
        coloured = np.flatnonzero([bool((image != image[0]).any()) for image in pixels])
        if len(coloured):
            first = one.part.where(int(one.indices[coloured[0]]))
            named = f"{len(coloured):,} of {len(pixels):,} test images, first {first}"
            raise DataError(f"the training images are grey, but not {named}", mend="store all of them alike")


def _share(source: Path, target: Path) -> None:
    """One file under two names, or a copy where the disk has no such thing."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with source.open("rb") as original, whole_file(target) as copy:
            shutil.copyfileobj(original, copy)


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _write_labels(file: IO[bytes], labels: Array) -> None:
    """As `np.save` does, which does not say of a disk that it is full."""
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(labels))
    file.write(labels.tobytes())


def _complete(place: Path, key: str) -> Path | None:
    """The folder of complete arrays that a process was killed over before it had moved all of them."""
    for ready in (place / GREY, place):
        try:
            if read_object(ready / SUMMARY)["key"] == key:
                return ready
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _move(ready: Path, place: Path, folder: Path) -> None:
    """Put complete arrays where they belong; the summary comes last, so that it vouches for the rest."""
    for name in ARRAYS:
        if (ready / f"{name}.npy").exists():
            os.replace(ready / f"{name}.npy", folder / f"{name}.npy")
    settle(folder)
    for path in place.iterdir():
        if path.is_file() and path != ready / SUMMARY:
            path.unlink()
    os.replace(ready / SUMMARY, folder / SUMMARY)
    settle(folder)
    shutil.rmtree(place)


def _missing(path: Path, size: int) -> int:
    """Bytes that the disk has still to find for a file; one that was laid out and not yet written takes none."""
    if not path.exists():
        return size
    found = path.stat()
    return max(0, size - (found.st_blocks * 512 if hasattr(found, "st_blocks") else found.st_size))


def _refuse_full(folder: Path, needed: int) -> None:
    place = nearest(folder)
    free = shutil.disk_usage(place).free
    if needed + RESERVE > free:
        needs = f"decoded images need {_size(needed)} beside {_size(RESERVE)} that stay free"
        fault = f"{needs}, but {place} has {_size(free)} free"
        fewer = ", take fewer with --images N," if free > RESERVE else ""
        raise DataError(fault, mend=f"make room{fewer} or name another disk with --cache DIR")


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
