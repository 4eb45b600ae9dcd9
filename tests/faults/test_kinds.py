"""Pipes, folders, sockets and devices where a file belongs: no reader waits for them, and no writer loses them."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from calling import Call
from judging import limited

from scalesearch.errors import DataError
from scalesearch.files import append
from scalesearch.proxy.checkpoint import damaged, read_checkpoint
from scalesearch.proxy.images import ARRAYS, open_images, seal
from scalesearch.report import _remove
from scalesearch.request import Request, resolve
from scalesearch.runfolder import write_plan

SOON = 10
"""Most that a reader may take on what is no file [s]."""


def folder(path: Path) -> None:
    path.mkdir()
    (path / "hers").write_text("something")


def listener(path: Path) -> None:
    """A socket; its address may have a hundred characters, so that it is made from beside it."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS: dict[str, Callable[[Path], None]] = {"pipe": os.mkfifo, "folder": folder, "socket": listener, "device": device}
"""What is put in the place of a file."""
each_kind = pytest.mark.parametrize("put", KINDS.values(), ids=KINDS)


@each_kind
@pytest.mark.parametrize("name", ["images.json", *(f"{array}.npy" for array in ARRAYS)])
def test_images_that_are_no_file_are_refused_at_once(name: str, put: Callable[[Path], None], tmp_path: Path):
    for array in ARRAYS:
        shape = (4, 1, 8, 8) if array.endswith("images") else (4,)
        np.save(tmp_path / f"{array}.npy", np.zeros(shape, np.uint8 if array.endswith("images") else np.int64))
    seal(tmp_path, "a key")
    open_images(tmp_path)
    (tmp_path / name).unlink()
    put(tmp_path / name)
    with limited(SOON), pytest.raises(DataError, match=name):
        open_images(tmp_path)


@each_kind
def test_a_checkpoint_that_is_no_file_is_none(put: Callable[[Path], None], tmp_path: Path):
    path = tmp_path / "one.safetensors"
    put(path)
    put(path.with_name("one.safetensors.before"))
    with limited(SOON):
        assert read_checkpoint(path, "an identity") is None
        assert damaged(path) == []


@each_kind
def test_nothing_is_appended_to_what_is_no_file(put: Callable[[Path], None], tmp_path: Path):
    path = tmp_path / "a.log"
    put(path)
    with limited(SOON):
        append(path, "a traceback")


def test_nothing_is_appended_to_a_pipe_that_somebody_reads(tmp_path: Path):
    path = tmp_path / "a.log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with limited(SOON):
        append(path, "a traceback")
    assert os.read(reader, 100) == b""
    os.close(reader)


@each_kind
def test_a_figure_that_is_no_file_stays(put: Callable[[Path], None], tmp_path: Path):
    put(tmp_path / "one.svg")
    with limited(SOON):
        _remove(tmp_path / "one.svg")
    assert (tmp_path / "one.svg").is_symlink() or (tmp_path / "one.svg").exists()


def test_weights_that_are_no_file_are_not_written_ones(tmp_path: Path):
    for kind, put in KINDS.items():
        put(tmp_path / kind)
    code = (
        "import sys; from pathlib import Path; from scalesearch.emit.weights import is_written;"
        "sys.exit(any(map(is_written, map(Path, sys.argv[1:]))))"
    )
    command = [sys.executable, "-c", code, *(str(tmp_path / kind) for kind in KINDS)]
    with subprocess.Popen(command) as reader:  # a process of its own: the library waits for a pipe behind all signals
        try:
            assert reader.wait(60) == 0
        finally:
            reader.kill()


def test_a_folder_in_the_place_of_a_table_is_named_by_the_run_that_would_write_it(
    call: Call, tiny_npz: Path, tmp_path: Path
):
    request = Request(budget="0.5x", data=str(tiny_npz), step=0.2, policy="grid", images=256, proxy_resolution=12)
    place = tmp_path / "run"
    folder_in_place = place / "candidates.csv"
    folder_in_place.mkdir(parents=True)
    write_plan(place, resolve(request)[0])
    options = ("--budget", "0.5x", "--data", tiny_npz, "--step", "0.2", "--policy", "grid", "--images", "256")
    told = call("run", *options, "--proxy-resolution", "12", "--out", place, "--quiet")
    assert told.refusal == f"scalesearch: {folder_in_place}: Is a directory; mend that, or choose another place"
    assert list(place.glob(".candidates*")) == []
