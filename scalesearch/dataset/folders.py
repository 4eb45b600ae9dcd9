"""Folders of images as datasets: parts, class folders, and the sizes in the headers of a sample."""

from __future__ import annotations

import errno
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from scalesearch.dataset.faults import few, reading_image
from scalesearch.dataset.value import LARGEST_SMALL_SIDE, Dataset, Part, slug
from scalesearch.errors import DataError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Source: torchvision.datasets.folder.IMG_EXTENSIONS, in another order."""
SAMPLE = 200
PART_FOLDERS: Mapping[Part, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}


def describe_folder(folder: Path) -> Dataset:
    """The facts about a folder with `train/` and optional `val/` and `test/`, or with class folders directly inside.

    Raises:
        DataError: parts or classes are missing or do not fit together, or an image of the sample is damaged.
    """
    parts = folder_parts(folder)
    classes = subfolders(parts["train"])
    files = _class_files(parts["train"], classes)
    for part in parts.keys() - {"train"}:
        _check_other_part(parts[part], classes)
    everything = [file for of_class in files for file in of_class]
    side, is_photos = _measured(everything)
    return Dataset(
        name=slug(folder.name),
        source=str(folder),
        root="",
        num_classes=len(classes),
        class_names=tuple(classes),
        side=side,
        is_photos=is_photos,
        train_count=len(everything),
        has_validation="validation" in parts,
        has_test="test" in parts,
    )


def folder_parts(folder: Path) -> dict[Part, Path]:
    """The folders that hold the class folders of each part; the folder itself where there is only one part.

    Raises:
        DataError: a part for validation or testing without one for training.
    """
    inside = {name.lower(): folder / name for name in subfolders(folder)}
    found: dict[Part, Path] = {}
    for part, names in PART_FOLDERS.items():
        present = [name for name in names if name in inside]
        if present:
            found[part] = inside[present[0]]
    if "train" in found and (len(inside) == len(found) or subfolders(found["train"])):
        return found
    others = [path.name for part, path in found.items() if part != "train"]
    if others:
        raise DataError(f"{folder} has {few(others)}/ but no train/ with class folders", mend="add train/")
    return {"train": folder}


def subfolders(folder: Path) -> list[str]:
    """Sorted names of the folders inside, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise _unreadable(error) from error


def image_files(folder: Path) -> list[str]:
    """Sorted paths of the image files of one class, at any depth, without hidden ones.

    Links are followed; a folder that several of them lead to counts once, so that circles end.
    """
    found: list[tuple[str, list[str]]] = []
    left, seen = [os.fspath(folder)], set[tuple[int, int]]()
    while left:
        parent = left.pop()
        try:
            place = os.stat(parent)
            if (place.st_dev, place.st_ino) in seen:
                continue
            seen.add((place.st_dev, place.st_ino))
            with os.scandir(parent) as entries:
                inside = list(entries)
            left += [entry.path for entry in inside if entry.is_dir()]
            images = [one for one in inside if _is_named_image(one.name) and not one.is_dir()]
            odd = [one.path for one in images if not one.is_file()]
        except OSError as error:
            raise _unreadable(error) from error
        if odd:  # a pipe would be waited for
            raise DataError(f"{odd[0]} is not a file", mend="replace or remove it")
        found.append((parent, sorted(image.name for image in images)))
    return [os.path.join(parent, name) for parent, names in sorted(found) for name in names]


def _is_named_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_EXTENSIONS) and not name.startswith(".")


def part_files(folder: Path, part: Part, classes: Sequence[str]) -> list[list[str]]:
    """Sorted paths of the image files of one part, class by class; outside training a class may have no folder.

    Raises:
        DataError: the part is not there, or a folder of it cannot be read.
    """
    parts = folder_parts(folder)
    if part not in parts:
        raise DataError(f"{folder} has no {part} part any more", mend="restore it or plan again")
    places = [parts[part] / name for name in classes]
    return [image_files(place) if part == "train" or place.is_dir() else [] for place in places]


def image_size(file: str) -> tuple[int, int]:
    """Width and height of an image file from its header [px].

    Raises:
        DataError: it has none that can be read.
    """
    from PIL import Image

    with reading_image(file), Image.open(file) as image:
        return image.size


def _unreadable(error: OSError) -> DataError:
    mend = "correct its permissions" if error.errno in (errno.EACCES, errno.EPERM) else "mend it, or move it away"
    return DataError(f"{error.filename} cannot be read: {error.strerror}", mend=mend)


def _class_files(folder: Path, classes: Sequence[str]) -> list[list[str]]:
    if not classes:
        raise DataError(f"{folder} has no class folders", mend="put the images of each class in a folder of its own")
    if len(classes) == 1:
        raise DataError(f"{folder} has only one class, {classes[0]}", mend="add a folder for each other class")
    files = [image_files(folder / name) for name in classes]
    empty = [name for name, of_class in zip(classes, files, strict=True) if not of_class]
    if empty:
        raise DataError(
            f"{folder}: no images in {few(empty)}", mend=f"add images ({' '.join(IMAGE_EXTENSIONS)}) or remove"
        )
    return files


def _check_other_part(folder: Path, classes: Sequence[str]) -> None:
    unknown = [name for name in subfolders(folder) if name not in classes]
    if unknown:
        raise DataError(
            f"{folder}: classes {few(unknown)} are not in train/", mend="use the same class folders in both"
        )
    if not any(image_files(folder / name) for name in subfolders(folder)):
        raise DataError(f"{folder} has no images in class folders", mend="fill or remove it")


def _measured(files: Sequence[str]) -> tuple[int, bool]:
    """Median shorter side and whether these are photos, from the headers of a sample spread evenly over the files."""
    count = min(SAMPLE, len(files))
    sizes = [image_size(files[index * len(files) // count]) for index in range(count)]
    width, height = sizes[0]
    is_photos = len(set(sizes)) > 1 or width != height or width > LARGEST_SMALL_SIDE
    return statistics.median_low(min(size) for size in sizes), is_photos
