"""Images as they are read: which ones, how they look, what damage says, and the way to the workers."""

import contextlib
import io
import json
import struct
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from preparing import load, load_test, loaded, save

from scalesearch.dataset import describe
from scalesearch.dataset.embedded import embedded_file
from scalesearch.dataset.torchvision_sets import TORCHVISION
from scalesearch.errors import DataError
from scalesearch.proxy import decoding
from scalesearch.proxy import pixels as module
from scalesearch.proxy.choice import split, stratified
from scalesearch.proxy.images import ARRAYS, SUMMARY, fingerprinted, open_images

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=300).map(np.array)


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def pets(folder: Path, *, parts=("train",), count=10, shape=(12, 12, 3), suffix="png"):
    for part in parts:
        for label, name in enumerate(("cat", "dog")):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                image = Image.fromarray(pixels(*shape, seed=1000 * label + index))
                image.save(folder / part / name / f"{index:02d}.{suffix}")
    return folder


def with_test(dataset, images, *, side=64):
    with TemporaryDirectory() as folder:
        save(images, Path(folder) / "data")
        return load_test(dataset, Path(folder) / "test", Path(folder) / "data", side=side)


def read(source, *, root=None, **options):
    return loaded(describe(source if source is None else str(source), root=root), **options)


def fault(source, **options) -> str:
    with pytest.raises(DataError) as caught:
        read(source, **options)
    assert caught.value.mend
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_test_part(source, *, side=64, root=None, validation=4):
    """What a study trains on, and the same with the test part."""
    found = describe(source if source is None else str(source), root=root)
    images = loaded(found, validation=validation, side=side)
    return images, with_test(found, images, side=side)


def fault_of_test(source, **options) -> str:
    with pytest.raises(DataError) as caught:
        with_test_part(source, **options)
    assert caught.value.mend
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(left, right) -> bool:
    arrays = all(np.array_equal(getattr(left, name), getattr(right, name)) for name in ARRAYS)
    return arrays and left.fingerprint == right.fingerprint


# Which images


@given(LABELS, st.integers(0, 400))
def test_a_stratified_choice_is_proportional_within_one_and_leaves_no_class_out(labels, count):
    chosen = stratified(labels, count)
    sizes, taken = np.bincount(labels), np.bincount(labels[chosen], minlength=labels.max() + 1)
    ideal = sizes * min(count, len(labels)) / len(labels)
    assert np.all(np.abs(taken - ideal) <= 1)
    assert np.all(taken[sizes > 0] >= 1)
    assert np.all(np.diff(chosen) > 0)
    assert len(chosen) <= count + np.count_nonzero(sizes)


@given(LABELS, st.integers(0, 400))
def test_a_choice_of_enough_images_has_exactly_that_many(labels, count):
    rarest = np.bincount(labels)[np.unique(labels)].min()
    if rarest * min(count, len(labels)) >= len(labels):
        assert len(stratified(labels, count)) == min(count, len(labels))


@given(LABELS, st.integers(0, 400))
def test_a_split_is_disjoint_whole_and_at_most_a_fifth(labels, validation):
    labels = np.concatenate([labels, labels])  # no class of one image
    kept, held = split(labels, validation)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert len(held) <= min(validation, len(labels) // 5) + len(np.unique(labels))
    assert set(labels[held]) == set(labels[kept]) == set(labels)


def test_a_split_never_changes():
    labels = np.arange(100) % 4
    assert split(labels, 8)[1].tolist() == [23, 24, 26, 28, 31, 74, 89, 93]


def test_a_class_of_one_image_cannot_be_split():
    with pytest.raises(DataError, match="class 1 has one training image"):
        split(np.array([0, 0, 0, 1]), 2)


def test_the_embedded_images_are_read_as_they_are():
    everything = read(None, validation=500)
    assert everything.train_images.shape == (9500, 1, 28, 28)
    assert everything.validation_images.shape == (500, 1, 28, 28)
    assert np.bincount(everything.validation_labels).tolist() == [50] * 10
    assert everything.train_labels.dtype == np.int64


def test_validation_is_the_same_however_many_images_are_trained_on():
    few, many = read(None, images=100, validation=60), read(None, images=3000, validation=60)
    assert np.array_equal(few.validation_images, many.validation_images)
    assert np.bincount(few.train_labels).tolist() == [10] * 10
    assert few.fingerprint != many.fingerprint


def test_reading_twice_gives_the_same_bits():
    assert same(read(None, images=200), read(None, images=200))


def test_more_images_than_there_are_is_all_of_them(tmp_path):
    assert same(read(pets(tmp_path), images=10**6), read(tmp_path))


def test_validation_takes_at_most_a_fifth(tmp_path):
    found = read(pets(tmp_path), validation=1000)
    assert (len(found.train_images), len(found.validation_images)) == (16, 4)


def test_a_validation_part_of_its_own_leaves_training_whole(tmp_path):
    found = read(pets(tmp_path, parts=("train", "val")), validation=8)
    assert (len(found.train_images), len(found.validation_images)) == (20, 8)
    assert np.bincount(found.validation_labels).tolist() == [4, 4]


def test_a_study_keeps_the_fingerprint_that_its_choice_had_before():
    with np.load(io.BytesIO(embedded_file().read_bytes())) as held:
        images, labels = held["train_images"][:, None], held["train_labels"].astype(np.int64)
    kept, chosen = split(labels, 60)
    used = kept[stratified(labels[kept], 100)]
    arrays = dict(zip(ARRAYS, (images[used], labels[used], images[chosen], labels[chosen]), strict=True))
    assert read(None, images=100, validation=60).fingerprint == fingerprinted(**arrays).fingerprint


def test_the_test_part_is_not_read_with_what_a_study_chooses_by(tmp_path):
    pets(tmp_path, parts=("train", "val", "test"))
    for file in (tmp_path / "test").rglob("*.png"):
        file.write_bytes(b"")
    assert len(read(tmp_path).train_images) == 20


def test_only_the_chosen_images_are_decoded(tmp_path, monkeypatch):
    opened = []
    original = decoding.read
    monkeypatch.setattr(decoding, "read", lambda *given: opened.append(1) or original(*given))
    read(pets(tmp_path, count=50), images=6, validation=2)
    assert len(opened) == 8


# How they look


def test_lossless_colour_images_keep_their_pixels(tmp_path):
    found = read(pets(tmp_path, parts=("train", "val")), validation=20)
    assert found.train_images.shape == (20, 3, 12, 12)
    assert np.array_equal(found.train_images[0], pixels(12, 12, 3, seed=0).transpose(2, 0, 1))
    assert np.array_equal(found.train_images[10], pixels(12, 12, 3, seed=1000).transpose(2, 0, 1))
    assert found.train_labels.tolist() == [0] * 10 + [1] * 10


def test_small_images_are_never_enlarged_and_are_reduced_on_demand(tmp_path):
    pets(tmp_path)
    assert read(tmp_path, side=100).train_images.shape[-1] == 12
    assert read(tmp_path, side=8).train_images.shape[-1] == 8


def test_photos_are_the_central_square_at_the_side_asked_for(tmp_path):
    for name, colour in (("cat", (200, 0, 0)), ("dog", (0, 0, 200))):
        (tmp_path / name).mkdir()
        for index in range(4):
            image = Image.new("RGB", (300, 100), (0, 255, 0))
            image.paste(colour, (100, 0, 200, 100))
            image.save(tmp_path / name / f"{index}.jpg", quality=95)
    found = read(tmp_path, side=32)
    assert found.train_images.shape == (6, 3, 32, 32)
    inner = found.train_images[found.train_labels == 0][..., 4:-4, 4:-4].astype(int)
    assert np.abs(inner - np.array([200, 0, 0]).reshape(1, 3, 1, 1)).max() < 12


def test_grey_images_keep_one_channel(tmp_path):
    found = read(pets(tmp_path, shape=(12, 12)))
    assert found.train_images.shape[1] == found.validation_images.shape[1] == 1


@pytest.mark.parametrize("part", ["train", "val"])
def test_one_colour_image_among_grey_ones_makes_all_of_them_colour(tmp_path, part):
    pets(tmp_path, shape=(12, 12), parts=("train", "val"))
    Image.new("RGB", (12, 12), (9, 8, 7)).save(tmp_path / part / "cat" / "03.png")
    found = read(tmp_path, validation=20)
    assert found.train_images.shape[1] == found.validation_images.shape[1] == 3
    assert np.array_equal(found.train_images[0, 0], found.train_images[0, 2])
    images = found.train_images if part == "train" else found.validation_images
    assert images[3, :, 0, 0].tolist() == [9, 8, 7]


def palette_with_transparency() -> Image.Image:
    image = Image.new("P", (12, 12), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.info["transparency"] = b"\x00\x80"
    return image


MODES = {
    "palette": (palette_with_transparency(), "png", [10, 20, 30]),
    "transparent": (Image.new("RGBA", (12, 12), (10, 20, 30, 0)), "png", [10, 20, 30]),
    "grey and alpha": (Image.new("LA", (12, 12), (40, 0)), "png", [40]),
    "black and white": (Image.new("1", (12, 12), 1), "png", [255]),
    "16-bit grey": (Image.fromarray(np.full((12, 12), 40 * 257, np.uint16)), "png", [40]),
    "32-bit grey": (Image.fromarray(np.full((12, 12), 40 * 257, np.int32)), "tif", [40]),
    "printing colours": (Image.new("CMYK", (12, 12), (255, 0, 255, 0)), "tif", [0, 255, 0]),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_pixel_becomes_grey_or_rgb(tmp_path, mode):
    image, suffix, colour = MODES[mode]
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(3):
            image.save(tmp_path / name / f"{index}.{suffix}")
    assert read(tmp_path, validation=1).train_images[0, :, 5, 5].tolist() == colour


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3), (3, 8, 8)])
def test_every_layout_of_an_archive_keeps_its_pixels(tmp_path, shape):
    images, labels = pixels(20, *shape), np.arange(20).reshape(-1, 1) % 2
    members = {"x_train": images, "y_train": labels, "x_val": images[:4], "y_val": labels[:4]}
    np.savez_compressed(tmp_path / "a.npz", **members)
    found = read(tmp_path / "a.npz")
    channels_last = images.transpose(0, 2, 3, 1) if shape[0] == 3 else images.reshape(20, 8, 8, -1)
    assert np.array_equal(found.train_images, channels_last.transpose(0, 3, 1, 2))
    assert found.train_labels.tolist() == [0, 1] * 10


# torchvision


def idx(array) -> bytes:
    """Source: http://yann.lecun.com/exdb/mnist, the IDX format of unsigned bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def idx_folder(raw: Path, *, count=50):
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels(count, 28, 28)))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_a_torchvision_set_in_its_own_format_is_read(tmp_path, name):
    idx_folder(tmp_path / name / "raw")
    found = read(f"torchvision:{name}", root=tmp_path, validation=10)
    assert found.train_images.shape == (40, 1, 28, 28)
    assert np.array_equal(found.train_images[0, 0], pixels(50, 28, 28)[split(np.arange(50) % 10, 10)[0][0]])
    assert np.bincount(found.validation_labels).tolist() == [1] * 10


def test_labels_kept_in_pairs_with_files_are_read(tmp_path):
    for split_name in ("train", "val"):
        for wnid in ("n01440764", "n02102040"):
            folder = tmp_path / "imagenette2" / split_name / wnid
            folder.mkdir(parents=True)
            for index in range(3):
                Image.fromarray(pixels(80, 90, 3, seed=index)).save(folder / f"{index}.jpeg")
    found = read("torchvision:Imagenette", root=tmp_path, side=32)
    assert found.train_images.shape == (6, 3, 32, 32)
    assert (found.train_labels.tolist(), found.validation_labels.tolist()) == ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])


def test_a_missing_torchvision_set_asks_for_download(tmp_path):
    message = fault("torchvision:CIFAR10", root=tmp_path)
    assert "cannot be read from" in message
    assert message.endswith("; name its folder with --data-root DIR, or add --download to fetch it")


def test_a_set_that_torchvision_cannot_download_says_so(tmp_path):
    assert "put its files there by hand" in fault("torchvision:FER2013", root=tmp_path, download=True)


def test_a_damaged_torchvision_set_names_the_place(tmp_path):
    idx_folder(tmp_path / "MNIST" / "raw")
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:100])
    assert f"torchvision:MNIST cannot be read from {tmp_path}" in fault("torchvision:MNIST", root=tmp_path)


# The test part


def test_the_embedded_test_part_comes_whole_and_training_stays():
    images, found = with_test_part(None, validation=60)
    with np.load(io.BytesIO(embedded_file().read_bytes())) as held:
        assert np.array_equal(found.validation_images[:, 0], held["test_images"])
        assert np.array_equal(found.validation_labels, held["test_labels"])
    assert found.validation_images.shape == (2500, 1, 28, 28)
    assert found.validation_labels.dtype == np.int64
    assert np.array_equal(found.train_images, images.train_images)
    assert np.array_equal(found.train_labels, images.train_labels)


def test_the_test_part_has_a_fingerprint_of_its_own_and_reaches_the_workers(tmp_path):
    images, found = with_test_part(None, validation=60)
    assert found.fingerprint != images.fingerprint
    save(images, tmp_path / "data")
    load_test(describe(None, root=None), tmp_path / "test", tmp_path / "data", side=64)
    assert same(open_images(tmp_path / "test", verify=True), found)


def test_training_images_beside_the_test_part_take_no_room_of_their_own(tmp_path):
    pets(tmp_path / "pets", parts=("train", "test"))
    described = describe(str(tmp_path / "pets"), root=None)
    load(described, tmp_path / "data", images=None, validation=4, side=64)
    found = load_test(described, tmp_path / "test", tmp_path / "data", side=64)
    assert same(found, with_test_part(tmp_path / "pets")[1])
    assert (tmp_path / "test" / "train_images.npy").samefile(tmp_path / "data" / "train_images.npy")


def test_the_test_part_of_a_folder_is_all_of_its_images_in_the_classes_of_training(tmp_path):
    pets(tmp_path, parts=("train", "val"))
    for index in range(7):
        file = tmp_path / "test" / "dog" / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(12, 12, 3, seed=50 + index)).save(file)
    _, found = with_test_part(tmp_path)
    assert found.validation_labels.tolist() == [1] * 7
    assert np.array_equal(found.validation_images[3], pixels(12, 12, 3, seed=53).transpose(2, 0, 1))


def test_photos_of_the_test_part_are_brought_to_the_side_of_training(tmp_path):
    pets(tmp_path, parts=("train", "test"), shape=(90, 120, 3), suffix="jpg")
    images, found = with_test_part(tmp_path, side=40)
    assert images.train_images.shape[1:] == found.validation_images.shape[1:] == (3, 40, 40)
    assert found.validation_images.shape[0] == 20


@pytest.mark.parametrize("names", [("train_{}", "test_{}"), ("x_train", "x_test")])
def test_the_test_part_of_an_archive_is_read(tmp_path, names):
    pairs = [(name.format("images"), name.format("labels").replace("x_", "y_")) for name in names]
    arrays = {}
    for (images, labels), count in zip(pairs, (20, 6), strict=True):
        arrays |= {images: pixels(count, 8, 8, 3, seed=count), labels: np.arange(count) % 2}
    np.savez(tmp_path / "a.npz", **arrays)
    _, found = with_test_part(tmp_path / "a.npz")
    assert np.array_equal(found.validation_images, pixels(6, 8, 8, 3, seed=6).transpose(0, 3, 1, 2))
    assert found.validation_labels.tolist() == [0, 1] * 3


def test_another_side_than_that_of_training_is_refused(tmp_path):
    found = describe(str(pets(tmp_path, parts=("train", "test"))), root=None)
    images = loaded(found, validation=4, side=8)
    with pytest.raises(DataError, match="the training images are 8 px, the test images would be 10 px"):
        with_test(found, images, side=10)


def test_grey_test_images_beside_colour_are_colour(tmp_path):
    pets(tmp_path, parts=("train",))
    pets(tmp_path, parts=("test",), shape=(12, 12))
    _, found = with_test_part(tmp_path)
    assert found.validation_images.shape == (20, 3, 12, 12)
    assert np.array_equal(found.validation_images[0, 2], pixels(12, 12, seed=0))


def test_grey_test_images_stored_as_colour_are_grey_beside_grey(tmp_path):
    pets(tmp_path, parts=("train", "test"), shape=(12, 12))
    for file in (tmp_path / "test").rglob("*.png"):
        Image.open(file).convert("RGB").save(file)
    _, found = with_test_part(tmp_path)
    assert found.validation_images.shape == (20, 1, 12, 12)
    assert np.array_equal(found.validation_images[0, 0], pixels(12, 12, seed=0))


def test_coloured_test_images_beside_grey_training_are_refused(tmp_path):
    pets(tmp_path, parts=("train", "test"), shape=(12, 12))
    for name in ("cat/04.png", "dog/00.png"):
        Image.new("RGB", (12, 12), (9, 8, 9)).save(tmp_path / "test" / name)
    message = fault_of_test(tmp_path)
    assert f"the training images are grey, but not 2 of 20 test images, first {tmp_path}/test/cat/04.png" in message


def test_a_dataset_without_a_test_part_says_so(tmp_path):
    assert f"{tmp_path} has no test part; add one" in fault_of_test(pets(tmp_path))


def test_a_test_part_that_is_gone_or_empty_by_now_says_so(tmp_path):
    found = describe(str(pets(tmp_path / "pets", parts=("train", "test"))), root=None)
    images = loaded(found, validation=4, side=8)
    for file in (tmp_path / "pets" / "test").rglob("*.png"):
        file.unlink()
    with pytest.raises(DataError, match=r"test part has no images; the data changed .* plan again"):
        with_test(found, images, side=8)
    (tmp_path / "pets" / "test").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="has no test part any more"):
        with_test(found, images, side=8)


def test_an_archive_that_lost_its_test_part_or_has_other_labels_by_now_says_so(tmp_path):
    path = tmp_path / "a.npz"
    train = {"train_images": pixels(20, 8, 8), "train_labels": np.arange(20) % 2}
    test = {"test_images": pixels(4, 8, 8), "test_labels": np.array([0, 1, 1, 0])}
    np.savez(path, **train, **test)
    found = describe(str(path), root=None)
    images = loaded(found, validation=4, side=8)
    for label in (2, -1):
        np.savez(path, **train, **(test | {"test_labels": np.array([0, 1, label, 0])}))
        with pytest.raises(DataError, match=r"test labels are not in 0\.\.1"):
            with_test(found, images, side=8)
    np.savez(path, **train, test_images=pixels(0, 8, 8), test_labels=np.zeros(0, np.int64))
    with pytest.raises(DataError, match="test part has no images"):
        with_test(found, images, side=8)
    np.savez(path, **train)
    with pytest.raises(DataError, match=r"a\.npz has no test part any more"):
        with_test(found, images, side=8)
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match=r"not a readable \.npz archive"):
        with_test(found, images, side=8)


def test_every_damaged_test_image_is_counted(tmp_path):
    pets(tmp_path, parts=("train", "test"))
    for file in (tmp_path / "test" / "cat").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    message = fault_of_test(tmp_path)
    assert message.startswith(f"10 of 20 images are not readable: {tmp_path}/test/cat/00.png (")
    assert " and 7 more; replace or remove them" in message


HAVING_TEST = [name for name, facts in TORCHVISION.items() if facts.test is not None]


@pytest.mark.parametrize("name", HAVING_TEST)
def test_torchvision_knows_the_test_part_and_only_misses_its_files(tmp_path, name):
    facts = TORCHVISION[name]
    assert facts.test not in (facts.train, facts.validation)
    found = describe(f"torchvision:{name}", root=tmp_path)
    side = min(found.side, 8)
    train = pixels(2, 3, side, side)
    images = fingerprinted(
        train_images=train, train_labels=np.arange(2), validation_images=train, validation_labels=np.arange(2)
    )
    with pytest.raises(DataError, match=r"cannot be read from .*, test part: ") as caught:
        with_test(found, images, side=side)
    assert not isinstance(caught.value.__cause__, TypeError | ValueError | AttributeError)


def test_sets_without_a_test_part_have_none_with_labels_in_torchvision(tmp_path):
    without = {name for name in TORCHVISION if name not in HAVING_TEST}
    assert without == {"Caltech101", "Caltech256", "EuroSAT", "ImageNet", "Imagenette", "Places365", "SUN397"}
    assert not any(describe(f"torchvision:{name}", root=tmp_path).has_test for name in without)


def test_the_test_part_of_a_torchvision_set_is_read_from_its_own_files(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    idx_folder(raw)
    (raw / "t10k-images-idx3-ubyte").write_bytes(idx(pixels(30, 28, 28, seed=9)))
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(30)[::-1] % 10))
    _, found = with_test_part("torchvision:FashionMNIST", root=tmp_path, validation=10)
    assert np.array_equal(found.validation_images[:, 0], pixels(30, 28, 28, seed=9))
    assert found.validation_labels.tolist() == [*(np.arange(30)[::-1] % 10)]


def test_the_test_labels_of_traffic_signs_come_from_their_table(tmp_path):
    for label in range(2):
        folder = tmp_path / "gtsrb" / "GTSRB" / "Training" / f"{label:05d}"
        folder.mkdir(parents=True)
        for index in range(5):
            Image.fromarray(pixels(20, 20, 3, seed=index)).save(folder / f"{index}.ppm")
    place = tmp_path / "gtsrb" / "GTSRB" / "Final_Test" / "Images"
    place.mkdir(parents=True)
    for index in range(3):
        Image.fromarray(pixels(20, 20, 3, seed=70 + index)).save(place / f"{index}.ppm")
    table = "Filename;Width;ClassId\n" + "".join(f"{index}.ppm;20;{1 - index % 2}\n" for index in range(3))
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text(table)
    _, found = with_test_part("torchvision:GTSRB", root=tmp_path, side=20)
    assert found.validation_labels.tolist() == [1, 0, 1]
    assert np.array_equal(found.validation_images[2], pixels(20, 20, 3, seed=72).transpose(2, 0, 1))


def test_test_images_without_labels_say_so(tmp_path, monkeypatch):
    from torchvision.datasets import FER2013

    monkeypatch.setattr(
        FER2013, "_RESOURCES", {part: (name, None) for part, (name, _) in FER2013._RESOURCES.items()}
    )  # checksums
    grey = " ".join(["7"] * 48 * 48)
    (tmp_path / "fer2013").mkdir()
    rows = "".join(f'{label},"{grey}"\n' for label in [*range(7)] * 2)
    (tmp_path / "fer2013" / "train.csv").write_text("emotion,pixels\n" + rows)
    (tmp_path / "fer2013" / "test.csv").write_text(f'pixels\n"{grey}"\n')
    assert "its test images in" in fault_of_test("torchvision:FER2013", root=tmp_path)
    usage = [f'{label},"{grey}",{use}\n' for use in ("Training", "PrivateTest") for label in [*range(7)] * 2]
    (tmp_path / "fer2013" / "fer2013.csv").write_text("emotion,pixels,Usage\n" + "".join(usage))
    assert with_test_part("torchvision:FER2013", root=tmp_path)[1].validation_labels.tolist() == [*range(7)] * 2


# Damage


def test_all_damaged_images_are_counted_in_one_line(tmp_path):
    found = describe(str(pets(tmp_path, parts=("train", "val"))), root=None)
    for name, content in (("train/cat/03", b""), ("train/dog/00", b"text"), ("val/cat/05", b""), ("val/dog/01", b"")):
        (tmp_path / f"{name}.png").write_bytes(content)
    with pytest.raises(DataError) as caught:
        loaded(found, validation=20, side=12)
    assert str(caught.value) == (
        f"4 of 40 images are not readable: {tmp_path}/train/cat/03.png (the file is empty), "
        f"{tmp_path}/train/dog/00.png (its format is unknown), {tmp_path}/val/cat/05.png (the file is empty) "
        "and 1 more; replace or remove them"
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp"])
def test_a_truncated_image_is_named(tmp_path, suffix):
    pets(tmp_path, suffix=suffix)
    file = tmp_path / "train" / "cat" / f"05.{suffix}"
    file.write_bytes(file.read_bytes()[:-60])
    try:
        message = fault(tmp_path)
    finally:
        file.unlink()
    assert f"05.{suffix} is not a readable image" in message
    assert "replace or remove it" in message
    assert len(read(tmp_path).train_images) > 0


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    found = describe(str(pets(tmp_path)), root=None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(DataError, match="decompression bomb"):
        loaded(found, validation=4, side=8)


def test_floating_point_pixels_are_refused(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(2):
            Image.fromarray(np.zeros((12, 12), np.float32)).save(tmp_path / name / f"{index}.tif")
    assert "floating-point" in fault(tmp_path)


def test_data_that_shrank_since_it_was_described_says_so(tmp_path):
    found = describe(str(pets(tmp_path, parts=("train", "val"))), root=None)
    for file in (tmp_path / "val").rglob("*.png"):
        file.unlink()
    with pytest.raises(DataError, match="plan again"):
        loaded(found, validation=4, side=8)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["png", "jpg", "webp", "tif", "bmp", "ppm"]), st.data())
@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata and reads on
def test_a_damaged_image_is_one_clear_line_or_still_an_image(tmp_path_factory, suffix, data_):
    file = tmp_path_factory.mktemp("image") / f"a.{suffix}"
    Image.fromarray(pixels(12, 12, 3)).save(file)
    content = bytearray(file.read_bytes())
    for _ in range(data_.draw(st.integers(1, 4))):
        content[data_.draw(st.integers(0, len(content) - 1))] = data_.draw(st.integers(0, 255))
    file.write_bytes(content[: data_.draw(st.integers(1, len(content)))])
    part = module.OpenPart(
        labels=np.zeros(1),
        open=lambda _: Image.open(file),
        content=lambda _: file.read_bytes(),
        where=lambda _: str(file),
    )
    with contextlib.suppress(DataError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
        assert module.read(part, 0, 8).shape[:2] == (8, 8)


# The way to the workers


def test_saved_images_are_opened_unchanged_and_read_only(tmp_path):
    images = read(pets(tmp_path / "pets"))
    save(images, tmp_path / "run" / "images")
    opened = open_images(tmp_path / "run" / "images")
    assert same(opened, images)
    assert isinstance(opened.train_images, np.memmap)
    assert not opened.train_images.flags.writeable


@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 3)], ids=["grey", "colour"])
def test_decoding_leaves_nothing_else_behind_and_may_be_repeated(tmp_path, shape):
    described = describe(str(pets(tmp_path / "pets", shape=shape)), root=None)
    for _ in range(2):
        load(described, tmp_path / "images", images=None, validation=4, side=64)
    assert {file.name for file in (tmp_path / "images").iterdir()} == {
        *(f"{name}.npy" for name in ARRAYS),
        SUMMARY,
    }


@pytest.mark.parametrize("name", [*(f"{name}.npy" for name in ARRAYS), SUMMARY])
@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "another"])
def test_damaged_saved_images_are_refused(tmp_path, name, harm):
    save(read(pets(tmp_path / "pets")), tmp_path)
    file = tmp_path / name
    content = file.read_bytes()
    if harm == "missing":
        file.unlink()
    elif harm == "another":
        file.write_bytes(json.dumps({"shapes": {}}).encode())
    else:
        file.write_bytes(content[: 0 if harm == "empty" else len(content) - 9])
    with pytest.raises(DataError, match="delete the folder and run again"):
        open_images(tmp_path)


def test_a_worker_opens_images_without_the_libraries_that_read_datasets():
    code = """
import sys, scalesearch.proxy.images
assert not {"torch", "torchvision", "PIL", "pandas", "scipy"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_saved_images_of_another_type_are_refused(tmp_path):
    save(read(pets(tmp_path / "pets")), tmp_path)
    np.save(tmp_path / "train_labels.npy", np.zeros(16, np.int32))
    with pytest.raises(DataError, match="holds int32"):
        open_images(tmp_path)
