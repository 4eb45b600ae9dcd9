"""Images prepared for a test: arrays of its own put where workers open them, a dataset decoded into a folder."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from scalesearch.dataset import Dataset
from scalesearch.proxy.choice import Choice, key_of
from scalesearch.proxy.data import choose, choose_test
from scalesearch.proxy.decoding import decode
from scalesearch.proxy.images import ARRAYS, Images, seal


def unheard(*_: object) -> None:
    """Hears of progress and says nothing."""


def save(images: Images, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(images, name))
    seal(folder, "")


def decoded(choice: Choice, folder: Path) -> Images:
    return decode(choice, key_of(choice, unheard), folder, unheard)


def load(dataset: Dataset, folder: Path, **options: Any) -> Images:
    return decoded(choose(dataset, **options), folder)


def load_test(dataset: Dataset, folder: Path, beside: Path, **options: Any) -> Images:
    return decoded(choose_test(dataset, beside, **options), folder)


def loaded(
    dataset: Dataset, *, images: int | None = None, validation: int = 4, side: int = 64, download: bool = False
) -> Images:
    """Decoded into a folder that is gone: what is mapped stays."""
    with TemporaryDirectory() as folder:
        return load(dataset, Path(folder), images=images, validation=validation, side=side, download=download)
