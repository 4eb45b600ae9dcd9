"""Images decoded once: killed and gone on with, keyed by content, shared, bounded by the disk and not by the memory."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from preparing import decoded, load_test, loaded, save, stopped_after_a_chunk, unheard

from scalesearch.cli import progress
from scalesearch.cli.progress import RunDisplay
from scalesearch.dataset import describe
from scalesearch.errors import DataError, StudyError
from scalesearch.plan import Layout, Plan
from scalesearch.prepared import prepare_images, prepare_test, side_needed
from scalesearch.proxy import decoding
from scalesearch.proxy.choice import CHUNK, Choice, key_of
from scalesearch.proxy.data import choose, choose_test
from scalesearch.proxy.decoding import RECORD, RESERVE, UNFINISHED, decode
from scalesearch.proxy.images import ARRAYS, fingerprinted, open_images
from scalesearch.request import Request, resolve
from scalesearch.travel import traveller

FilesOf = Callable[[Path], dict[str, str]]
SIDE = 24


def photos(folder: Path, *, count: int = 3 * CHUNK, parts: tuple[str, ...] = ("train",), mode: str = "RGB") -> Path:
    """JPEG and PNG files of two classes, half of each, without two alike, a little wider than high."""
    noise = np.random.default_rng(0)
    for part in parts:
        for index in range(count):
            file = folder / part / ("cat", "dog")[index % 2] / f"{index:04d}.{('jpg', 'png')[index // 2 % 2]}"
            file.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(noise.integers(0, 256, (6, 7, 3), np.uint8))
            coarse.resize((84, 72)).convert(mode).save(file)
    return folder


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return photos(tmp_path_factory.mktemp("photos") / "pets", parts=("train", "test"))


def chosen(folder: Path, **options: Any) -> Choice:
    return choose(describe(str(folder), root=None), **{"images": None, "validation": 20, "side": SIDE} | options)


def key(choice: Choice) -> str:
    return key_of(choice, unheard)


def of_choice(folder: Path, **options: Any) -> str:
    return key(chosen(folder, **options))


class Heard:
    """Keeps what it hears of a preparation."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []

    def __call__(self, step: str, done: int, total: int) -> None:
        self.steps.append((step, done, total))

    def of(self, step: str) -> list[tuple[int, int]]:
        return [(done, total) for name, done, total in self.steps if name == step]


# Killed, and gone on with

KILLED = """
import json, os, random, signal, sys
from pathlib import Path

from scalesearch.dataset import describe
from scalesearch.proxy.choice import key_of
from scalesearch.proxy.data import choose
from scalesearch.proxy.decoding import decode

source, target, side = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
choice = choose(describe(str(source), root=None), images=None, validation=20, side=side)
key = key_of(choice, lambda *_: None)


def in_a_child(folder, last):
    # decodes; killed as it is about to do its last-th thing to a file in the folder. Tells how many images it opened.
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        done, opened = 0, 0

        def watch(event, arguments):
            nonlocal done, opened
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"):
                path = str(arguments[0])
                opened += path.startswith(str(source)) and path.endswith(("jpg", "png"))
                done += path.startswith(str(folder))
                if done == last:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        decode(choice, key, folder, lambda *_: None)
        os.write(writing, str(opened).encode())
        os._exit(0)
    os.close(writing)
    status = os.waitpid(child, 0)[1]
    told = os.read(reading, 99)
    os.close(reading)
    return os.WIFSIGNALED(status), int(told or -1)


rows, last, killed = [], 0, True
while killed:
    folder, last = target / str(last), last + 1
    folder.mkdir(parents=True)
    killed, _ = in_a_child(folder, last)
    record = folder / "unfinished" / "chunks"
    finished = record.read_text().splitlines()[1:] if record.exists() else []
    is_done = (folder / "unfinished" / "images.json").exists() or (folder / "unfinished/grey/images.json").exists()
    if killed and not (folder / "images.json").exists():
        again, opened = in_a_child(folder, -1)
        assert not again
        rows.append([str(folder), finished, opened, is_done])
print(json.dumps(rows))
"""


KINDS = [
    "grey",
    pytest.param("colour", marks=pytest.mark.slow),
    pytest.param("grey but for the first image", marks=pytest.mark.slow),
]


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the machine has one: a hundred decodes do not wait for a disk."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decode_killed_at_whatever_it_does_goes_on_from_its_finished_chunks(
    quick_disk: Path, files_of: FilesOf, kind: str
):
    source = photos(quick_disk / "pets", count=CHUNK + 40, mode="RGB" if kind == "colour" else "L")
    if kind == "grey but for the first image":
        Image.new("RGB", (80, 70), (9, 90, 200)).save(source / "train" / "cat" / "0000.jpg")
    whole = decoded(chosen(source), quick_disk / "whole")
    assert whole.train_images.shape[1] == (1 if kind == "grey" else 3)
    expected = files_of(quick_disk / "whole")
    arguments = [sys.executable, "-c", KILLED, str(source), str(quick_disk / "killed"), str(SIDE)]
    rows = json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    counts = {"train 0": CHUNK, f"train {CHUNK}": 20, "validation 0": 20}
    assert len(rows) > 20
    assert {len(finished) for _, finished, *_ in rows} > {0, 3}
    assert any(is_done for *_, is_done in rows)
    for folder, finished, opened, is_done in rows:
        assert files_of(Path(folder)) == expected
        kept = sum(counts[line.rpartition(" ")[0]] for line in finished)
        assert opened == (0 if is_done else CHUNK + 40 - kept)


DECODES = """
import sys
from pathlib import Path

from scalesearch.dataset import describe
from scalesearch.proxy.choice import key_of
from scalesearch.proxy.data import choose
from scalesearch.proxy.decoding import decode

choice = choose(describe(sys.argv[1], root=None), images=None, validation=20, side=int(sys.argv[3]))
key = key_of(choice, lambda *_: None)
print("begun", flush=True)
decode(choice, key, Path(sys.argv[2]), lambda *_: None)
"""


def test_a_decode_killed_at_random_again_and_again_comes_to_the_same(pets: Path, tmp_path: Path, files_of: FilesOf):
    begin = time.monotonic()
    decoded(chosen(pets, side=200), tmp_path / "whole")
    took = time.monotonic() - begin
    chance = random.Random(0)
    for _ in range(4):
        arguments = [sys.executable, "-c", DECODES, str(pets), str(tmp_path / "run"), "200"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(took * chance.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
    decoded(chosen(pets, side=200), tmp_path / "run")
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")


def test_finished_chunks_are_not_looked_at_again(tmp_path: Path):
    source = photos(tmp_path / "pets", count=8 * CHUNK)
    choice = chosen(source)
    name, expected = key(choice), decoded(choice, tmp_path / "whole")
    lines = stopped_after_a_chunk(choice, tmp_path / "run")
    finished = [chunk for chunk in choice.chunks if lines.intersection(chunk.lines)]
    assert 0 < len(finished) < len(choice.chunks)
    for chunk in finished:
        for index in chunk.indices.tolist():
            Path(chunk.wanted.part.where(index)).write_bytes(b"no image")
    assert decode(choice, name, tmp_path / "run", unheard).fingerprint == expected.fingerprint


@pytest.mark.parametrize("change", ["content", "side", "choice", "Pillow"])
def test_a_half_finished_decode_of_something_else_is_started_again(
    tmp_path: Path, files_of: FilesOf, change: str, monkeypatch: pytest.MonkeyPatch
):
    source = photos(tmp_path / "pets")
    assert stopped_after_a_chunk(chosen(source), tmp_path / "run")
    options: dict[str, Any] = {"side": {"side": SIDE + 1}, "choice": {"images": 2 * CHUNK}}.get(change, {})
    if change == "content":
        for file in (source / "train" / "cat").iterdir():
            Image.open(file).rotate(180).save(file)
    elif change == "Pillow":
        monkeypatch.setattr(decoding.PIL, "__version__", "99.0")
    choice, heard = chosen(source, **options), Heard()
    decode(choice, key(choice), tmp_path / "run", heard)
    assert heard.of("decoded")[-1] == (choice.count, choice.count)
    decoded(chosen(source, **options), tmp_path / "whole")
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("harm", ["record", "pixels"])
def test_a_half_finished_decode_that_lost_a_file_is_started_again(pets: Path, tmp_path: Path, harm: str):
    assert stopped_after_a_chunk(chosen(pets), tmp_path / "run")
    (tmp_path / "run" / UNFINISHED / {"record": RECORD, "pixels": "train_images.npy"}[harm]).unlink()
    found = decoded(chosen(pets), tmp_path / "run")
    assert found.fingerprint == loaded(describe(str(pets), root=None), validation=20, side=SIDE).fingerprint


def test_damage_leaves_nothing_that_is_taken_for_good_and_a_mended_image_is_seen(tmp_path: Path):
    source = photos(tmp_path / "pets")
    file = source / "train" / "dog" / "0003.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    for _ in range(2):
        with pytest.raises(DataError, match=r"0003\.png is not a readable image"):
            decoded(chosen(source), tmp_path / "run")
        with pytest.raises(DataError, match="does not hold the images"):
            open_images(tmp_path / "run")
    file.write_bytes(whole)
    decoded(chosen(source), tmp_path / "run")
    assert open_images(tmp_path / "run", verify=True).fingerprint == decoded(chosen(source), tmp_path / "b").fingerprint


# The key


def test_files_that_are_touched_copied_or_moved_keep_their_key(pets: Path, tmp_path: Path):
    shutil.copytree(pets, tmp_path / "elsewhere")
    for file in (tmp_path / "elsewhere").rglob("*.jpg"):
        os.utime(file, (1, 1))
    assert of_choice(tmp_path / "elsewhere") == of_choice(pets)


def test_every_byte_label_and_choice_is_in_the_key(pets: Path, tmp_path: Path):
    source = tmp_path / "pets"
    shutil.copytree(pets, source)
    keys = [of_choice(source), of_choice(source, side=SIDE + 1), of_choice(source, images=300)]
    keys += [of_choice(source, validation=30)]
    file = source / "train" / "cat" / "0002.png"
    content = file.read_bytes()
    file.write_bytes(content + b"\0")  # the same pixels, another file
    keys += [of_choice(source)]
    file.write_bytes(content)
    assert of_choice(source) == keys[0]
    file.rename(source / "train" / "cat" / "9999.png")  # another order
    keys += [of_choice(source)]
    (source / "train" / "cat" / "9999.png").rename(source / "train" / "dog" / "0002.png")  # another label
    keys += [of_choice(source)]
    assert len(set(keys)) == len(keys)


def test_an_archive_is_known_by_its_arrays(tmp_path: Path):
    images, labels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels)
    np.savez_compressed(tmp_path / "b.npz", x_train=images, y_train=labels)
    np.savez(tmp_path / "c.npz", train_images=255 - images, train_labels=labels)
    np.savez(tmp_path / "d.npz", train_images=images, train_labels=1 - labels)
    a, b, c, d = (of_choice(tmp_path / f"{name}.npz", side=8, validation=4) for name in "abcd")
    assert a == b
    assert len({a, c, d}) == 3


def test_a_torchvision_set_is_known_by_its_files_or_by_its_pixels(tmp_path: Path):
    keys = []
    for number, seed in enumerate((0, 0, 1)):
        root = tmp_path / str(number)
        for split_name in ("train", "val"):
            for wnid in ("n01440764", "n02102040"):
                folder = root / "imagenette2" / split_name / wnid
                folder.mkdir(parents=True)
                for index in range(3):
                    pixels = np.random.default_rng(seed + 10 * index).integers(0, 256, (80, 90, 3), np.uint8)
                    Image.fromarray(pixels).save(folder / f"{index}.jpeg")
        dataset = describe("torchvision:Imagenette", root=root)
        choice = choose(dataset, images=None, validation=4, side=32)
        part = choice.wanted[0].part
        assert part.content(0) == (root / "imagenette2" / "train" / "n01440764" / "0.jpeg").read_bytes()
        keys.append(key(choice))
    assert keys[0] == keys[1] != keys[2]


def test_the_key_of_a_test_part_holds_the_training_images_beside_it(pets: Path, tmp_path: Path):
    dataset = describe(str(pets), root=None)
    for name, images in (("a", None), ("b", 300)):
        decoded(chosen(pets, images=images), tmp_path / name)
    keys = [key(choose_test(dataset, tmp_path / name, side=SIDE)) for name in "aba"]
    assert keys[0] == keys[2] != keys[1]


# The cache


REQUEST = Request(
    budget="0.5x", preset="quick", policy="grid", candidates=2, seeds=1, epochs=1, images=256, proxy_resolution=SIDE
)


def planned(data: Path, **options: Any) -> tuple[Plan, Layout]:
    return resolve(replace(REQUEST, data=str(data), **options))


def test_runs_that_name_a_cache_share_what_is_decoded(pets: Path, tmp_path: Path):
    plan, layout = planned(pets, confirm=1)
    found = []
    for name in ("a", "b"):
        heard = Heard()
        train = prepare_images(plan, layout, tmp_path / name, heard, cache=tmp_path / "cache")
        test = prepare_test(plan, train, tmp_path / name, heard, cache=tmp_path / "cache")
        assert not (tmp_path / name).exists()
        found.append((train.folder, test.folder, train.images.fingerprint, test.images.fingerprint))
        assert bool(heard.of("decoded")) == (name == "a")
        for file in pets.rglob("*.jpg"):
            os.utime(file, (1, 1))
    assert found[0] == found[1]
    assert found[0][:2] == tuple(tmp_path / "cache" / place.name for place in found[0][:2])
    own = prepare_images(plan, layout, tmp_path / "own", unheard)
    assert own.folder == tmp_path / "own" / "data"
    assert own.images.fingerprint == found[0][2]


def test_without_a_cache_a_run_folder_is_read_again_without_a_look_at_the_data(tmp_path: Path):
    plan, layout = planned(photos(tmp_path / "pets"))
    first = prepare_images(plan, layout, tmp_path / "run", unheard)
    shutil.rmtree(tmp_path / "pets")
    heard = Heard()
    assert prepare_images(plan, layout, tmp_path / "run", heard).images.fingerprint == first.images.fingerprint
    assert heard.steps == []


def test_other_images_than_a_run_is_tied_to_are_refused_and_decoded_anew_once_theirs_are_back(tmp_path: Path):
    pets, source, run = (tmp_path / name for name in ("kept", "pets", "run"))
    plan, layout = planned(shutil.copytree(photos(pets, count=340, parts=("train", "test")), source), confirm=1)

    def prepared(train: str | None, test: str | None) -> tuple[str, str]:
        first = prepare_images(plan, layout, run, unheard, bound=train)
        return first.images.fingerprint, prepare_test(plan, first, run, unheard, bound=test).images.fingerprint

    bound = prepared(None, None)
    for part, place in (("train", "data"), ("test", "data-test")):
        shutil.rmtree(run / place)
        shutil.rmtree(source / part)
        shutil.copytree(pets / part, source / part)
        for file in (source / part / "cat").iterdir():
            Image.open(file).rotate(180).save(file)
        if part == "train":
            prepared(None, None)  # a kill before the refusal leaves the others whole
        with pytest.raises(StudyError, match="not those that the study began with; restore them, or use --out"):
            prepared(*bound)
        assert not (run / place / "images.json").exists()
        shutil.rmtree(source / part)
        shutil.copytree(pets / part, source / part)
        assert prepared(*bound) == bound


def test_changed_data_get_another_place_in_the_cache(tmp_path: Path):
    plan, layout = planned(photos(tmp_path / "pets"))
    first = prepare_images(plan, layout, tmp_path, unheard, cache=tmp_path / "cache")
    for file in (tmp_path / "pets" / "train" / "cat").iterdir():
        Image.open(file).rotate(180).save(file)
    second = prepare_images(plan, layout, tmp_path, unheard, cache=tmp_path / "cache")
    assert first.folder != second.folder
    assert first.images.fingerprint != second.images.fingerprint


def test_damage_in_the_cache_is_mended_from_the_data(pets: Path, tmp_path: Path):
    plan, layout = planned(pets)
    first = prepare_images(plan, layout, tmp_path, unheard, cache=tmp_path)
    file = first.folder / "train_images.npy"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-1000] + bytes(1000))
    second = prepare_images(plan, layout, tmp_path, unheard, cache=tmp_path)
    assert (second.folder, second.images.fingerprint) == (first.folder, first.images.fingerprint)
    assert file.read_bytes() == content


def test_a_cache_that_cannot_be_written_says_so(pets: Path, tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="cannot be written: Not a directory; choose another folder with --cache"):
        prepare_images(*planned(pets), tmp_path, unheard, cache=tmp_path / "file")


def test_labels_are_written_as_numpy_does_but_say_that_a_disk_is_full(tmp_path: Path):
    labels = np.arange(10_000) % 7
    np.save(tmp_path / "numpy.npy", labels)
    with (tmp_path / "ours.npy").open("wb") as file:
        decoding._write_labels(file, labels)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    with pytest.raises(OSError, match="No space left on device"), Path("/dev/full").open("wb", buffering=0) as file:
        decoding._write_labels(file, labels)


PREPARES = """
import json, sys
from pathlib import Path

from scalesearch.prepared import prepare_images
from scalesearch.request import Request, resolve

plan, layout = resolve(Request(data=sys.argv[1], **json.loads(sys.argv[3])))
sys.stdin.readline()
steps = []
found = prepare_images(plan, layout, Path("none"), lambda *step: steps.append(step), cache=Path(sys.argv[2]))
print(json.dumps([[step[0] for step in steps], found.images.fingerprint, str(found.folder)]))
"""


def test_two_runs_at_once_decode_once(pets: Path, tmp_path: Path):
    options = {"budget": "0.5x", "preset": "quick", "policy": "grid", "candidates": 2, "seeds": 1, "epochs": 1}
    options |= {"images": 300, "proxy_resolution": 72}
    arguments = [sys.executable, "-c", PREPARES, str(pets), str(tmp_path / "cache"), json.dumps(options)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    time.sleep(2)  # both have imported
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("decoded" in steps for steps, *_ in told) == [False, True]
    assert told[0][1:] == told[1][1:]


def test_a_run_that_waits_for_another_says_so_and_takes_what_it_finds(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plan, layout = planned(pets)
    first = prepare_images(plan, layout, tmp_path, unheard, cache=tmp_path)
    heard, display = Heard(), RunDisplay(tmp_path, quiet=False, on_stderr=False)

    def told(*step: Any) -> None:
        heard(*step)
        display.prepared(*step)

    with ThreadPoolExecutor() as pool:
        with FileLock(first.folder / ".lock"):
            second = pool.submit(prepare_images, plan, layout, tmp_path, told, cache=tmp_path)
            while not heard.of("awaited"):
                assert not second.done()
                time.sleep(0.01)
        assert second.result().folder == first.folder
    total = 256 + plan.validation_images
    assert heard.of("awaited") == [(0, total), (total, total)]
    assert heard.of("decoded") == []
    assert capsys.readouterr().out == f"waiting for {total} images that another run is preparing\n"
    assert display.bars.tasks == []


# The disk and the memory


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many bytes in memory."""
    place = tmp_path / "small"
    place.mkdir()

    def mounted(size: int) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True)
        if done.returncode:
            pytest.skip("no disk can be mounted here")
        return place

    yield mounted
    subprocess.run(["umount", place], capture_output=True)


def test_a_disk_without_room_is_refused_before_anything_is_decoded(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    choice = chosen(pets, side=200)
    needed = choice.count * 3 * 200**2
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed + RESERVE - 1))
    with pytest.raises(DataError) as caught:
        decoded(choice, tmp_path / "run")
    assert str(caught.value) == (
        f"decoded images need 46.1 MB beside 200.0 MB that stay free, but {tmp_path} has 246.1 MB free; "
        "make room, take fewer with --images N, or name another disk with --cache DIR"
    )
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=RESERVE))
    with pytest.raises(DataError, match=r"free; make room or name another disk with --cache DIR$"):
        decoded(choice, tmp_path / "run")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed + RESERVE))
    assert len(decoded(choice, tmp_path / "run").train_images) == choice.count - 20


def test_a_small_disk_is_measured_where_the_images_go(pets: Path, small_disk: Callable[[int], Path]):
    place = small_disk(RESERVE)
    with pytest.raises(DataError, match=f"but {place} has 200.0 MB free"):
        decoded(chosen(pets), place / "cache" / "key")
    assert list(place.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_is_one_line_and_the_decode_goes_on_later(
    pets: Path, small_disk: Callable[[int], Path], tmp_path: Path
):
    place, choice, expected = small_disk(RESERVE + 60_000_000), chosen(pets, side=200), tmp_path / "expected"
    train, validation = choice.wanted
    ballast, last = place / "ballast", int(train.indices[2 * CHUNK - 2])

    def opened(index: int) -> Image.Image:
        if index == last:
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(bytes(1 << 16)):
                    pass
        return train.part.open(index)

    filling = replace(choice, wanted=(replace(train, part=replace(train.part, open=opened)), validation))
    with pytest.raises(DataError, match=f"{place}/run cannot be written: No space left on device; "):
        decode(filling, key(choice), place / "run", unheard)
    ballast.unlink()
    assert decoded(choice, place / "run").fingerprint == decoded(choice, expected).fingerprint


BOUNDED = """
import resource, sys
from pathlib import Path

import numpy as np

from scalesearch.dataset import describe
from scalesearch.proxy.choice import key_of
from scalesearch.proxy.data import choose
from scalesearch.proxy.decoding import decode
from scalesearch.proxy.scan import scan

dataset = describe(sys.argv[1], root=None)
choice = choose(dataset, images=None, validation=20, side=300)
held = next(int(row.split()[1]) for row in open("/proc/self/status") if row.startswith("VmData")) * 1024
limit = held + 60_000_000
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
assert choice.count * 3 * 300**2 > 100_000_000
try:
    np.ones((choice.count, 3, 300, 300), np.uint8)
except MemoryError:
    print("bounded")
images = decode(choice, key_of(choice, lambda *_: None), Path(sys.argv[2]), lambda *_: None)
scan(dataset, images)
print(images.train_images.shape[1], images.fingerprint)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on private memory is Linux's")
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_set_larger_than_the_memory_is_decoded_and_scanned(tmp_path: Path, mode: str):
    source = photos(tmp_path / "pets", mode=mode, count=400)
    arguments = [sys.executable, "-c", BOUNDED, str(source), str(tmp_path / "run")]
    told = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()
    expected = loaded(describe(str(source), root=None), validation=20, side=300)
    assert told == ["bounded", str(expected.train_images.shape[1]), expected.fingerprint]


# What is asked for and what is told


def test_images_are_as_large_as_the_largest_network_that_a_plan_trains(pets: Path):
    plan, layout = planned(pets)
    smaller = [one for one in layout.candidates if one.proxy.network.resolution < SIDE]
    assert smaller
    assert side_needed(plan, replace(layout, candidates=tuple(smaller))) == SIDE  # the unscaled base is trained too
    plan, layout = planned(pets, budget="2x", candidates=6)
    of_search = max(one.proxy.network.resolution for one in layout.candidates)
    assert side_needed(plan, layout) == of_search > SIDE
    plan, layout = planned(pets, budget="2x", candidates=6, check_phi=2.0)
    travelling = [traveller(layout.candidate(name), plan) for name in layout.trained]
    largest = max(one.network.resolution for one in travelling if one is not None)
    assert side_needed(plan, layout) == largest > of_search
    plan, layout = planned(pets, budget="2x", candidates=6, check_phi=4.0)
    assert side_needed(plan, layout) == plan.data.side == 72


def test_a_preparation_tells_how_far_it_is(pets: Path, tmp_path: Path):
    heard, choice = Heard(), chosen(pets)
    decode(choice, key_of(choice, heard), tmp_path, heard)
    for step in ("read", "decoded"):
        told = heard.of(step)
        assert len(told) == len(choice.chunks)
        assert [done for done, _ in told] == sorted({done for done, _ in told})
        assert {total for _, total in told} == {choice.count}
        assert told[-1] == (choice.count, choice.count)


@pytest.mark.parametrize(("moment", "lines"), [(60.0, 0), (0.0, 2)])
def test_elsewhere_than_on_a_terminal_a_step_that_takes_long_is_a_line(
    pets: Path,
    tmp_path: Path,
    moment: float,
    lines: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(progress, "MOMENT", moment)
    choice = chosen(pets)
    with RunDisplay(tmp_path, quiet=False, on_stderr=False) as display:
        decode(choice, key_of(choice, display.prepared), tmp_path, display.prepared)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == lines
    assert all(line.startswith("images ") and f" of {choice.count}, " in line for line in told)


def test_images_that_a_test_made_are_those_that_are_opened(tmp_path: Path):
    arrays = dict(zip(ARRAYS, (np.zeros((4, 1, 6, 6), np.uint8), np.arange(4)) * 2, strict=True))
    save(fingerprinted(**arrays), tmp_path)
    assert open_images(tmp_path, verify=True).fingerprint == fingerprinted(**arrays).fingerprint


def test_a_test_part_may_be_decoded_into_a_cache_on_any_disk(pets: Path, tmp_path: Path, monkeypatch: Any):
    decoded(chosen(pets), tmp_path / "data")
    dataset = describe(str(pets), root=None)
    linked = load_test(dataset, tmp_path / "linked", tmp_path / "data", side=SIDE)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    copied = load_test(dataset, tmp_path / "copied", tmp_path / "data", side=SIDE)
    assert copied.fingerprint == linked.fingerprint
    assert not (tmp_path / "copied" / "train_images.npy").samefile(tmp_path / "data" / "train_images.npy")


def test_a_training_part_that_is_copied_and_the_names_of_all_are_on_the_disk(
    pets: Path, settled: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    decoded(chosen(pets), tmp_path / "data")
    place = tmp_path / "copied"
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    settled.clear()
    load_test(describe(str(pets), root=None), place, tmp_path / "data", side=SIDE)
    files = (place, place / "train_images.npy", place / "train_labels.npy")
    assert {path.stat().st_ino for path in files} <= {*settled}


# The whole program


@pytest.mark.slow
def test_two_studies_share_a_cache_and_the_second_decodes_nothing(
    program: Callable[..., Any], tiny_options: tuple[str, ...], finished: tuple[Path, Any], tmp_path: Path
):
    before = {}
    for name, sizes in (("a", ()), ("b", ("--seeds", 1, "--epochs", 1))):
        options = [*tiny_options, *sizes, "--cache", tmp_path / "cache"]
        run = program("run", *options, "--out", tmp_path / name)
        assert run.wait() == 0, run.err.read_text()
        assert not (tmp_path / name / "data").exists()
        [place] = (tmp_path / "cache").iterdir()
        now = {file.name: file.stat().st_mtime_ns for file in place.glob("*.npy")}
        assert before in ({}, now)
        before = now
    assert (tmp_path / "a" / "ranking.json").read_bytes() == (finished[0] / "ranking.json").read_bytes()
