"""The sets that torchvision reads, as one table of facts: known without their files and without torchvision."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalesearch.dataset.value import TORCHVISION_PREFIX, Dataset, absolute, slug
from scalesearch.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionFacts:
    """How one torchvision class is asked for its parts, and what is known of its images beforehand."""

    num_classes: int
    side: int
    """Exact where the images are equal squares, nominal for photos [px]."""
    train_count: int
    labels: str
    """Attribute of the torchvision object that holds its labels, or (image, label) pairs."""
    train: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Constructor arguments of the training part."""
    validation: Mapping[str, Any] | None = None
    """Constructor arguments of the validation part, if there is one."""
    test: Mapping[str, Any] | None = None
    """Constructor arguments of the test part, if there is one with labels."""
    is_photos: bool = False
    downloads: bool = True
    """Whether torchvision can download it."""
    class_names: tuple[str, ...] = ()


_TRAIN: Mapping[str, Any] = {"train": True}
_NOT_TRAIN: Mapping[str, Any] = {"train": False}
_SPLIT: Mapping[str, Any] = {"split": "train"}
_VAL: Mapping[str, Any] = {"split": "val"}
_TEST: Mapping[str, Any] = {"split": "test"}
_DIGITS = tuple("0123456789")
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# fmt: off
TORCHVISION: Mapping[str, TorchvisionFacts] = {
    "CIFAR10": TorchvisionFacts(
        num_classes=10, side=32, train_count=50_000, labels="targets", train=_TRAIN, test=_NOT_TRAIN,
        class_names=_THINGS),
    "CIFAR100": TorchvisionFacts(
        num_classes=100, side=32, train_count=50_000, labels="targets", train=_TRAIN, test=_NOT_TRAIN),
    "Caltech101": TorchvisionFacts(num_classes=101, side=200, train_count=8_677, labels="y", is_photos=True),
    "Caltech256": TorchvisionFacts(num_classes=257, side=300, train_count=30_607, labels="y", is_photos=True),
    "Country211": TorchvisionFacts(
        num_classes=211, side=300, train_count=31_650, labels="targets", train=_SPLIT, validation={"split": "valid"},
        test=_TEST, is_photos=True),
    "DTD": TorchvisionFacts(
        num_classes=47, side=450, train_count=1_880, labels="_labels", train=_SPLIT, validation=_VAL, test=_TEST,
        is_photos=True),
    "EMNIST": TorchvisionFacts(
        num_classes=47, side=28, train_count=112_800, labels="targets", train={"split": "balanced", "train": True},
        test={"split": "balanced", "train": False}),
    "EuroSAT": TorchvisionFacts(
        num_classes=10, side=64, train_count=27_000, labels="targets",
        class_names=("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture",
                     "PermanentCrop", "Residential", "River", "SeaLake")),
    "FER2013": TorchvisionFacts(
        num_classes=7, side=48, train_count=28_709, labels="_samples", train=_SPLIT, test=_TEST, downloads=False,
        class_names=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")),
    "FGVCAircraft": TorchvisionFacts(
        num_classes=100, side=700, train_count=3_334, labels="_labels", train=_SPLIT, validation=_VAL, test=_TEST,
        is_photos=True),
    "FashionMNIST": TorchvisionFacts(
        num_classes=10, side=28, train_count=60_000, labels="targets", train=_TRAIN, test=_NOT_TRAIN,
        class_names=_CLOTHES),
    "Flowers102": TorchvisionFacts(
        num_classes=102, side=500, train_count=1_020, labels="_labels", train=_SPLIT, validation=_VAL, test=_TEST,
        is_photos=True),
    "Food101": TorchvisionFacts(
        num_classes=101, side=512, train_count=75_750, labels="_labels", train=_SPLIT, test=_TEST, is_photos=True),
    "GTSRB": TorchvisionFacts(
        num_classes=43, side=40, train_count=26_640, labels="_samples", train=_SPLIT, test=_TEST, is_photos=True),
    "ImageNet": TorchvisionFacts(
        num_classes=1_000, side=375, train_count=1_281_167, labels="targets", train=_SPLIT, validation=_VAL,
        is_photos=True, downloads=False),
    "Imagenette": TorchvisionFacts(
        num_classes=10, side=375, train_count=9_469, labels="_samples", train=_SPLIT, validation=_VAL, is_photos=True),
    "KMNIST": TorchvisionFacts(
        num_classes=10, side=28, train_count=60_000, labels="targets", train=_TRAIN, test=_NOT_TRAIN),
    "MNIST": TorchvisionFacts(
        num_classes=10, side=28, train_count=60_000, labels="targets", train=_TRAIN, test=_NOT_TRAIN,
        class_names=_DIGITS),
    "OxfordIIITPet": TorchvisionFacts(
        num_classes=37, side=375, train_count=3_680, labels="_labels", train={"split": "trainval"}, test=_TEST,
        is_photos=True),
    "Places365": TorchvisionFacts(
        num_classes=365, side=256, train_count=1_803_460, labels="targets",
        train={"split": "train-standard", "small": True}, validation={"split": "val", "small": True},
        is_photos=True),
    "QMNIST": TorchvisionFacts(
        num_classes=10, side=28, train_count=60_000, labels="targets", train=_TRAIN, test=_NOT_TRAIN,
        class_names=_DIGITS),
    "RenderedSST2": TorchvisionFacts(
        num_classes=2, side=448, train_count=6_920, labels="_samples", train=_SPLIT, validation=_VAL, test=_TEST,
        is_photos=True, class_names=("negative", "positive")),
    "STL10": TorchvisionFacts(
        num_classes=10, side=96, train_count=5_000, labels="labels", train=_SPLIT, test=_TEST, is_photos=True,
        class_names=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")),
    "SUN397": TorchvisionFacts(num_classes=397, side=500, train_count=108_754, labels="_labels", is_photos=True),
    "SVHN": TorchvisionFacts(
        num_classes=10, side=32, train_count=73_257, labels="labels", train=_SPLIT, test=_TEST, class_names=_DIGITS),
    "StanfordCars": TorchvisionFacts(
        num_classes=196, side=480, train_count=8_144, labels="_samples", train=_SPLIT, test=_TEST, is_photos=True,
        downloads=False),
    "USPS": TorchvisionFacts(
        num_classes=10, side=16, train_count=7_291, labels="targets", train=_TRAIN, test=_NOT_TRAIN,
        class_names=_DIGITS),
}
# fmt: on
"""torchvision's sets of whole images with one label that name a training part and need no further library.

Left out: PCAM (needs h5py), INaturalist, Omniglot and SEMEION (no training and test part over the same classes),
CelebA (attributes, not classes), LFWPeople (classes of one image), CLEVRClassification (counts of objects).
The test images of ImageNet and Places365 come without labels; so do those of FER2013 where only Kaggle's test.csv is
there (fer2013.csv and icml_face_data.csv have them).
Source: the constructors of torchvision 0.29; counts as the authors of each set state them.
"""


def describe_torchvision(name: str, root: Path) -> Dataset:
    """The facts about the set of torchvision's class `name`, whose files are or will be in `root`.

    Raises:
        DataError: no row of the table has that name.
    """
    facts = TORCHVISION.get(name)
    if facts is None:
        raise DataError(f"{TORCHVISION_PREFIX}{name} is not a known classification set", mend=_nearest(name))
    return Dataset(
        name=slug(name),
        source=f"{TORCHVISION_PREFIX}{name}",
        root=str(absolute(root)),
        num_classes=facts.num_classes,
        class_names=facts.class_names,
        side=facts.side,
        is_photos=facts.is_photos,
        train_count=facts.train_count,
        has_validation=facts.validation is not None,
        has_test=facts.test is not None,
    )


def _nearest(name: str) -> str:
    lowered = {known.lower(): known for known in TORCHVISION}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f"did you mean {TORCHVISION_PREFIX}{lowered[near[0]]}?" if near else f"one of {', '.join(TORCHVISION)}"
