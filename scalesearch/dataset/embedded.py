"""The images that are shipped with the package, a subset of Fashion-MNIST, and the facts about them."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

from scalesearch.dataset.torchvision_sets import TORCHVISION
from scalesearch.dataset.value import EMBEDDED, Dataset


def embedded_file() -> Traversable:
    """The archive shipped with the package."""
    return resources.files("scalesearch") / "data" / "fashion-mnist.npz"


def describe_embedded() -> Dataset:
    """The facts about the shipped archive, without opening it."""
    names = TORCHVISION["FashionMNIST"].class_names
    return Dataset(
        name=EMBEDDED,
        source=EMBEDDED,
        root="",
        num_classes=len(names),
        class_names=names,
        side=28,
        is_photos=False,
        train_count=10_000,
        has_validation=False,
        has_test=True,
    )
