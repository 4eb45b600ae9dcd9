"""Images prepared for a test, arrays of its own or a dataset decoded into a folder; and the smallest work on some."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from scalesearch.dataset import Dataset
from scalesearch.engine.local import LocalExecutor
from scalesearch.engine.work import Event, Work
from scalesearch.proxy.choice import Choice, key_of
from scalesearch.proxy.data import choose, choose_test
from scalesearch.proxy.decoding import RECORD, UNFINISHED, decode
from scalesearch.proxy.images import ARRAYS, Images, seal
from scalesearch.recipe import Recipe
from scalesearch.spec import Head, Network, Stage, Stem
from scalesearch.trials import TrialKey

NETWORK = Network(
    stem=Stem(width=8, stride=1),
    stages=(Stage(block="mbconv", depth=2, width=8, stride=2, expansion=2.0, se_ratio=0.25),),
    head=Head(width=16),
    resolution=10,
    num_classes=3,
)
RECIPE = Recipe(batch_size=16, norm_images=32, crop=0.1, flip=True)


def unheard(*_: object) -> None:
    """Hears of progress and says nothing."""


def save(images: Images, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(images, name))
    seal(folder, "")


def decoded(choice: Choice, folder: Path) -> Images:
    return decode(choice, key_of(choice, unheard), folder, unheard)


def stopped_after_a_chunk(choice: Choice, folder: Path) -> set[str]:
    """A decode that stops early; returns the lines of its finished chunks."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    key = key_of(choice, unheard)
    with suppress(KeyboardInterrupt):
        decode(choice, key, folder, stop)
    return set((folder / UNFINISHED / RECORD).read_text().splitlines()[1:])


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


def smallest_images(folder: Path) -> Path:
    """Two batches or four of the smallest network's images."""

    def part(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, 10, 10), np.uint8)
        return pixels, (np.arange(count) % 3).astype(np.int64)

    (images, labels), (held, held_labels) = part(64, 0), part(30, 1)
    found = Images(
        train_images=images, train_labels=labels, validation_images=held, validation_labels=held_labels, fingerprint=""
    )
    save(found, folder)
    return folder


def smallest_work(data: Path, folder: Path, *, micro_batch: int, epochs: int = 3, dropout: float = 0.0) -> Work:
    folder.mkdir(exist_ok=True)
    key = TrialKey(proxy="tiny", seed=0, rung=epochs)
    return Work(
        keys=(key,),
        network=replace(NETWORK, head=replace(NETWORK.head, dropout=dropout)),
        recipe=RECIPE,
        data=data,
        checkpoint=folder / f"{key}.safetensors",
        log=folder / f"{key}.log",
        micro_batch=micro_batch,
    )


def follow(executor: LocalExecutor, found: list[Event]) -> None:
    """Hear what happens until nothing is at work."""
    while executor.busy:
        found += executor.events()
