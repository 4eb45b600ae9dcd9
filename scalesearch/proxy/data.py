"""Images read from a dataset: the choice of which, and their decoding to one side.

The only file that imports torchvision. Knows nothing of devices, networks or trials. `load_test` alone reads the test
part; what a study chooses by comes from `load`, which never does.
"""

from __future__ import annotations

import os
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from scalesearch.dataset import Dataset
from scalesearch.dataset.archives import npz_parts
from scalesearch.dataset.embedded import embedded_file
from scalesearch.dataset.faults import image_reason, reading_image, reading_npz, unreadable
from scalesearch.dataset.folders import part_files
from scalesearch.dataset.torchvision_sets import TORCHVISION
from scalesearch.dataset.value import TORCHVISION_PREFIX, Part
from scalesearch.errors import DataError
from scalesearch.proxy.images import Array, Images, fingerprinted

SEED = 20190528
"""Of the split and the choice of images; part of what a study means, therefore never changed."""
LARGEST_VALIDATION = 5
"""Validation split off the training part takes at most one image in this many."""
CHUNK = 64
"""Images decoded by a thread before it asks for more."""


def load(dataset: Dataset, *, images: int | None, validation: int, side: int, download: bool = False) -> Images:
    """Choose and decode the images that a study trains and validates on.

    Args:
        dataset: what `describe` found.
        images: training images, spread over the classes like the data; None = all that are left.
        validation: validation images, from the data's own validation part; without one they are split off the
            training part, at most 20 % of it. Which ones does not depend on `images`.
        side: photos are resized and cropped to it, small images that are larger than it as well [px].
        download: whether torchvision may fetch the dataset.

    Raises:
        DataError: the dataset is missing, or images of it are damaged: all that were chosen are looked at.
    """
    train = _part(dataset, "train", download=download)
    held = _part(dataset, "validation", download=download) if dataset.has_validation else train
    if dataset.has_validation:
        kept = np.arange(len(train.labels))
        chosen = stratified(held.labels, validation)
    else:
        kept, chosen = split(train.labels, validation)
    used = kept if images is None else kept[stratified(train.labels[kept], images)]
    wanted = _stored_side(dataset, side)
    [train_images, validation_images], is_grey = _decoded([(train, used), (held, chosen)], wanted)
    channels = 1 if is_grey else 3
    return fingerprinted(
        train_images=np.ascontiguousarray(train_images[:, :channels]),
        train_labels=train.labels[used],
        validation_images=np.ascontiguousarray(validation_images[:, :channels]),
        validation_labels=held.labels[chosen],
    )


def load_test(dataset: Dataset, images: Images, *, side: int, download: bool = False) -> Images:
    """The training images of a study, and in place of its validation images the whole test part of its dataset.

    Test images get the side and the channels of the training images: colour beside colour even where all of them are
    grey, grey beside grey even where their files store grey as RGB. A test image with real colour beside grey training
    images is refused: turned grey it would no longer be the test image that others report accuracies on.

    Args:
        dataset: what `describe` found.
        images: what `load` chose; its training arrays are handed on as they are.
        side: what `load` was given [px].
        download: whether torchvision may fetch the test part.

    Raises:
        DataError: there is no test part, or it cannot be read, has labels out of range, is empty, or does not fit.
    """
    if not dataset.has_test:
        raise DataError(f"{dataset.source} has no test part", mend="add one (test/, test_images) or do without")
    _, channels, _, found = images.train_images.shape
    wanted = _stored_side(dataset, side)
    if found != wanted:
        fault = f"{dataset.source}: the training images are {found} px, the test images would be {wanted} px"
        raise DataError(fault, mend="ask for the side that they were loaded at")
    test = _part(dataset, "test", download=download)
    [pixels], is_grey = _decoded([(test, np.arange(len(test.labels)))], wanted)
    if channels == 1 and not is_grey:
        _refuse_colour(test, pixels)
    return fingerprinted(
        train_images=images.train_images,
        train_labels=images.train_labels,
        validation_images=np.ascontiguousarray(pixels[:, :channels]),
        validation_labels=test.labels,
    )


def _stored_side(dataset: Dataset, side: int) -> int:
    return side if dataset.is_photos else min(dataset.side, side)


def _refuse_colour(test: _Part, pixels: Array) -> None:
    coloured = np.flatnonzero([bool((image != image[0]).any()) for image in pixels])
    if len(coloured):
        named = f"{len(coloured):,} of {len(pixels):,} test images, first {test.where(int(coloured[0]))}"
        raise DataError(f"the training images are grey, but not {named}", mend="store all of them alike")


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
class _Part:
    """One part of a dataset, not yet decoded."""

    labels: Array
    open: Callable[[int], Image.Image]
    """The image at an index; a file's image is only decoded when its pixels are asked for."""
    where: Callable[[int], str]
    """Name of the image at an index in messages."""


def _part(dataset: Dataset, part: Part, *, download: bool) -> _Part:
    if dataset.kind == "torchvision":
        opened = _torchvision_part(dataset, part, download=download)
    elif dataset.kind == "folder":
        opened = _folder_part(dataset, part)
    elif dataset.kind == "npz":
        with reading_npz(dataset.source):
            opened = _npz_part(dataset.source, part, dataset.source)
    else:
        with embedded_file().open("rb") as file:
            opened = _npz_part(file, part, dataset.source)
    labels = opened.labels
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= dataset.num_classes:
        wrong = f"labels are not in 0..{dataset.num_classes - 1}" if len(labels) else "part has no images"
        raise DataError(f"{dataset.source}: {part} {wrong}", mend="the data changed since it was described: plan again")
    return opened


def _folder_part(dataset: Dataset, part: Part) -> _Part:
    by_class = part_files(Path(dataset.source), part, dataset.class_names)
    files = [file for of_class in by_class for file in of_class]
    return _Part(
        labels=np.repeat(np.arange(len(by_class), dtype=np.int64), [len(of_class) for of_class in by_class]),
        open=lambda index: Image.open(files[index]),
        where=files.__getitem__,
    )


def _npz_part(file: str | IO[bytes], part: Part, where: str) -> _Part:
    with np.load(file, allow_pickle=False) as arrays:
        parts = npz_parts(arrays.files, where)
        if part not in parts:
            raise DataError(f"{where} has no {part} part any more", mend="restore it or plan again")
        images_key, labels_key = parts[part]
        images, labels = arrays[images_key], arrays[labels_key]
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    elif images.ndim == 4 and images.shape[-1] != 3:
        images = images.transpose(0, 2, 3, 1)
    return _Part(
        labels=labels.reshape(-1).astype(np.int64),
        open=lambda index: Image.fromarray(images[index]),
        where=lambda index: f"{where}: {images_key}[{index}]",
    )


def _torchvision_part(dataset: Dataset, part: Part, *, download: bool) -> _Part:
    facts = TORCHVISION[dataset.source.removeprefix(TORCHVISION_PREFIX)]
    arguments = {"train": facts.train, "validation": facts.validation, "test": facts.test}[part] or {}
    asked = {**arguments, **({"download": True} if download and facts.downloads else {})}
    opened = _torchvision_set(dataset, part, asked)
    labels = getattr(opened, facts.labels)
    if facts.labels == "_samples":
        labels = [label for _, label in labels]
        if None in labels:  # FER2013: Kaggle's test.csv
            fault = f"{dataset.source}: its {part} images in {dataset.root} have no labels"
            raise DataError(fault, mend="put the files that have labels there (of FER2013: fer2013.csv)")
    values = np.asarray(labels, np.int64)
    return _Part(
        labels=values[:, 0] if values.ndim == 2 else values,  # QMNIST: the class and seven facts about the writer
        open=lambda index: opened[index][0],
        where=lambda index: f"{dataset.source} in {dataset.root}, {part} image {index}",
    )


def _torchvision_set(dataset: Dataset, part: Part, arguments: Mapping[str, Any]) -> Any:
    from torchvision import datasets

    name = dataset.source.removeprefix(TORCHVISION_PREFIX)
    damage = (OSError, RuntimeError, ValueError, TypeError, LookupError, EOFError, ImportError, zlib.error)
    archives = (pickle.UnpicklingError, tarfile.TarError, zipfile.BadZipFile)
    try:
        return getattr(datasets, name)(dataset.root, **arguments)
    except (*damage, *archives) as error:
        reason = str(error).split(". ")[0].split("\n")[0] or type(error).__name__
        fault = f"{dataset.source} cannot be read from {dataset.root}, {part} part: {reason}"
        raise DataError(fault, mend=_torchvision_mend(name, tried="download" in arguments)) from error


def _torchvision_mend(name: str, *, tried: bool) -> str:
    if not TORCHVISION[name].downloads:
        return "torchvision cannot download this set: put its files there by hand"
    return "check the network, or put its files there by hand" if tried else "add --download to fetch it"


def _decoded(parts: Sequence[tuple[_Part, Array]], side: int) -> tuple[list[Array], bool]:
    """The chosen images of each part as (count, 3, side, side), and whether all of all parts are grey.

    Raises:
        DataError: images are damaged; all of them are counted.
    """
    found = [_decoded_part(part, chosen, side) for part, chosen in parts]
    damaged = [fault for *_, faults in found for fault in faults]
    if damaged:
        raise unreadable(damaged, sum(len(chosen) for _, chosen in parts))
    return [pixels for pixels, *_ in found], all(is_grey for _, is_grey, _ in found)


def _decoded_part(part: _Part, chosen: Array, side: int) -> tuple[Array, bool, list[tuple[str, str]]]:
    """The same of one part, and name and reason of each image that cannot be read."""
    pixels = np.empty((len(chosen), 3, side, side), np.uint8)

    def fill(start: int) -> tuple[bool, list[tuple[str, str]]]:
        is_grey = True
        faults: list[tuple[str, str]] = []
        for at, index in enumerate(chosen[start : start + CHUNK].tolist(), start):
            try:
                image = _read(part, index, side)
            except DataError as error:
                faults.append((part.where(index), image_reason(part.where(index), error.__cause__ or error)))
                continue
            is_grey &= image.ndim == 2
            pixels[at] = image if image.ndim == 2 else image.transpose(2, 0, 1)
        return is_grey, faults

    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        chunks = list(pool.map(fill, range(0, len(chosen), CHUNK)))
    finally:
        pool.shutdown(cancel_futures=True)
    return pixels, all(is_grey for is_grey, _ in chunks), [fault for _, faults in chunks for fault in faults]


def _read(part: _Part, index: int, side: int) -> Array:
    """One image as (side, side) where it is grey, else (side, side, 3)."""
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
