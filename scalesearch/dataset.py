"""What `--data` means: classes, image side and parts of a dataset, known without opening more than headers.

Knows nothing of how images are decoded, split or trained on, and must never import torch: a plan is printed from here.
"""

from __future__ import annotations

import difflib
import os
import re
import statistics
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import IO, Any, Literal

from scalesearch.errors import DataError

EMBEDDED = "fashion-mnist"
TORCHVISION_PREFIX = "torchvision:"
DEFAULT_ROOT = Path("~/.cache/scalesearch")
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Source: torchvision.datasets.folder.IMG_EXTENSIONS, in another order."""
SAMPLE = 200
LARGEST_SMALL_SIDE = 64

Part = Literal["train", "validation", "test"]
PART_FOLDERS: Mapping[Part, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
PART_ARRAYS: Mapping[Part, tuple[tuple[str, str], ...]] = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train")),
    "validation": (("val_images", "val_labels"), ("x_val", "y_val")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}


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
        return cls(**{**values, "class_names": tuple(values["class_names"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionFacts:
    """How one torchvision class is asked for its parts, and what is known of its images beforehand."""

    num_classes: int
    side: int
    """Exact where the images are equal squares, nominal for photos [px]."""
    train_count: int
    labels: str
    """Attribute of the torchvision object that holds its labels, or (image, label) pairs."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Constructor arguments of the training part."""
    validation: Mapping[str, Any] | None = None
    """Constructor arguments of the validation part, if there is one."""
    has_test: bool = True
    is_photos: bool = False
    downloads: bool = True
    """Whether torchvision can download it."""
    class_names: tuple[str, ...] = ()


_TRAIN: Mapping[str, Any] = {"train": True}
_SPLIT: Mapping[str, Any] = {"split": "train"}
_VAL: Mapping[str, Any] = {"split": "val"}
_DIGITS = tuple("0123456789")
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# fmt: off
TORCHVISION: Mapping[str, TorchvisionFacts] = {
    "CIFAR10": TorchvisionFacts(
        num_classes=10, side=32, train_count=50_000, labels="targets", train=_TRAIN, class_names=_THINGS),
    "CIFAR100": TorchvisionFacts(num_classes=100, side=32, train_count=50_000, labels="targets", train=_TRAIN),
    "Caltech101": TorchvisionFacts(
        num_classes=101, side=200, train_count=8_677, labels="y", has_test=False, is_photos=True),
    "Caltech256": TorchvisionFacts(
        num_classes=257, side=300, train_count=30_607, labels="y", has_test=False, is_photos=True),
    "Country211": TorchvisionFacts(
        num_classes=211, side=300, train_count=31_650, labels="targets", train=_SPLIT, validation={"split": "valid"},
        is_photos=True),
    "DTD": TorchvisionFacts(
        num_classes=47, side=450, train_count=1_880, labels="_labels", train=_SPLIT, validation=_VAL, is_photos=True),
    "EMNIST": TorchvisionFacts(
        num_classes=47, side=28, train_count=112_800, labels="targets", train={"split": "balanced", "train": True}),
    "EuroSAT": TorchvisionFacts(
        num_classes=10, side=64, train_count=27_000, labels="targets", has_test=False,
        class_names=("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture",
                     "PermanentCrop", "Residential", "River", "SeaLake")),
    "FER2013": TorchvisionFacts(
        num_classes=7, side=48, train_count=28_709, labels="_samples", train=_SPLIT, downloads=False,
        class_names=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")),
    "FGVCAircraft": TorchvisionFacts(
        num_classes=100, side=700, train_count=3_334, labels="_labels", train=_SPLIT, validation=_VAL, is_photos=True),
    "FashionMNIST": TorchvisionFacts(
        num_classes=10, side=28, train_count=60_000, labels="targets", train=_TRAIN, class_names=_CLOTHES),
    "Flowers102": TorchvisionFacts(
        num_classes=102, side=500, train_count=1_020, labels="_labels", train=_SPLIT, validation=_VAL, is_photos=True),
    "Food101": TorchvisionFacts(
        num_classes=101, side=512, train_count=75_750, labels="_labels", train=_SPLIT, is_photos=True),
    "GTSRB": TorchvisionFacts(
        num_classes=43, side=40, train_count=26_640, labels="_samples", train=_SPLIT, is_photos=True),
    "ImageNet": TorchvisionFacts(
        num_classes=1_000, side=375, train_count=1_281_167, labels="targets", train=_SPLIT, validation=_VAL,
        has_test=False, is_photos=True, downloads=False),
    "Imagenette": TorchvisionFacts(
        num_classes=10, side=375, train_count=9_469, labels="_samples", train=_SPLIT, validation=_VAL, has_test=False,
        is_photos=True),
    "KMNIST": TorchvisionFacts(num_classes=10, side=28, train_count=60_000, labels="targets", train=_TRAIN),
    "MNIST": TorchvisionFacts(
        num_classes=10, side=28, train_count=60_000, labels="targets", train=_TRAIN, class_names=_DIGITS),
    "OxfordIIITPet": TorchvisionFacts(
        num_classes=37, side=375, train_count=3_680, labels="_labels", train={"split": "trainval"}, is_photos=True),
    "Places365": TorchvisionFacts(
        num_classes=365, side=256, train_count=1_803_460, labels="targets",
        train={"split": "train-standard", "small": True}, validation={"split": "val", "small": True},
        has_test=False, is_photos=True),
    "QMNIST": TorchvisionFacts(
        num_classes=10, side=28, train_count=60_000, labels="targets", train=_TRAIN, class_names=_DIGITS),
    "RenderedSST2": TorchvisionFacts(
        num_classes=2, side=448, train_count=6_920, labels="_samples", train=_SPLIT, validation=_VAL, is_photos=True,
        class_names=("negative", "positive")),
    "STL10": TorchvisionFacts(
        num_classes=10, side=96, train_count=5_000, labels="labels", train=_SPLIT, is_photos=True,
        class_names=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")),
    "SUN397": TorchvisionFacts(
        num_classes=397, side=500, train_count=108_754, labels="_labels", has_test=False, is_photos=True),
    "SVHN": TorchvisionFacts(
        num_classes=10, side=32, train_count=73_257, labels="labels", train=_SPLIT, class_names=_DIGITS),
    "StanfordCars": TorchvisionFacts(
        num_classes=196, side=480, train_count=8_144, labels="_samples", train=_SPLIT, is_photos=True,
        downloads=False),
    "USPS": TorchvisionFacts(
        num_classes=10, side=16, train_count=7_291, labels="targets", train=_TRAIN, class_names=_DIGITS),
}
# fmt: on
"""Every torchvision set of whole images with one label and a training part that needs no further library.

Left out: PCAM (needs h5py), INaturalist and Omniglot (no training and test part over the same classes), CelebA
(attributes, not classes). Source: the constructors of torchvision 0.29; counts as the authors of each set state them.
"""


def describe(source: str | None, *, root: Path | None) -> Dataset:
    """The facts about the images that `--data` names.

    Args:
        source: None for the embedded subset of Fashion-MNIST, `torchvision:NAME`, a folder with `train/` and
            optional `val/` and `test/` (or with the class folders directly inside), or `FILE.npz`.
        root: where torchvision keeps its files; None is `~/.cache/scalesearch`.

    Raises:
        DataError: nothing usable is there.
    """
    if source is None or source == EMBEDDED:
        return _described_embedded()
    if source.startswith(TORCHVISION_PREFIX):
        return _described_torchvision(source.removeprefix(TORCHVISION_PREFIX), root or DEFAULT_ROOT)
    path = _absolute(Path(source))
    if path.exists() and path.suffix.lower() == ".npz":
        return _described_npz(path)
    if path.is_dir():
        return _described_folder(path)
    fault = "is neither a folder nor an .npz file" if path.exists() else "does not exist"
    raise DataError(f"{path} {fault}", mend="name a folder of class folders, FILE.npz or torchvision:NAME")


def embedded_file() -> Traversable:
    """The archive shipped with the package."""
    return resources.files("scalesearch") / "data" / "fashion-mnist.npz"


def _described_embedded() -> Dataset:
    return Dataset(
        name=EMBEDDED,
        source=EMBEDDED,
        root="",
        num_classes=len(_CLOTHES),
        class_names=_CLOTHES,
        side=28,
        is_photos=False,
        train_count=10_000,
        has_validation=False,
        has_test=True,
    )


def _described_torchvision(name: str, root: Path) -> Dataset:
    facts = TORCHVISION.get(name)
    if facts is None:
        raise DataError(f"{TORCHVISION_PREFIX}{name} is not a known classification set", mend=_nearest(name))
    return Dataset(
        name=_slug(name),
        source=f"{TORCHVISION_PREFIX}{name}",
        root=str(_absolute(root)),
        num_classes=facts.num_classes,
        class_names=facts.class_names,
        side=facts.side,
        is_photos=facts.is_photos,
        train_count=facts.train_count,
        has_validation=facts.validation is not None,
        has_test=facts.has_test,
    )


def _nearest(name: str) -> str:
    lowered = {known.lower(): known for known in TORCHVISION}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f"did you mean {TORCHVISION_PREFIX}{lowered[near[0]]}?" if near else f"one of {', '.join(TORCHVISION)}"


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))


def _slug(text: str) -> str:
    """A name for folders.

    >>> _slug("My Photos (2024)"), _slug("猫")
    ('my-photos-2024', 'dataset')
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:60].strip("-") or "dataset"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


# Folders


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
        raise DataError(f"{folder} has {_few(others)}/ but no train/ with class folders", mend="add train/")
    return {"train": folder}


def subfolders(folder: Path) -> list[str]:
    """Sorted names of the folders inside, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise _unreadable(error) from error


def image_files(folder: Path) -> list[str]:
    """Sorted paths of the image files of one class, at any depth, without hidden ones."""
    found: list[str] = []
    for parent, _, names in sorted(os.walk(folder, onerror=_refuse, followlinks=True)):
        images = [name for name in names if name.lower().endswith(IMAGE_EXTENSIONS) and not name.startswith(".")]
        found += [os.path.join(parent, name) for name in sorted(images)]
    return found


def _refuse(error: OSError) -> None:
    raise _unreadable(error) from error


def _unreadable(error: OSError) -> DataError:
    return DataError(f"{error.filename} cannot be read: {error.strerror}", mend="correct its permissions")


def _described_folder(folder: Path) -> Dataset:
    parts = folder_parts(folder)
    classes = subfolders(parts["train"])
    files = _class_files(parts["train"], classes)
    for part in parts.keys() - {"train"}:
        _check_other_part(parts[part], classes)
    everything = [file for of_class in files for file in of_class]
    side, is_photos = _measured(everything)
    return Dataset(
        name=_slug(folder.name),
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


def _class_files(folder: Path, classes: Sequence[str]) -> list[list[str]]:
    if not classes:
        raise DataError(f"{folder} has no class folders", mend="put the images of each class in a folder of its own")
    if len(classes) == 1:
        raise DataError(f"{folder} has only one class, {classes[0]}", mend="add a folder for each other class")
    files = [image_files(folder / name) for name in classes]
    empty = [name for name, of_class in zip(classes, files, strict=True) if not of_class]
    if empty:
        raise DataError(
            f"{folder}: no images in {_few(empty)}", mend=f"add images ({' '.join(IMAGE_EXTENSIONS)}) or remove"
        )
    return files


def _check_other_part(folder: Path, classes: Sequence[str]) -> None:
    unknown = [name for name in subfolders(folder) if name not in classes]
    if unknown:
        raise DataError(
            f"{folder}: classes {_few(unknown)} are not in train/", mend="use the same class folders in both"
        )
    if not any(image_files(folder / name) for name in subfolders(folder)):
        raise DataError(f"{folder} has no images in class folders", mend="fill or remove it")


def _measured(files: Sequence[str]) -> tuple[int, bool]:
    """Median shorter side and whether these are photos, from the headers of a sample spread evenly over the files."""
    count = min(SAMPLE, len(files))
    sizes = [_image_size(files[index * len(files) // count]) for index in range(count)]
    width, height = sizes[0]
    is_photos = len(set(sizes)) > 1 or width != height or width > LARGEST_SMALL_SIDE
    return statistics.median_low(min(size) for size in sizes), is_photos


def _image_size(file: str) -> tuple[int, int]:
    from PIL import Image

    with reading_image(file), Image.open(file) as image:
        return image.size


@contextmanager
def reading_image(where: str) -> Iterator[None]:
    """Turns everything that Pillow raises on a damaged image into one line that names it.

    Raises:
        DataError: the image inside cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    damage = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError)
    try:
        yield
    except (*damage, struct.error, zlib.error, Image.DecompressionBombError) as error:
        reason = "its format is unknown" if isinstance(error, UnidentifiedImageError) else _first_line(error)
        raise DataError(f"{where} is not a readable image: {reason}", mend="replace or remove it") from error


def _first_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).splitlines()), type(error).__name__)


# Archives


@contextmanager
def reading_npz(where: str) -> Iterator[None]:
    """Turns everything that zipfile and numpy raise on a damaged archive into one line that names it.

    Raises:
        DataError: the archive inside cannot be read.
    """
    damage = (OSError, ValueError, KeyError, EOFError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile)
    try:
        yield
    except DataError:
        raise
    except damage as error:
        fault = f"{where} is not a readable .npz archive: {_first_line(error)}"
        raise DataError(fault, mend="write it again with numpy.savez_compressed") from error


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
        raise DataError(fault, mend=f"it holds {_few(sorted(keys)) or 'nothing'}: rename the arrays")
    return found


def _described_npz(path: Path) -> Dataset:
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
        name=_slug(path.stem),
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
    if side is None:
        fault = f"{path}: {images} has the shape {shape}"
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
            raise DataError(f"{path}: {part} labels {_few(unknown)} are not in training", mend="number them alike")


def _check_equal_sides(shapes: Mapping[Part, tuple[int, int]], path: Path) -> None:
    sides = {part: side for part, (_, side) in shapes.items()}
    if len(set(sides.values())) > 1:
        found = ", ".join(f"{part} {side} px" for part, side in sides.items())
        raise DataError(f"{path}: the sides differ: {found}", mend="resize all parts to one side")
