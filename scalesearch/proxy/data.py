"""Images read from a dataset: the choice of which, and their decoding to one side.

The only file that imports torchvision. Knows nothing of devices, networks or trials, and never reads the test part.
"""

from __future__ import annotations

import os
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from scalesearch.dataset import Dataset
from scalesearch.dataset.archives import npz_parts
from scalesearch.dataset.embedded import embedded_file
from scalesearch.dataset.faults import reading_image, reading_npz
from scalesearch.dataset.folders import folder_parts, image_files
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
        DataError: the dataset is missing or an image of it is damaged.
    """
    train = _part(dataset, "train", download=download)
    held = _part(dataset, "validation", download=download) if dataset.has_validation else train
    if dataset.has_validation:
        kept = np.arange(len(train.labels))
        chosen = stratified(held.labels, validation)
    else:
        kept, chosen = split(train.labels, validation)
    used = kept if images is None else kept[stratified(train.labels[kept], images)]
    target = side if dataset.is_photos else min(dataset.side, side)
    train_images, is_train_grey = _decoded(train, used, target)
    validation_images, is_validation_grey = _decoded(held, chosen, target)
    channels = 1 if is_train_grey and is_validation_grey else 3
    return fingerprinted(
        train_images=np.ascontiguousarray(train_images[:, :channels]),
        train_labels=train.labels[used],
        validation_images=np.ascontiguousarray(validation_images[:, :channels]),
        validation_labels=held.labels[chosen],
    )


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
    if len(opened.labels) == 0 or opened.labels.min() < 0 or opened.labels.max() >= dataset.num_classes:
        fault = f"{dataset.source}: {part} labels are not in 0..{dataset.num_classes - 1}"
        raise DataError(fault, mend="the data changed since it was described: plan again")
    return opened


def _folder_part(dataset: Dataset, part: Part) -> _Part:
    parts = folder_parts(Path(dataset.source))
    if part not in parts:
        raise DataError(f"{dataset.source} has no {part} part any more", mend="restore it or plan again")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(dataset.class_names):
        found = image_files(parts[part] / name) if part == "train" or (parts[part] / name).is_dir() else []
        files += found
        labels += [label] * len(found)
    return _Part(
        labels=np.asarray(labels, np.int64), open=lambda index: Image.open(files[index]), where=files.__getitem__
    )


def _npz_part(file: str | IO[bytes], part: Part, where: str) -> _Part:
    with np.load(file, allow_pickle=False) as arrays:
        images_key, labels_key = npz_parts(arrays.files, where)[part]
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
    arguments = facts.train if part == "train" else facts.validation or {}
    opened = _torchvision_set(dataset, {**arguments, **({"download": True} if download and facts.downloads else {})})
    labels = getattr(opened, facts.labels)
    if facts.labels == "_samples":
        labels = [label for _, label in labels]
    values = np.asarray(labels, np.int64)
    return _Part(
        labels=values[:, 0] if values.ndim == 2 else values,  # QMNIST: the class and seven facts about the writer
        open=lambda index: opened[index][0],
        where=lambda index: f"{dataset.source} in {dataset.root}, {part} image {index}",
    )


def _torchvision_set(dataset: Dataset, arguments: Mapping[str, Any]) -> Any:
    from torchvision import datasets

    name = dataset.source.removeprefix(TORCHVISION_PREFIX)
    damage = (OSError, RuntimeError, ValueError, TypeError, LookupError, EOFError, ImportError, zlib.error)
    archives = (pickle.UnpicklingError, tarfile.TarError, zipfile.BadZipFile)
    try:
        return getattr(datasets, name)(dataset.root, **arguments)
    except (*damage, *archives) as error:
        reason = str(error).split(". ")[0].split("\n")[0] or type(error).__name__
        fault = f"{dataset.source} cannot be read from {dataset.root}: {reason}"
        raise DataError(fault, mend=_torchvision_mend(name, tried="download" in arguments)) from error


def _torchvision_mend(name: str, *, tried: bool) -> str:
    if not TORCHVISION[name].downloads:
        return "torchvision cannot download this set: put its files there by hand"
    return "check the network, or put its files there by hand" if tried else "add --download to fetch it"


def _decoded(part: _Part, chosen: Array, side: int) -> tuple[Array, bool]:
    """The chosen images (count, 3, side, side) and whether all of them are grey."""
    pixels = np.empty((len(chosen), 3, side, side), np.uint8)

    def fill(start: int) -> bool:
        is_grey = True
        for at in range(start, min(start + CHUNK, len(chosen))):
            image = _read(part, int(chosen[at]), side)
            is_grey &= image.ndim == 2
            pixels[at] = image if image.ndim == 2 else image.transpose(2, 0, 1)
        return is_grey

    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        are_grey = list(pool.map(fill, range(0, len(chosen), CHUNK)))
    finally:
        pool.shutdown(cancel_futures=True)
    return pixels, all(are_grey)


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
