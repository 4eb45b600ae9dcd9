"""Images of datasets: each part opened, and the choice of what a study trains, validates and is confirmed on.

The only file that imports torchvision. Knows nothing of devices, networks or trials. `choose_test` alone opens the test
part; what a study chooses by comes from `choose`, which never does.
"""

from __future__ import annotations

import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from scalesearch.dataset import Dataset
from scalesearch.dataset.archives import npz_parts
from scalesearch.dataset.embedded import embedded_file
from scalesearch.dataset.faults import reading_npz
from scalesearch.dataset.folders import part_files
from scalesearch.dataset.torchvision_sets import TORCHVISION
from scalesearch.dataset.value import TORCHVISION_PREFIX, Part
from scalesearch.errors import DataError
from scalesearch.proxy.choice import Choice, Wanted, split, stratified
from scalesearch.proxy.images import open_images
from scalesearch.proxy.pixels import OpenPart, stored_pixels

FILES = ("_image_files", "_images", "_samples", "samples", "imgs")
"""Attributes of torchvision's sets that may hold the file of each image, or (file, label) pairs.

Source: the constructors of torchvision 0.29. Sets without one of them are told apart by the pixels that they give.
"""


def choose(dataset: Dataset, *, images: int | None, validation: int, side: int, download: bool = False) -> Choice:
    """Choose the images that a study trains and validates on. They get one channel if all of them are grey.

    Args:
        dataset: what `describe` found.
        images: training images, spread over the classes like the data; None = all that are left.
        validation: validation images, from the data's own validation part; without one they are split off the
            training part, at most 20 % of it. Which ones does not depend on `images`.
        side: photos are resized and cropped to it, small images that are larger than it as well [px].
        download: whether torchvision may fetch the dataset.

    Raises:
        DataError: the dataset is missing.
    """
    train = _part(dataset, "train", download=download)
    held = _part(dataset, "validation", download=download) if dataset.has_validation else train
    if dataset.has_validation:
        kept = np.arange(len(train.labels))
        chosen = stratified(held.labels, validation)
    else:
        kept, chosen = split(train.labels, validation)
    used = kept if images is None else kept[stratified(train.labels[kept], images)]
    return Choice(
        wanted=(
            Wanted(name="train", part=train, indices=used),
            Wanted(name="validation", part=held, indices=chosen),
        ),
        side=_stored_side(dataset, side),
    )


def choose_test(dataset: Dataset, beside: Path, *, side: int, download: bool = False) -> Choice:
    """Choose the training images of a study, and in place of its validation images the whole test part of its dataset.

    Test images get the side and the channels of the training images: colour beside colour even where all of them are
    grey, grey beside grey even where their files store grey as RGB. A test image with real colour beside grey training
    images is refused when it is decoded: turned grey it would no longer be the test image that others report
    accuracies on.

    Args:
        dataset: what `describe` found.
        beside: folder of the prepared images that `choose` chose; its training arrays are handed on as they are.
        side: what `choose` was given [px].
        download: whether torchvision may fetch the test part.

    Raises:
        DataError: there is no test part, or it cannot be read, has labels out of range, is empty, or does not fit.
    """
    if not dataset.has_test:
        raise DataError(f"{dataset.source} has no test part", mend="add one (test/, test_images) or do without")
    found, wanted = open_images(beside).train_images.shape[-1], _stored_side(dataset, side)
    if found != wanted:
        fault = f"{dataset.source}: the training images are {found} px, the test images would be {wanted} px"
        raise DataError(fault, mend="ask for the side that they were prepared at")
    test = _part(dataset, "test", download=download)
    everything = Wanted(name="validation", part=test, indices=np.arange(len(test.labels)))
    return Choice(wanted=(everything,), side=wanted, beside=beside)


def _stored_side(dataset: Dataset, side: int) -> int:
    return side if dataset.is_photos else min(dataset.side, side)


def _part(dataset: Dataset, part: Part, *, download: bool) -> OpenPart:
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


def _folder_part(dataset: Dataset, part: Part) -> OpenPart:
    by_class = part_files(Path(dataset.source), part, dataset.class_names)
    files = [file for of_class in by_class for file in of_class]
    return OpenPart(
        labels=np.repeat(np.arange(len(by_class), dtype=np.int64), [len(of_class) for of_class in by_class]),
        open=lambda index: Image.open(files[index]),
        content=lambda index: Path(files[index]).read_bytes(),
        where=files.__getitem__,
    )


def _npz_part(file: str | IO[bytes], part: Part, where: str) -> OpenPart:
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
    return OpenPart(
        labels=labels.reshape(-1).astype(np.int64),
        open=lambda index: Image.fromarray(images[index]),
        content=lambda index: stored_pixels(Image.fromarray(images[index])),
        where=lambda index: f"{where}: {images_key}[{index}]",
    )


def _torchvision_part(dataset: Dataset, part: Part, *, download: bool) -> OpenPart:
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
    values, files = np.asarray(labels, np.int64), _files(opened)
    return OpenPart(
        labels=values[:, 0] if values.ndim == 2 else values,  # QMNIST: the class and seven facts about the writer
        open=lambda index: opened[index][0],
        content=lambda index: files[index].read_bytes() if files else stored_pixels(opened[index][0]),
        where=lambda index: f"{dataset.source} in {dataset.root}, {part} image {index}",
    )


def _files(opened: Any) -> list[Path]:
    """The file of each image of a torchvision set; nothing where it does not keep one for each."""
    held = next((list(getattr(opened, name)) for name in FILES if hasattr(opened, name)), [])
    files = [one[0] if isinstance(one, tuple) else one for one in held]
    is_known = len(files) == len(opened) and all(isinstance(file, str | Path) for file in files)
    return [Path(file) for file in files] if is_known else []


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
    if tried:
        return "check the network, or put its files there by hand"
    return "name its folder with --data-root DIR, or add --download to fetch it"
