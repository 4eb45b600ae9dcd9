"""What of a study's images deserves a word before the training starts: copies, labels, classes, sizes, damage.

Counts and tells; changes nothing and refuses nothing. Copies are images whose stored pixels are the same to the bit.
"""

from __future__ import annotations

import hashlib
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scalesearch.dataset import Dataset
from scalesearch.dataset.faults import few
from scalesearch.dataset.folders import image_size, part_files
from scalesearch.dataset.value import Part
from scalesearch.errors import DataError
from scalesearch.proxy.images import Array, Images

VALIDATION_COPIES = 0.001
"""Share of validation images that training holds too, from which on it is told: half of what rankings can resolve."""
TRAINING_COPIES = 0.01
"""Share of training images that are copies of earlier ones, from which on it is told."""
CONFLICTS = 0.001
"""Share of images whose pixels stand under several labels, from which on it is told."""
IMBALANCE = 10
"""Images of the largest training class over those of the smallest, from which on it is told."""
ENLARGED = 0.1
"""Share of images smaller than they are trained at, from which on it is told. A study's side is at most the median."""
HEADERS = 2_000
"""Image files whose headers are read for their sizes, spread evenly over the files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Shorter sides of the images as they were before they were brought to one side."""

    least: int
    """[px]"""
    median: int
    """[px]"""
    most: int
    """[px]"""
    measured: int
    """Images whose size was looked at."""
    count: int
    """Images there are, chosen for the study or not."""
    enlarged: int
    """Of those measured, how many are smaller than the side that the study stores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What was found in the images of a study."""

    side: int
    """Of the stored images, the largest they are trained at [px]."""
    class_names: tuple[str, ...]
    train_per_class: tuple[int, ...]
    validation_per_class: tuple[int, ...]
    validation_copies: int
    """Validation images whose pixels training holds too, under whichever label."""
    test_copies: int | None
    """The same of the test part; None where it was not opened."""
    train_copies: int
    """Training images whose pixels an earlier training image has."""
    conflicts: int
    """Images of either part whose pixels stand under more than one label."""
    sizes: Sizes | None
    """None where only opening every image would tell: photos of torchvision, folders that are gone."""
    damaged: tuple[str, ...]
    """Files of a folder that are empty, in any part, or whose header was read and is none; relative to the folder."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values; of damaged files the count and the first three."""
        return {
            "side": self.side,
            "train": _part_dict(self.train_per_class) | {"copies": self.train_copies},
            "validation": _part_dict(self.validation_per_class) | {"copies_of_training": self.validation_copies},
            "test": None if self.test_copies is None else {"copies_of_training": self.test_copies},
            "label_conflicts": self.conflicts,
            "sizes": None if self.sizes is None else asdict(self.sizes),
            "damaged": {"count": len(self.damaged), "first": list(self.damaged[:3])},
            "remarks": list(self.remarks()),
        }

    def remarks(self) -> tuple[str, ...]:
        """A sentence for each thing that deserves attention, the gravest first; none for clean, balanced images."""
        found = (
            self._damage(),
            self._leak(),
            self._test_leak(),
            self._conflict(),
            self._missing("validation", self.validation_per_class),
            self._missing("training", self.train_per_class),
            self._imbalance(),
            self._repetition(),
            self._enlargement(),
        )
        return tuple(remark for remark in found if remark)

    def _damage(self) -> str:
        if not self.damaged:
            return ""
        return f"{_some(len(self.damaged), 'image file')} cannot be read, empty or damaged: {few(self.damaged)}"

    def _leak(self) -> str:
        count, total = self.validation_copies, sum(self.validation_per_class)
        if not count or count < VALIDATION_COPIES * total:
            return ""
        copies = "is an exact copy of a training image" if count == 1 else "are exact copies of training images"
        return (
            f"{count:,} of {_some(total, 'validation image')} {copies}: accuracies are too high by what they memorise"
        )

    def _test_leak(self) -> str:
        if not self.test_copies:
            return ""
        return f"{_some(self.test_copies, 'test image')} with the pixels of a training image: see scan.json"

    def _conflict(self) -> str:
        count, total = self.conflicts, sum(self.train_per_class) + sum(self.validation_per_class)
        if not count or count < CONFLICTS * total:
            return ""
        return f"{count:,} of {total:,} images have the same pixels as an image with another label: correct the labels"

    def _missing(self, part: str, per_class: Sequence[int]) -> str:
        without = [self._name(label) for label, count in enumerate(per_class) if not count]
        if not without:
            return ""
        return f"{_some(len(without), 'class', 'classes')} of {len(per_class):,} without a {part} image: {few(without)}"

    def _imbalance(self) -> str:
        least, most = min(self.train_per_class), max(self.train_per_class)
        if not least or most < IMBALANCE * least:
            return ""
        small, large = (self._name(self.train_per_class.index(count)) for count in (least, most))
        return (
            f"the largest class has {most / least:.0f} times the images of the smallest "
            f"({large} {most:,}, {small} {least:,}): accuracy is mostly that of the large classes"
        )

    def _repetition(self) -> str:
        count, total = self.train_copies, sum(self.train_per_class)
        if not count or count < TRAINING_COPIES * total:
            return ""
        return f"{count:,} of {_some(total, 'training image')} repeat others: only {total - count:,} are distinct"

    def _enlargement(self) -> str:
        sizes = self.sizes
        if sizes is None or not sizes.enlarged or sizes.enlarged < ENLARGED * sizes.measured:
            return ""
        return (
            f"{sizes.enlarged:,} of {sizes.measured:,} images are smaller than the {self.side} px they are stored at, "
            f"the smallest {sizes.least} px: enlarged, they show no more detail"
        )

    def _name(self, label: int) -> str:
        return self.class_names[label] if self.class_names else f"class {label}"


def scan(dataset: Dataset, images: Images, test: Images | None = None) -> Scan:
    """Look through the images that a study chose and, for a folder, at its files.

    Of a folder's files the sizes in bytes are read, of all parts, and the headers of at most `HEADERS` files of
    training and validation. No file of the test part is opened.

    Args:
        dataset: what the images were loaded from. A folder that is gone or unreadable is no fault: it has no sizes.
        images: training and validation images, memory maps or arrays.
        test: the same with the test part in place of validation, if it was prepared.
    """
    train, validation = _keys(images.train_images), _keys(images.validation_images)
    labels = np.concatenate([images.train_labels, images.validation_labels])
    side = int(images.train_images.shape[-1])
    if dataset.kind == "folder":
        sizes, damaged = _folder_facts(dataset, side)
    else:
        sizes, damaged = _array_sizes(dataset, len(labels), side), ()
    return Scan(
        side=side,
        class_names=dataset.class_names,
        train_per_class=_per_class(images.train_labels, dataset.num_classes),
        validation_per_class=_per_class(images.validation_labels, dataset.num_classes),
        validation_copies=int(np.isin(validation, train).sum()),
        test_copies=None if test is None else int(np.isin(_keys(test.validation_images), train).sum()),
        train_copies=len(train) - len(np.unique(train)),
        conflicts=_conflicts(np.concatenate([train, validation]), labels),
        sizes=sizes,
        damaged=damaged,
    )


def _keys(images: Array) -> Array:
    """64 bits per image that are equal for equal pixels; by chance in 1 of 10^7 sets of a million images."""
    digests = (hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest() for image in images)
    return np.fromiter((int.from_bytes(digest, "little") for digest in digests), np.uint64, len(images))


def _conflicts(keys: Array, labels: Array) -> int:
    order = np.argsort(keys)  # of equal keys with several labels, some neighbours differ
    sorted_keys, sorted_labels = keys[order], labels[order]
    differs = (sorted_keys[1:] == sorted_keys[:-1]) & (sorted_labels[1:] != sorted_labels[:-1])
    return int(np.isin(keys, sorted_keys[1:][differs]).sum())


def _per_class(labels: Array, classes: int) -> tuple[int, ...]:
    return tuple(int(count) for count in np.bincount(labels, minlength=classes))


def _array_sizes(dataset: Dataset, count: int, side: int) -> Sizes | None:
    """The one size of images that are equal squares."""
    if dataset.kind == "torchvision" and dataset.is_photos:
        return None
    only, enlarged = dataset.side, count if dataset.side < side else 0
    return Sizes(least=only, median=only, most=only, measured=count, count=count, enlarged=enlarged)


def _folder_facts(dataset: Dataset, side: int) -> tuple[Sizes | None, tuple[str, ...]]:
    """Sizes from headers, and the names of files that are empty or have none."""
    try:
        chosen_from = _files(dataset, "train") + (_files(dataset, "validation") if dataset.has_validation else [])
        test = _files(dataset, "test") if dataset.has_test else []
        damaged = {file for file in chosen_from + test if os.path.getsize(file) == 0}
    except (DataError, OSError):
        return None, ()
    shorter: list[int] = []
    measured = min(HEADERS, len(chosen_from))
    for file in (chosen_from[index * len(chosen_from) // measured] for index in range(measured)):
        try:
            shorter.append(min(image_size(file)))
        except DataError:
            damaged.add(file)
    names = tuple(Path(os.path.relpath(file, dataset.source)).as_posix() for file in sorted(damaged))
    return _spread(shorter, len(chosen_from), side), names


def _files(dataset: Dataset, part: Part) -> list[str]:
    by_class = part_files(Path(dataset.source), part, dataset.class_names)
    return [file for of_class in by_class for file in of_class]


def _spread(shorter: Sequence[int], count: int, side: int) -> Sizes | None:
    if not shorter:
        return None
    return Sizes(
        least=min(shorter),
        median=statistics.median_low(shorter),
        most=max(shorter),
        measured=len(shorter),
        count=count,
        enlarged=sum(size < side for size in shorter),
    )


def _part_dict(per_class: Sequence[int]) -> dict[str, Any]:
    least, most = min(per_class), max(per_class)
    return {
        "images": sum(per_class),
        "per_class": list(per_class),
        "least": least,
        "most": most,
        "ratio": round(most / least, 4) if least else None,
        "classes_without": sum(not count for count in per_class),
    }


def _some(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
