"""The facts about a dataset as one frozen value: what a plan keeps of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from scalesearch.errors import DataError

EMBEDDED = "fashion-mnist"
TORCHVISION_PREFIX = "torchvision:"
LARGEST_SMALL_SIDE = 64
"""Larger images are photos [px]."""

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The facts about a dataset that a plan needs: no images, no labels."""

    name: str
    """Short and safe in file names."""
    source: str
    """What `describe` was given, made canonical: `describe(source)` leads here again."""
    root: str
    """Absolute folder that torchvision reads from and downloads to; empty for other sources."""
    num_classes: int
    class_names: tuple[str, ...]
    """In the order of the labels; empty if unknown."""
    side: int
    """Side of the images where all are equal squares; else the median (torchvision: nominal) shorter side [px]."""
    is_photos: bool
    """Whether the images differ in size, are no squares, or are larger than 64 px."""
    train_count: int
    """Images of the training part."""
    has_validation: bool
    has_test: bool

    def __post_init__(self) -> None:
        least = {"num_classes": 2, "side": 1, "train_count": 1}
        faults = [f"dataset.{name} = {getattr(self, name)!r}" for name in least if getattr(self, name) < least[name]]
        if faults:
            raise DataError(", ".join(faults), mend="a dataset has images, of at least two classes")

    @property
    def kind(self) -> Literal["embedded", "torchvision", "npz", "folder"]:
        """Where the images come from."""
        if self.source == EMBEDDED:
            return "embedded"
        if self.source.startswith(TORCHVISION_PREFIX):
            return "torchvision"
        return "npz" if self.source.lower().endswith(".npz") else "folder"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to `plan.yaml`."""
        return asdict(self) | {"class_names": list(self.class_names)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Dataset:
        """The inverse of `to_dict`.

        Raises:
            DataError: a key is missing or unknown.
        """
        known = {entry.name for entry in fields(cls)}
        wrong = sorted(known.symmetric_difference(values))
        if wrong:
            raise DataError(
                f"dataset: missing or unknown keys {', '.join(wrong)}", mend=f"keys: {', '.join(sorted(known))}"
            )
        typed: dict[str, Any] = {**values, "class_names": tuple(values["class_names"])}
        return cls(**typed)


def slug(text: str) -> str:
    """A name for folders.

    >>> slug("My Photos (2024)"), slug("猫")
    ('my-photos-2024', 'dataset')
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:60].strip("-") or "dataset"


def absolute(path: Path) -> Path:
    """The absolute form of a path: `~` expanded, `..` taken out, links not followed."""
    return Path(os.path.abspath(path.expanduser()))
