"""Archives of arrays as datasets: which array is which part, and whether shapes, types and labels make sense."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

from scalesearch.dataset.faults import few, reading_npz
from scalesearch.dataset.value import LARGEST_SMALL_SIDE, Dataset, Part, slug
from scalesearch.errors import DataError

PART_ARRAYS: Mapping[Part, tuple[tuple[str, str], ...]] = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train")),
    "validation": (("val_images", "val_labels"), ("x_val", "y_val")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}


def describe_npz(path: Path) -> Dataset:
    """The facts about an `.npz` file, from the headers of its images and from its labels.

    Raises:
        DataError: it is damaged, or its arrays are no parts of a dataset.
    """
    with reading_npz(str(path)), zipfile.ZipFile(path) as archive:
        keys = {name.removesuffix(".npy") for name in archive.namelist()}
        parts = npz_parts(keys, str(path))
        shapes: dict[Part, tuple[int, int]] = {
            part: _checked_images(archive, pair, path) for part, pair in parts.items()
        }
        classes: dict[Part, list[int]] = {
            part: _label_set(archive, labels, path) for part, (_, labels) in parts.items()
        }
    _check_classes(classes, path)
    _check_equal_sides(shapes, path)
    count, side = shapes["train"]
    return Dataset(
        name=slug(path.stem),
        source=str(path),
        root="",
        num_classes=len(classes["train"]),
        class_names=(),
        side=side,
        is_photos=side > LARGEST_SMALL_SIDE,
        train_count=count,
        has_validation="validation" in parts,
        has_test="test" in parts,
    )


def npz_parts(keys: Collection[str], where: str) -> dict[Part, tuple[str, str]]:
    """The keys of images and labels of each part.

    Raises:
        DataError: images without labels, labels without images, or no training part.
    """
    found: dict[Part, tuple[str, str]] = {}
    for part, pairs in PART_ARRAYS.items():
        for pair in pairs:
            missing = [key for key in pair if key not in keys]
            if len(missing) == 1:
                raise DataError(f"{where} has no {missing[0]}", mend=f"store {pair[0]} and {pair[1]} together")
            if not missing:
                found.setdefault(part, pair)
    if "train" not in found:
        fault = f"{where} has no train_images and train_labels (nor x_train and y_train)"
        raise DataError(fault, mend=f"it holds {few(sorted(keys)) or 'nothing'}: rename the arrays")
    return found


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of the .npy file that begins here."""
    from numpy.lib import format as npy

    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _checked_images(archive: zipfile.ZipFile, pair: tuple[str, str], path: Path) -> tuple[int, int]:
    """Count and side of the images of one part."""
    images, labels = pair
    with archive.open(f"{images}.npy") as file:
        shape, dtype = _header(file)
    if dtype != "uint8":
        raise DataError(f"{path}: {images} is {dtype}", mend="store pixels as uint8, 0 to 255")
    side = _square_side(shape)
    fault = f"{path}: {images} has the shape {shape}"
    if 0 in shape:
        raise DataError(f"{fault}, which is empty", mend="store at least one image in it")
    if side is None:
        raise DataError(fault, mend="store squares as (n, h, w), (n, h, w, 1), (n, h, w, 3) or (n, 3, h, w)")
    with archive.open(f"{labels}.npy") as file:
        label_shape, label_dtype = _header(file)
    if label_dtype.kind not in "iu":
        raise DataError(f"{path}: {labels} is {label_dtype}", mend="store labels as integers 0 to k-1")
    if label_shape not in ((shape[0],), (shape[0], 1)):
        fault = f"{path}: {labels} has the shape {label_shape} for {shape[0]} images"
        raise DataError(fault, mend="store one label per image")
    return shape[0], side


def _square_side(shape: tuple[int, ...]) -> int | None:
    if len(shape) == 4 and shape[3] in (1, 3):
        shape = shape[:3]
    elif len(shape) == 4 and shape[1] == 3:
        shape = (shape[0], *shape[2:])
    return shape[1] if len(shape) == 3 and shape[1] == shape[2] and min(shape) > 0 else None


def _label_set(archive: zipfile.ZipFile, key: str, path: Path) -> list[int]:
    import numpy as np

    with reading_npz(f"{path}: {key}"), archive.open(f"{key}.npy") as file:
        return np.unique(np.lib.format.read_array(file, allow_pickle=False)).tolist()


def _check_classes(classes: Mapping[Part, list[int]], path: Path) -> None:
    train = classes["train"]
    if len(train) == 1:
        raise DataError(
            f"{path}: the training labels have only one class, {train[0]}", mend="add images of another class"
        )
    if train != list(range(len(train))):
        fault = f"{path}: {len(train)} training labels from {train[0]} to {train[-1]}"
        raise DataError(fault, mend="number the classes from 0 without a gap")
    for part, labels in classes.items():
        unknown = [str(label) for label in labels if label not in range(len(train))]
        if unknown:
            raise DataError(f"{path}: {part} labels {few(unknown)} are not in training", mend="number them alike")


def _check_equal_sides(shapes: Mapping[Part, tuple[int, int]], path: Path) -> None:
    sides = {part: side for part, (_, side) in shapes.items()}
    if len(set(sides.values())) > 1:
        found = ", ".join(f"{part} {side} px" for part, side in sides.items())
        raise DataError(f"{path}: the sides differ: {found}", mend="resize all parts to one side")
