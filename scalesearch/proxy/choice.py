"""Which images of a dataset a study takes: by their labels alone, the same on any machine; and the key of a choice.

A key is the choice and the content of its images: files that are only touched or moved keep it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from scalesearch.errors import DataError
from scalesearch.proxy.images import Array, open_images
from scalesearch.proxy.pixels import OpenPart, digest

SEED = 20190528
"""Of the split and the choice of images; part of what a study means, therefore never changed."""
LARGEST_VALIDATION = 5
"""Validation split off the training part takes at most one image in this many."""
RULES = 1
"""Of turning a file into pixels; another number for other pixels, so that no earlier key is met again."""
CHUNK = 128
"""Images that a thread takes at a time, and that are written down as decoded together."""
Step = Literal["awaited", "read", "decoded"]
"""What is told of images: another process prepares them, they were read for their key, they are decoded."""
Told = Callable[[Step, int, int], None]
"""Hears of a step how many images are done, and of how many."""
T = TypeVar("T")


def split(labels: Array, validation: int) -> tuple[Array, Array]:
    """Indices kept for training and held out for validation, stratified.

    Raises:
        DataError: a class has too few images for both.
    """
    held = stratified(labels, min(validation, len(labels) // LARGEST_VALIDATION))
    kept = np.setdiff1d(np.arange(len(labels)), held)
    lost = np.setdiff1d(labels, labels[kept])
    if len(lost):
        fault = f"class {lost[0]} has one training image, which validation needs"
        raise DataError(fault, mend="add images of that class, or a val/ part")
    return kept, held


def stratified(labels: Array, count: int) -> Array:
    """Sorted indices of about `count` images: each class in its proportion within 1, and with at least one image.

    The choice depends on nothing but its arguments, on any machine.
    """
    sizes = np.bincount(labels)
    shuffled = np.random.RandomState(SEED).permutation(len(labels))  # a stream that numpy promises never to change
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(by_class[rank < np.repeat(_shares(sizes, min(count, len(labels))), sizes)])


def _shares(sizes: Array, total: int) -> Array:
    """Images of each class by largest remainder; ties to the earlier class."""
    counts, remainders = np.divmod(sizes * total, sizes.sum())
    rare = (counts == 0) & (sizes > 0)
    counts[rare], remainders[rare] = 1, 0
    spare = max(0, total - counts.sum())
    counts[np.argsort(-remainders, kind="stable")[:spare]] += 1
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The images of one part that are chosen."""

    name: Literal["train", "validation"]
    """Whose place they take."""
    part: OpenPart
    indices: Array

    @property
    def labels(self) -> Array:
        """Of the chosen images."""
        return np.ascontiguousarray(self.part.labels[self.indices])

    @property
    def file(self) -> str:
        """Name of the file of their pixels."""
        return f"{self.name}_images.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """All images of a study that are to be decoded, and to which side."""

    wanted: tuple[Wanted, ...]
    side: int
    """[px]"""
    beside: Path | None = None
    """Folder of prepared images whose training arrays go along and whose channels the images get."""

    @property
    def count(self) -> int:
        """Images of all parts together."""
        return sum(len(one.indices) for one in self.wanted)

    @property
    def image_bytes(self) -> int:
        """Of one decoded image in colour."""
        return 3 * self.side**2

    @property
    def chunks(self) -> list[Chunk]:
        """All images in pieces."""
        starts = ((one, start) for one in self.wanted for start in range(0, len(one.indices), CHUNK))
        return [Chunk(wanted=one, start=start, indices=one.indices[start : start + CHUNK]) for one, start in starts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some images, one after the other, of those that are wanted of a part."""

    wanted: Wanted
    start: int
    indices: Array

    @property
    def lines(self) -> tuple[str, str]:
        """How it is written down as finished: with colour in it, or all grey."""
        return f"{self.wanted.name} {self.start} colour", f"{self.wanted.name} {self.start} grey"


def key_of(choice: Choice, told: Told) -> str:
    """SHA-256 over the choice of images, their labels and order, their side, and the content of each."""
    found = hashlib.sha256(f"{RULES} {choice.side}".encode())
    if choice.beside is not None:
        found.update(open_images(choice.beside).fingerprint.encode())
    for one in choice.wanted:
        found.update(f"{one.name} {len(one.indices)}".encode())
        found.update(one.labels.data)

    def digests(chunk: Chunk) -> bytes:
        return b"".join(digest(chunk.wanted.part, index) for index in chunk.indices.tolist())

    for _, of_chunk in pooled(digests, choice.chunks, "read", told):
        found.update(of_chunk)
    return found.hexdigest()


def pooled(work: Callable[[Chunk], T], chunks: Sequence[Chunk], step: Step, told: Told) -> Iterator[tuple[Chunk, T]]:
    """Chunks with what a thread made of each, in order."""
    done, total = 0, sum(len(chunk.indices) for chunk in chunks)
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        for chunk, made in zip(chunks, pool.map(work, chunks), strict=True):
            yield chunk, made
            done += len(chunk.indices)
            told(step, done, total)
    finally:
        pool.shutdown(cancel_futures=True)
