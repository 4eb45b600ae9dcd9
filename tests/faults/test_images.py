"""Images as nobody should hand them in: archives that lie, folders that loop, files that are no images."""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calling import Call
from judging import FULL, Harness, judge, limited
from PIL import Image
from preparing import load
from spoiling import spoiled

from scalesearch.dataset import describe
from scalesearch.errors import DataError
from scalesearch.proxy.images import open_images

PLAN = ("plan", "--step", "0.2", "--data")


@pytest.fixture
def harness(call: Call, tmp_path: Path) -> Harness:
    return Harness(call, tmp_path)


# ---- archives


class Gadget:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("ran", "w")


def array(value: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(value))
    return file.getvalue()


def header(shape: tuple[Any, ...], descr: Any = "|u1", body: bytes = b"", text: str = "") -> bytes:
    """An array file whose header says what it likes."""
    written = (text or repr({"descr": descr, "fortran_order": False, "shape": shape})).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(written).to_bytes(2, "little") + written + body


IMAGES, LABELS = array(np.zeros((8, 8, 8, 3), np.uint8)), array(np.arange(8) % 2)
LYING: dict[str, dict[str, bytes]] = {
    "pickled labels": {"train_labels.npy": array(np.array([Gadget()] * 8, object))},
    "pickled images": {"train_images.npy": array(np.array([Gadget()] * 8, object))},
    "a pickle by itself": {"train_labels.npy": pickle.dumps(Gadget())},
    "a pickle behind an object header": {"train_labels.npy": header((8,), "|O", pickle.dumps([Gadget()] * 8))},
    "huge labels": {"train_labels.npy": header((10**13,), "<i8"), "train_images.npy": header((10**13, 8, 8))},
    "huge sides": {"train_images.npy": header((8, 10**9, 10**9))},
    "more images than bytes": {"train_images.npy": header((8_000, 8, 8)), "train_labels.npy": header((8_000,), "<i8")},
    "negative shape": {"train_images.npy": header((-8, 8, 8))},
    "a shape beyond 64 bits": {"train_labels.npy": header((2**70,), "<i8")},
    "a shape of texts": {"train_images.npy": header(("8", 8, 8))},
    "a shape that is true": {"train_images.npy": header((True, True, True))},
    "no shape": {"train_images.npy": header((), text="{'descr': '|u1'}")},
    "a call for a shape": {"train_images.npy": header((), text="__import__('os').system('touch ran')")},
    "deep brackets": {"train_images.npy": header((), text="(" * 5_000)},
    "an open quote": {"train_images.npy": header((), text="{'descr': '")},
    "structured": {"train_labels.npy": header((8,), [("a", "<i4"), ("b", "<i4")], bytes(64))},
    "floats": {"train_images.npy": array(np.zeros((8, 8, 8), np.float32))},
    "complex labels": {"train_labels.npy": array(np.zeros(8, complex))},
    "texts for labels": {"train_labels.npy": array(np.array(["a"] * 8))},
    "dates for labels": {"train_labels.npy": array(np.zeros(8, "M8[s]"))},
    "labels from -1": {"train_labels.npy": array(np.arange(8) % 2 - 1)},
    "labels with a gap": {"train_labels.npy": array(np.arange(8) % 2 * 5)},
    "labels of 2^63": {"train_labels.npy": array(np.array([0, 2**63] * 4, np.uint64))},
    "one class": {"train_labels.npy": array(np.zeros(8, int))},
    "no images": {
        "train_images.npy": array(np.zeros((0, 8, 8), np.uint8)),
        "train_labels.npy": array(np.zeros(0, int)),
    },
    "oblong": {"train_images.npy": array(np.zeros((8, 8, 9), np.uint8))},
    "five axes": {"train_images.npy": array(np.zeros((8, 8, 8, 3, 1), np.uint8))},
    "another count": {"train_labels.npy": array(np.arange(7) % 2)},
    "no array": {"train_images.npy": b"no array"},
    "an empty array": {"train_labels.npy": b""},
    "version 9": {"train_images.npy": b"\x93NUMPY\x09\x00" + IMAGES[8:]},
    "validation alone": {"val_images.npy": IMAGES},
    "validation of other classes": {"val_images.npy": IMAGES, "val_labels.npy": array(np.arange(8))},
    "validation of another side": {"val_images.npy": array(np.zeros((8, 4, 4), np.uint8)), "val_labels.npy": LABELS},
}


def archived(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", LYING)
def test_an_archive_that_lies_is_refused_and_runs_nothing(name: str, harness: Harness, tmp_path: Path):
    archived(tmp_path / "x.npz", {"train_images.npy": IMAGES, "train_labels.npy": LABELS, **LYING[name]})
    assert harness.met("x.npz", *PLAN, "x.npz") == ""
    assert harness.call(*PLAN, "x.npz").code == 2
    assert not (tmp_path / "ran").exists()


def test_an_archive_that_is_none_is_refused(harness: Harness, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "empty.npz").touch()
    (tmp_path / "dangling.npz").symlink_to("nowhere")
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    for name in ("pipe", "folder", "empty", "dangling", "loop"):
        assert harness.met(f"{name}.npz", *PLAN, f"{name}.npz") == ""
        assert harness.call(*PLAN, f"{name}.npz").code == 2


# ---- folders


def decoded(folder: Path, out: Path) -> str:
    """Why a folder of images cannot be decoded; empty if it can."""
    try:
        with limited():
            load(describe(str(folder), root=None), out, images=None, validation=2, side=8)
    except DataError as error:
        return str(error)
    return ""


HOSTILE = (
    "\x1b[31mred",
    "two\nlines",
    "[red]",
    "\u202eback",
    "猫",
    "x" * 255,
    "a'b\"c",
    "$(touch ran)",
    "-rf",
    " ",
    "%s{0}",
)


def picture(side: int, seed: int, kind: str = "png") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def folder_of(place: Path, classes: tuple[str, ...] = ("a", "b"), count: int = 4, kind: str = "png") -> Path:
    for number, name in enumerate(classes):
        (place / name).mkdir(parents=True)
        for index in range(count):
            (place / name / f"{index}.{kind}").write_bytes(picture(8, 10 * number + index, kind))
    return place


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_is_told_as_plain_text(name: str, harness: Harness, tmp_path: Path):
    folder_of(tmp_path / "images", (name, "b"))
    assert harness.met("images", *PLAN, "images") == ""
    (tmp_path / "images" / name / "0.png").write_bytes(b"")
    assert harness.met(name, *PLAN, "images") == ""
    folder_of(tmp_path / name, ("only",))
    assert harness.met(name.strip() or "dataset's name", *PLAN, name if name != "-rf" else "./-rf") == ""
    assert not (tmp_path / "ran").exists()


def test_circles_of_links_end(harness: Harness, tmp_path: Path):
    folder = folder_of(tmp_path / "images")
    for name in ("up", "again"):
        (folder / "a" / name).symlink_to(folder)
        (folder / "b" / name).symlink_to(folder / "a")
    (folder / "a" / "itself").symlink_to(folder / "a" / "itself")
    assert harness.met("images", *PLAN, "images", "--images", "256") == ""


ODD: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "nothing": Path.touch,
    "a text": lambda path: path.write_text("no image"),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "half an image": lambda path: path.write_bytes(picture(8, 0)[:60]),
    "a header alone": lambda path: path.write_bytes(picture(8, 0)[:20]),
    "a bomb of many pixels": lambda path: path.write_bytes(bomb(60_000)),
    "almost a bomb": lambda path: path.write_bytes(bomb(11_000)),
    "an image of no size": lambda path: path.write_bytes(bomb(0)),
    "an archive": lambda path: archived(path, {"x": b""}),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Gadget())),
    "a vector": lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "postscript": lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ran) (w) file\n"),
}


def bomb(side: int) -> bytes:
    """A small PNG whose header promises so many pixels a side."""
    content = bytearray(picture(8, 0))
    content[16:24] = side.to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("ignore:Image size")
def test_what_is_no_image_is_named_or_left_out(name: str, harness: Harness, tmp_path: Path):
    folder = folder_of(tmp_path / "images")
    ODD[name](folder / "a" / "odd.png")
    assert harness.met("images", *PLAN, "images") == ""
    told = decoded(folder, tmp_path / "out")
    assert told == "" if name == "a folder" else "odd.png" in told
    assert not (tmp_path / "ran").exists()


def test_folders_that_hold_nothing_are_named(harness: Harness, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    folder_of(tmp_path / "one", ("only",))
    (folder_of(tmp_path / "hollow") / "c").mkdir()
    (folder_of(tmp_path / "parts/train").parent / "val").mkdir()
    folder_of(tmp_path / "test-only/test")
    (tmp_path / "pipe").parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "pipe")
    for name in ("empty", "one", "hollow", "parts", "test-only", "pipe", "/dev/null", "/dev/zero", "nowhere", "/proc"):
        assert harness.met(name, *PLAN, name) == ""
        assert harness.call(*PLAN, name).code == 2


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore:Image size")
@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "webp", "tiff", "ppm"])
def test_a_spoilt_image_is_named_or_decoded(kind: str, tmp_path: Path, record_property: Callable[[str, object], None]):
    """Through the functions that the command calls, because a command would train on what can be decoded."""
    folder = folder_of(tmp_path / "images", kind=kind)
    valid = picture(8, 1, kind)
    count, found = 250 if FULL else 6, []
    for seed in range(count):
        (folder / "a" / f"0.{kind}").write_bytes(spoiled(valid, seed))
        try:
            told = decoded(folder, tmp_path / "out")
            found.append((str(seed), "" if not told or (f"0.{kind}" in told and "\n" not in told) else told))
        except Exception as error:  # noqa: BLE001
            found.append((str(seed), repr(error)))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    judge(found, record_property, count)


# ---- prepared images


@pytest.mark.parametrize("name", ["images.json", "train_images.npy", "validation_labels.npy"])
def test_prepared_images_that_are_spoilt_are_not_taken(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
):
    """Through the function that a run calls, which then decodes again."""
    folder = folder_of(tmp_path / "images")
    images = load(describe(str(folder), root=None), tmp_path / "out", images=None, validation=2, side=8)
    place = tmp_path / "out" / name
    valid, count, found = place.read_bytes(), 400 if FULL else 20, []
    for seed in range(count):
        place.write_bytes(spoiled(valid, seed))
        try:
            with limited():
                taken = open_images(tmp_path / "out", verify=True).fingerprint
            found.append((str(seed), "" if taken == images.fingerprint else "other images are taken"))
        except DataError as error:
            found.append((str(seed), "" if str(tmp_path / "out") in str(error) else str(error)))
        except Exception as error:  # noqa: BLE001
            found.append((str(seed), repr(error)))
    judge(found, record_property, count)


@pytest.mark.parametrize("content", ["[" * 100_000, json.dumps({"shapes": {}}), "[]", "null", '{"shapes": 1}'])
def test_a_summary_that_is_none_is_refused(content: str, tmp_path: Path):
    (tmp_path / "images.json").write_text(content)
    with pytest.raises(DataError, match="does not hold the images of a study"):
        open_images(tmp_path)
