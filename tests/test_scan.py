"""What is told of images before the training: copies, labels, classes, sizes, damage, and silence where all is well."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from preparing import loaded, save

from scalesearch.dataset import Dataset, describe
from scalesearch.proxy import scan as module
from scalesearch.proxy.images import ARRAYS, fingerprinted, open_images
from scalesearch.proxy.scan import scan

ANIMALS = ("cat", "dog", "eel")


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def archive(*, classes=3, count=100, names=ANIMALS) -> Dataset:
    return Dataset(
        name="a",
        source="/nowhere/a.npz",
        root="",
        num_classes=classes,
        class_names=names[:classes],
        side=6,
        is_photos=False,
        train_count=count,
        has_validation=True,
        has_test=False,
    )


def arrays(train_labels, validation_labels, *, seed=0, side=6):
    """Images without two alike, and their labels."""
    train, validation = np.asarray(train_labels, np.int64), np.asarray(validation_labels, np.int64)
    every = pixels(len(train) + len(validation), 1, side, side, seed=seed)
    every[:, 0, 0, :4] = np.arange(len(every), dtype=np.uint32)[:, None].view(np.uint8)
    given = (every[: len(train)], train, every[len(train) :], validation)
    return dict(zip(ARRAYS, given, strict=True))


def found_in(given, dataset=None):
    return scan(dataset or archive(), fingerprinted(**given))


def draw(file: Path, size=(12, 12), *, seed=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(size[1], size[0], 3, seed=seed)).save(file)


def pets(folder: Path, *, parts=("train",), count=10, size=(12, 12)):
    seed = 0
    for part in parts:
        for name in ANIMALS[:2]:
            for index in range(count):
                draw(folder / part / name / f"{index:02d}.png", size, seed=(seed := seed + 1))
    return folder


def described(folder: Path, *, images=None, side=64):
    dataset = describe(str(folder), root=None)
    return dataset, loaded(dataset, images=images, side=side)


def scanned(folder: Path, *, side=64):
    return scan(*described(folder, side=side))


# Silence


def test_the_embedded_images_are_clean_and_balanced():
    dataset = describe(None, root=None)
    found = scan(dataset, loaded(dataset, validation=500, side=28))
    assert found.remarks() == ()
    assert (found.train_per_class, found.validation_per_class) == ((950,) * 10, (50,) * 10)
    assert (found.validation_copies, found.train_copies, found.conflicts) == (0, 0, 0)
    assert (found.sizes.least, found.sizes.median, found.sizes.most, found.sizes.enlarged) == (28, 28, 28, 0)
    assert (found.sizes.measured, found.sizes.count) == (10_000, 10_000)


def test_a_clean_folder_brings_no_remarks(tmp_path):
    found = scanned(pets(tmp_path, parts=("train", "val", "test")))
    assert found.remarks() == ()
    assert (found.sizes.measured, found.damaged) == (40, ())


# Copies


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 20), st.randoms(use_true_random=False))
def test_copies_are_counted_exactly_wherever_they_stand(into_validation, into_training, fresh, random):
    given = arrays(np.arange(40) % 3, np.arange(fresh) % 3)
    copied = [random.randrange(40) for _ in range(into_validation)]
    repeated = [random.randrange(40) for _ in range(into_training)]
    train = np.array(random.sample([*range(40), *repeated], 40 + into_training))
    images, labels = given["train_images"], given["train_labels"]
    validation = np.concatenate([images[copied], given["validation_images"]])
    validation_labels = np.concatenate([labels[copied], given["validation_labels"]])
    order = np.array(random.sample(range(len(validation)), len(validation)), int)
    values = (images[train], labels[train], validation[order], validation_labels[order])
    found = found_in(dict(zip(ARRAYS, values, strict=True)))
    assert found.validation_copies == into_validation
    assert found.train_copies == into_training
    assert found.conflicts == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.booleans()), min_size=1, max_size=40))
def test_conflicts_are_what_comparing_every_pair_finds(rows):
    pool = pixels(6, 1, 6, 6)
    parts = [[(which, label) for which, label, is_train in rows if is_train == wanted] for wanted in (True, False)]
    values = []
    for part in parts:
        values += [pool[[which for which, _ in part]], np.array([label for _, label in part], np.int64)]
    found = found_in(dict(zip(ARRAYS, values, strict=True)))
    assert found.conflicts == sum(any(a == c and b != d for c, d, _ in rows) for a, b, _ in rows)
    assert found.validation_copies == sum(any(a == c for c, _ in parts[0]) for a, _ in parts[1])


def test_an_image_that_differs_in_one_bit_is_no_copy():
    given = arrays([0, 1, 2], [0])
    given["validation_images"][0] = given["train_images"][0]
    given["validation_images"][0, 0, 5, 5] ^= 1
    assert found_in(given).validation_copies == 0


def test_the_same_bytes_in_another_order_are_no_copy():
    given = arrays([0, 1, 2], [0])
    given["validation_images"][0] = given["train_images"][0].transpose(0, 2, 1)
    assert found_in(given).validation_copies == 0


def test_copies_across_the_split_are_told_with_their_share(tmp_path):
    pets(tmp_path, parts=("train", "val"))
    for name in ("cat/00.png", "dog/03.png"):
        (tmp_path / "val" / name).write_bytes((tmp_path / "train" / name).read_bytes())
    dataset = describe(str(tmp_path), root=None)
    found = scan(dataset, loaded(dataset, validation=20, side=12))
    assert found.remarks() == (
        "2 of 20 validation images are exact copies of training images: accuracies are too high by what they memorise",
    )


@pytest.mark.parametrize(("copies", "told"), [(1, False), (2, True), (3, True)])
def test_validation_copies_are_told_from_a_thousandth_on(copies, told):
    given = arrays(np.arange(3000) % 3, np.arange(2000) % 3)
    given["validation_images"][:copies] = given["train_images"][:copies]
    assert any(f"{copies} of 2,000 validation images" in remark for remark in found_in(given).remarks()) == told


def test_one_copy_is_told_in_the_singular():
    given = arrays([0, 1, 2], [0, 1, 2])
    given["validation_images"][1] = given["train_images"][1]
    assert found_in(given).remarks()[0].startswith("1 of 3 validation images is an exact copy of a training image:")


@pytest.mark.parametrize(("copies", "told"), [(2, False), (3, True)])
def test_repetition_in_training_is_told_from_a_hundredth_on(copies, told):
    given = arrays(np.arange(300) % 3, [0, 1, 2])
    given["train_images"][-copies:] = given["train_images"][3 - copies : 3]
    remarks = found_in(given).remarks()
    expected = f"{copies} of 300 training images repeat others: only {300 - copies} are distinct"
    assert remarks == ((expected,) if told else ())


def test_the_same_pixels_under_two_labels_are_told():
    given = arrays(np.arange(30) % 3, np.arange(9) % 3)
    given["train_images"][1] = given["train_images"][0]
    found = found_in(given)
    assert (found.conflicts, found.train_copies) == (2, 1)
    assert "2 of 39 images have the same pixels as an image with another label: correct the labels" in found.remarks()


def test_sixty_thousand_small_images_take_about_a_second():
    given = arrays(np.arange(50_000) % 3, np.arange(10_000) % 3, side=28)
    images = fingerprinted(**given)
    begun = time.perf_counter()
    assert scan(archive(), images).train_copies == 0
    assert time.perf_counter() - begun < 5  # about 0.2 on an idle core


# Classes


@pytest.mark.parametrize(("large", "told"), [(39, False), (40, True), (57, True)])
def test_imbalance_is_told_from_ten_times_on(large, told):
    found = found_in(arrays([0] * 10 + [1] * 4 + [2] * large, [0, 1, 2]))
    assert found.to_dict()["train"]["ratio"] == large / 4
    expected = (
        f"the largest class has {large / 4:.0f} times the images of the smallest (eel {large}, dog 4): "
        "accuracy is mostly that of the large classes"
    )
    assert found.remarks() == ((expected,) if told else ())


def test_classes_without_an_image_are_named():
    found = found_in(arrays([0, 1, 2, 0, 1, 2], [1, 1]))
    assert found.validation_per_class == (0, 2, 0)
    assert found.remarks() == ("2 classes of 3 without a validation image: cat, eel",)
    assert (found.to_dict()["validation"]["classes_without"], found.to_dict()["validation"]["ratio"]) == (2, None)


def test_the_last_class_counts_even_where_no_image_has_it():
    found = found_in(arrays([0, 1, 0, 1], [0, 1, 2]))
    assert found.train_per_class == (2, 2, 0)
    assert found.remarks() == ("1 class of 3 without a training image: eel",)


def test_classes_without_names_are_numbered():
    found = found_in(arrays([0, 1, 2], [0, 1]), archive(names=()))
    assert found.remarks() == ("1 class of 3 without a validation image: class 2",)


# Sizes


def test_sizes_of_photos_come_from_their_headers(tmp_path):
    for index, shorter in enumerate((30, 50, 70, 90, 100, 120)):
        longer = (shorter + 20, shorter) if index % 2 else (shorter, shorter + 40)
        draw(tmp_path / "train" / ANIMALS[index % 2] / f"{index}.png", longer)
    sizes = scanned(tmp_path, side=70).sizes
    assert (sizes.least, sizes.median, sizes.most) == (30, 70, 120)
    assert (sizes.measured, sizes.count, sizes.enlarged) == (6, 6, 2)


@pytest.mark.parametrize(("small", "told"), [(1, False), (2, True)])
def test_enlarged_images_are_told_from_a_tenth_on(tmp_path, small, told):
    pets(tmp_path, count=10 - small, size=(90, 70))
    for index in range(2 * small):
        draw(tmp_path / "train" / ANIMALS[index % 2] / f"small{index}.png", (40, 20 + index), seed=900 + index)
    draw(tmp_path / "train" / "cat" / "more.png", (70, 70), seed=800)
    found = scanned(tmp_path, side=64)
    expected = (
        f"{2 * small} of 21 images are smaller than the 64 px they are stored at, the smallest 20 px: "
        "enlarged, they show no more detail"
    )
    assert found.remarks() == ((expected,) if told else ())


def test_validation_files_are_measured_and_test_files_are_not_opened(tmp_path):
    pets(tmp_path, parts=("train", "val", "test"), count=3, size=(90, 70))
    draw(tmp_path / "val" / "cat" / "tiny.png", (9, 8))
    draw(tmp_path / "test" / "cat" / "tiny.png", (4, 4))
    (tmp_path / "test" / "dog" / "00.png").write_bytes(b"no image")
    found = scanned(tmp_path)
    assert (found.sizes.least, found.sizes.count, found.damaged) == (8, 13, ())


def test_of_many_files_a_spread_sample_is_measured(tmp_path, monkeypatch):
    pets(tmp_path, count=10, size=(90, 70))
    monkeypatch.setattr(module, "HEADERS", 5)
    opened = []
    original = module.image_size
    monkeypatch.setattr(module, "image_size", lambda file: opened.append(file) or original(file))
    sizes = scanned(tmp_path).sizes
    assert (sizes.measured, sizes.count) == (5, 20)
    assert [Path(file).stem for file in opened] == ["00", "04", "08", "02", "06"]


def test_arrays_have_their_one_size_and_photos_of_torchvision_none(tmp_path):
    given = arrays([0, 1, 2], [0, 1, 2])
    sizes = found_in(given).sizes
    assert (sizes.least, sizes.most, sizes.enlarged) == (6, 6, 0)
    photos = describe("torchvision:Food101", root=tmp_path)
    assert scan(photos, fingerprinted(**given)).sizes is None
    assert scan(describe("torchvision:MNIST", root=tmp_path), fingerprinted(**given)).sizes.least == 28


# Damage


def test_empty_files_of_any_part_and_damaged_headers_are_named_within_the_folder(tmp_path):
    pets(tmp_path, parts=("train", "val", "test"))
    dataset, images = described(tmp_path)
    (tmp_path / "train" / "dog" / "04.png").write_bytes(b"no image")
    for name in ("train/cat/05", "val/dog/09", "test/cat/00"):
        (tmp_path / f"{name}.png").write_bytes(b"")
    found = scan(dataset, images)
    assert found.damaged == ("test/cat/00.png", "train/cat/05.png", "train/dog/04.png", "val/dog/09.png")
    assert found.remarks() == (
        "4 image files cannot be read, empty or damaged: "
        "test/cat/00.png, train/cat/05.png, train/dog/04.png and 1 more",
    )
    assert found.sizes.measured == 37
    assert found.to_dict()["damaged"] == {
        "count": 4,
        "first": ["test/cat/00.png", "train/cat/05.png", "train/dog/04.png"],
    }


def test_files_that_were_not_chosen_are_looked_at_too(tmp_path):
    pets(tmp_path, parts=("train", "val"))
    dataset, images = described(tmp_path, images=4)
    for file in (tmp_path / "train" / "cat").iterdir():
        file.write_bytes(b"")
    assert len(scan(dataset, images).damaged) == 10


def test_a_folder_that_is_gone_is_no_fault(tmp_path):
    pets(tmp_path / "pets", parts=("train", "val"))
    dataset, images = described(tmp_path / "pets")
    (tmp_path / "pets" / "val").rename(tmp_path / "val")
    assert (scan(dataset, images).sizes, scan(dataset, images).damaged) == (None, ())
    (tmp_path / "pets").rename(tmp_path / "elsewhere")
    assert (scan(dataset, images).sizes, scan(dataset, images).remarks()) == (None, ())


# Dict form


def test_the_dict_is_plain_rounded_and_without_places(tmp_path):
    pets(tmp_path, count=4)
    draw(tmp_path / "train" / "cat" / "more.png", seed=99)
    (tmp_path / "train" / "dog" / "00.png").rename(tmp_path / "train" / "cat" / "other.png")
    dataset, images = described(tmp_path)
    (tmp_path / "train" / "cat" / "more.png").write_bytes(b"")
    found = scan(dataset, images).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert str(tmp_path) not in json.dumps(found)
    per_class = found["train"]["per_class"]
    assert found["train"]["ratio"] == round(max(per_class) / min(per_class), 4)
    assert found["damaged"] == {"count": 1, "first": ["train/cat/more.png"]}
    assert set(found) == {"side", "train", "validation", "test", "label_conflicts", "sizes", "damaged", "remarks"}


def test_a_ratio_has_four_decimals():
    assert found_in(arrays([0] * 3 + [1] * 7 + [2] * 5, [0])).to_dict()["train"]["ratio"] == 2.3333


def test_images_opened_from_a_run_folder_give_the_same_scan(tmp_path):
    pets(tmp_path / "pets", parts=("train", "val"))
    dataset, images = described(tmp_path / "pets")
    save(images, tmp_path / "run")
    assert scan(dataset, open_images(tmp_path / "run")) == scan(dataset, images)
