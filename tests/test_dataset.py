"""What `--data` means, without torch: facts of every kind of source, and one clear line for each fault."""

import contextlib
import hashlib
import importlib
import inspect
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import scalesearch
from scalesearch.dataset import Dataset, describe, folders
from scalesearch.dataset.embedded import embedded_file
from scalesearch.dataset.torchvision_sets import TORCHVISION
from scalesearch.dataset.value import LARGEST_SMALL_SIDE, slug
from scalesearch.errors import DataError


def draw(path: Path, size=(12, 12), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,)}[mode]
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (size[1], size[0], *channels), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pets(folder: Path, *, parts=("train",), size=(12, 12), count=3):
    for part in parts:
        for name in ("cat", "dog"):
            for index in range(count):
                draw(folder / part / name / f"{index}.png", size)
    return folder


def arrays(count=6, classes=3, shape=(8, 8), prefix="train"):
    labels = np.arange(count) % classes
    return {f"{prefix}_images": np.zeros((count, *shape), np.uint8), f"{prefix}_labels": labels}


def pack(path: Path, **members):
    np.savez_compressed(path, **members)
    return str(path)


def fault(source) -> str:
    with pytest.raises(DataError) as caught:
        describe(str(source), root=None)
    assert caught.value.mend
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The embedded images


def test_no_source_is_the_embedded_subset_and_its_source_leads_back_to_it():
    found = describe(None, root=None)
    assert (found.name, found.kind, found.side, found.is_photos) == ("fashion-mnist", "embedded", 28, False)
    assert describe(found.source, root=None) == found


def test_the_facts_of_the_embedded_subset_are_those_of_the_shipped_file(tmp_path):
    copy = tmp_path / "fashion-mnist.npz"
    copy.write_bytes(embedded_file().read_bytes())
    stated, read = describe(None, root=None).to_dict(), describe(str(copy), root=None).to_dict()
    assert {key for key in stated if stated[key] != read[key]} == {"source", "class_names"}


def test_the_shipped_file_is_balanced_small_and_documented():
    content = embedded_file().read_bytes()
    about = (Path(scalesearch.__file__).parent / "data" / "fashion-mnist.md").read_text(encoding="utf-8")
    assert len(content) <= 6_000_000
    assert hashlib.sha256(content).hexdigest() in about
    assert all(name in about for name in describe(None, root=None).class_names)
    with np.load(io.BytesIO(content), allow_pickle=False) as held:
        assert np.bincount(held["train_labels"]).tolist() == [1000] * 10
        assert np.bincount(held["test_labels"]).tolist() == [250] * 10
        assert held["train_images"].shape == (10_000, 28, 28)


def test_describing_imports_no_heavy_library(tmp_path):
    folder = pets(tmp_path / "pets")
    code = f"""
import sys
from scalesearch.dataset import describe
for source in (None, {str(folder)!r}, "torchvision:CIFAR10"):
    describe(source, root=None)
heavy = {{"torch", "torchvision", "numpy", "pandas", "scipy"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# Dict form


@pytest.mark.parametrize("source", [None, "torchvision:CIFAR10"])
def test_a_dataset_survives_json(source):
    found = describe(source, root=Path("somewhere"))
    assert Dataset.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_dict_with_another_key_is_refused():
    values = describe(None, root=None).to_dict()
    with pytest.raises(DataError, match="colour"):
        Dataset.from_dict({**values, "colour": True})
    with pytest.raises(DataError, match="num_classes = 1"):
        Dataset.from_dict({**values, "num_classes": 1})


@given(st.text(max_size=100))
def test_a_name_is_safe_in_a_path(text):
    name = slug(text)
    assert 1 <= len(name) <= 60
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


# torchvision


def test_a_torchvision_set_is_known_without_its_files(tmp_path):
    found = describe("torchvision:CIFAR10", root=tmp_path)
    assert (found.name, found.root, found.num_classes, found.side) == ("cifar10", str(tmp_path), 10, 32)
    assert not list(tmp_path.iterdir())


def test_a_relative_root_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert describe("torchvision:MNIST", root=Path("here")).root == str(tmp_path / "here")


@pytest.mark.parametrize(("given_name", "meant"), [("cifar10", "CIFAR10"), ("Food-101", "Food101"), ("Mnst", "MNIST")])
def test_a_misspelt_set_is_answered_with_the_nearest(given_name, meant):
    assert f"did you mean torchvision:{meant}?" in fault(f"torchvision:{given_name}")


def test_a_set_like_no_other_is_answered_with_the_list():
    assert "CIFAR10, CIFAR100" in fault("torchvision:zzzzzzzz")


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_table_fits_the_installed_torchvision(name):
    facts = TORCHVISION[name]
    kind = getattr(importlib.import_module("torchvision.datasets"), name)
    signature = inspect.signature(kind.__init__)
    sources = "".join(inspect.getsource(inspect.getmodule(base)) for base in kind.__mro__[:-1])
    for arguments in (facts.train, facts.validation or facts.train):
        signature.bind(None, "root", **arguments, **({"download": True} if facts.downloads else {}))
        assert f'"{arguments["split"]}"' in sources if "split" in arguments else True
    assert f"self.{facts.labels}" in sources


@pytest.mark.parametrize("name", TORCHVISION)
def test_every_set_of_the_table_is_described(name, tmp_path):
    found = describe(f"torchvision:{name}", root=tmp_path)
    assert found.is_photos or found.side <= LARGEST_SMALL_SIDE
    assert len(found.class_names) in (0, found.num_classes)


def test_the_extensions_are_those_of_torchvision():
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert sorted(folders.IMAGE_EXTENSIONS) == sorted(IMG_EXTENSIONS)


# Folders


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_a_folder_with_parts_is_described(tmp_path, validation):
    found = describe(str(pets(tmp_path / "My Pets", parts=("train", validation, "test"))), root=None)
    assert (found.name, found.kind, found.class_names) == ("my-pets", "folder", ("cat", "dog"))
    assert (found.train_count, found.side, found.is_photos) == (6, 12, False)
    assert (found.has_validation, found.has_test) == (True, True)
    assert describe(found.source, root=None) == found


def test_class_folders_directly_inside_are_one_part(tmp_path):
    found = describe(str(pets(tmp_path) / "train"), root=None)
    assert (found.class_names, found.has_validation, found.has_test) == (("cat", "dog"), False, False)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("car", "plane", "train"):
        draw(tmp_path / name / "1.png")
    assert describe(str(tmp_path), root=None).class_names == ("car", "plane", "train")


def test_hidden_files_and_folders_are_no_images(tmp_path):
    folder = pets(tmp_path)
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "cat" / "._0.png").write_bytes(b"\0")
    assert describe(str(folder), root=None).train_count == 6


def test_a_relative_folder_and_a_home_folder_become_absolute(tmp_path, monkeypatch):
    pets(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    sources = {describe(source, root=None).source for source in ("pets", "./pets/../pets", "~/pets")}
    assert sources == {str(tmp_path / "pets")}


@pytest.mark.parametrize(("size", "side"), [((65, 65), 65), ((20, 30), 20), ((640, 480), 480)])
def test_large_or_oblong_images_are_photos(tmp_path, size, side):
    found = describe(str(pets(tmp_path, size=size, count=1)), root=None)
    assert (found.is_photos, found.side) == (True, side)


def test_images_of_different_sizes_are_photos_of_the_median_shorter_side(tmp_path):
    pets(tmp_path, size=(30, 20), count=2)
    draw(tmp_path / "train" / "dog" / "other.jpg", (40, 64))
    found = describe(str(tmp_path), root=None)
    assert (found.is_photos, found.side) == (True, 20)


def test_only_a_sample_of_the_headers_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "SAMPLE", 2)
    pets(tmp_path, count=4)
    (tmp_path / "train" / "cat" / "1.png").write_bytes(b"never opened")
    assert describe(str(tmp_path), root=None).train_count == 8


def test_a_folder_fault_names_the_place_and_the_mend(tmp_path):
    assert "does not exist" in fault(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("text")
    assert "neither a folder nor an .npz file" in fault(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    assert "no class folders" in fault(tmp_path / "empty")
    draw(tmp_path / "one" / "train" / "cat" / "1.png")
    assert "only one class, cat" in fault(tmp_path / "one")


def test_an_empty_class_is_named(tmp_path):
    (pets(tmp_path) / "train" / "eel").mkdir()
    assert "no images in eel" in fault(tmp_path)


def test_a_validation_class_that_training_lacks_is_named(tmp_path):
    draw(pets(tmp_path) / "val" / "owl" / "1.png")
    assert "classes owl are not in train/" in fault(tmp_path)


def test_an_empty_validation_part_is_a_fault(tmp_path):
    (pets(tmp_path) / "val" / "cat").mkdir(parents=True)
    assert "no images in class folders" in fault(tmp_path)


def test_parts_without_training_are_a_fault(tmp_path):
    assert "but no train/" in fault(pets(tmp_path, parts=("test", "val")))
    (tmp_path / "train").mkdir()
    assert "no class folders" in fault(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_an_image_without_a_header_is_named(tmp_path, content):
    (pets(tmp_path) / "train" / "cat" / "0.png").write_bytes(content)
    message = fault(tmp_path)
    assert "0.png is not a readable image" in message
    assert message.count("0.png") == 1


def test_a_bomb_of_a_header_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert "decompression bomb" in fault(pets(tmp_path))


# Archives


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3), (3, 8, 8)])
def test_every_layout_of_pixels_is_described(tmp_path, shape):
    found = describe(pack(tmp_path / "Tiny Set.npz", **arrays(shape=shape)), root=None)
    assert (found.name, found.kind, found.num_classes, found.side) == ("tiny-set", "npz", 3, 8)
    assert (found.train_count, found.has_validation, found.has_test) == (6, False, False)


def test_keras_names_and_columns_of_labels_are_understood(tmp_path):
    train, test = arrays(), arrays(count=3)
    members = {"x_train": train["train_images"], "y_train": train["train_labels"].reshape(-1, 1)}
    members |= {"x_test": test["train_images"], "y_test": test["train_labels"]}
    found = describe(pack(tmp_path / "k.npz", **members), root=None)
    assert (found.num_classes, found.has_validation, found.has_test) == (3, False, True)


def test_large_arrays_are_photos(tmp_path):
    assert describe(pack(tmp_path / "a.npz", **arrays(shape=(65, 65))), root=None).is_photos


GOOD = arrays()
BAD_ARCHIVES = {
    "has no train_images and train_labels": {"images": GOOD["train_images"]},
    "has no train_labels": {"train_images": GOOD["train_images"]},
    "has no val_images": {**GOOD, "val_labels": GOOD["train_labels"]},
    "train_images is float64": {**GOOD, "train_images": np.zeros((6, 8, 8))},
    "train_images is object": {**GOOD, "train_images": np.array([[[{}]]] * 6)},
    "train_images has the shape (6, 8, 9)": arrays(shape=(8, 9)),
    "train_images has the shape (6, 8)": arrays(shape=(8,)),
    "train_images has the shape (0, 8, 8), which is empty": arrays(count=0),
    "train_images has the shape (0, 32, 32, 3), which is empty; store at least one": arrays(count=0, shape=(32, 32, 3)),
    "train_labels has the shape (5,) for 6 images": {**GOOD, "train_labels": np.arange(5)},
    "train_labels is float64": {**GOOD, "train_labels": np.zeros(6)},
    "train_labels is object": {**GOOD, "train_labels": np.array([{}] * 6)},
    "3 training labels from 1 to 3": {**GOOD, "train_labels": np.arange(6) % 3 + 1},
    "3 training labels from -1 to 1": {**GOOD, "train_labels": np.arange(6) % 3 - 1},
    "2 training labels from 0 to 1000000000000": {**GOOD, "train_labels": np.array([0, 10**12] * 3)},
    "only one class, 0": arrays(classes=1),
    "test labels 3 are not in training": {**GOOD, **arrays(classes=4, prefix="test")},
    "the sides differ: train 8 px, test 9 px": {**GOOD, **arrays(shape=(9, 9), prefix="test")},
}


@pytest.mark.parametrize("message", BAD_ARCHIVES)
def test_an_unusable_archive_says_why(tmp_path, message):
    path = pack(tmp_path / "bad.npz", **BAD_ARCHIVES[message])
    assert f"{path}" in fault(path)
    assert message in fault(path)


def test_a_file_that_is_no_archive_says_so(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    assert "not a readable .npz archive" in fault(tmp_path / "folder.npz")
    path = tmp_path / "a.npz"
    for content in (b"", b"not a zip", b"PK\x03\x04"):
        path.write_bytes(content)
        assert "not a readable .npz archive" in fault(path)


def test_an_archive_of_something_else_says_what_is_missing(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "text")
    assert "it holds readme.txt" in fault(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_archive_is_one_clear_line_or_still_a_dataset(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    pack(path, **GOOD)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    if not zipfile.is_zipfile(path):
        assert "not a readable .npz archive" in fault(path)
    else:
        with contextlib.suppress(DataError):
            describe(str(path), root=None)
