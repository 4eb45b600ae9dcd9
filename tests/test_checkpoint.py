"""Checkpoints: what is read is what was written, or nothing at all."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scalesearch.proxy.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from scalesearch.recipe import EpochResult

RESULTS = [
    [EpochResult(epoch=1, train_loss=0.1 + 0.2, accuracy=100 / 3, loss=1e-310)],
    [EpochResult(epoch=2, train_loss=2.0**0.5, accuracy=0.0, loss=1.7976931348623157e308)],
]
TENSORS = {
    "module.weight": torch.linspace(-1, 1, 48).view(2, 4, 3, 2).to(memory_format=torch.channels_last),
    "module.half": torch.randn(7, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "module.batches": torch.tensor(41),
    "optimizer.0.step": torch.tensor(3.0),
    "optimizer.0.odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
    "empty": torch.empty(0, 3),
}


def bits(value: torch.Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    return value.dtype, value.shape, value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def made(value: float = 1.0, step: int = 7) -> Checkpoint:
    return Checkpoint(tensors={"weight": torch.full((40,), value)}, results=RESULTS, step=step)


def write(path: Path, checkpoint: Checkpoint) -> None:
    write_checkpoint(path, checkpoint, "this trial")


def read(path: Path) -> Checkpoint | None:
    return read_checkpoint(path, "this trial")


def step_of(path: Path) -> int | None:
    found = read(path)
    return None if found is None else found.step


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "one.safetensors"
    write(file, Checkpoint(tensors=TENSORS, results=RESULTS, step=41))
    return file


def before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")


def test_tensors_results_and_step_come_back_to_the_bit(path: Path):
    found = read(path)
    assert found is not None
    assert (found.results, found.step) == (RESULTS, 41)
    assert {name: bits(value) for name, value in found.tensors.items()} == {n: bits(v) for n, v in TENSORS.items()}


def test_what_is_read_does_not_change_with_the_file(path: Path):
    found = read(path)
    assert found is not None
    write(path, made())
    write(path, made())
    assert bits(found.tensors["module.weight"]) == bits(TENSORS["module.weight"])


def test_a_checkpoint_of_another_trial_is_none(path: Path):
    assert read_checkpoint(path, "another trial") is None


def test_a_missing_checkpoint_is_none(tmp_path: Path):
    assert read(tmp_path / "none.safetensors") is None


def test_a_folder_in_the_place_of_a_checkpoint_is_none(tmp_path: Path):
    assert read(tmp_path) is None


def test_the_newer_of_two_is_read_and_the_older_where_that_is_gone(path: Path):
    write(path, made(step=42))
    assert step_of(path) == 42
    path.unlink()
    assert step_of(path) == 41
    write(path, made(step=43))
    write(path, made(step=44))
    assert sorted(path.parent.iterdir()) == [path, before(path)]
    assert (step_of(path), step_of(before(path))) == (44, 43)


def test_a_damaged_checkpoint_never_takes_the_place_of_the_whole_one_before(path: Path):
    write(path, made(step=42))
    path.write_bytes(b"damaged")
    write(path, made(step=43))
    assert (step_of(path), step_of(before(path))) == (43, 41)


@pytest.mark.parametrize("kept", [True, False], ids=["with the one before", "alone"])
def test_a_checkpoint_torn_or_ended_in_zeros_at_any_byte_is_not_read(path: Path, kept: bool):
    if kept:
        write(path, made(step=40))
    write(path, made(step=42))
    if not kept:
        before(path).unlink()
    content = path.read_bytes()
    for length in range(len(content)):
        for damaged in {content[:length], content[:length] + bytes(len(content) - length)} - {content}:
            path.write_bytes(damaged)
            assert step_of(path) == (40 if kept else None)


def test_a_flipped_bit_is_noticed_wherever_it_is(path: Path):
    write(path, made(step=42))
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert step_of(path) == 41
    before(path).write_bytes(flipped)
    assert read(path) is None


@pytest.mark.parametrize(
    "content", [b"\0" * 4096, b"\xff" * 4096, b"{}", b"PK\x03\x04" * 99, b"a" * 64 + b"\n"], ids=repr
)
def test_garbage_is_none(tmp_path: Path, content: bytes):
    path = tmp_path / "one.safetensors"
    path.write_bytes(content)
    assert read(path) is None


def test_a_file_of_another_program_under_a_right_seal_is_none(tmp_path: Path):
    path = tmp_path / "one.safetensors"
    save_file({"weight": torch.zeros(3)}, path, {"results": "[]", "identity": "this trial"})
    assert read(path) is None  # what earlier versions wrote
    content = path.read_bytes()
    path.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    assert read(path) is None


def test_a_disk_that_fills_up_leaves_the_old_checkpoint(path: Path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write(path, Checkpoint(tensors={"weight": torch.zeros(4096)}, results=RESULTS[:1], step=50))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert step_of(path) == 41
    assert list(path.parent.iterdir()) == [path]
    write(path, made(step=51))
    assert step_of(path) == 51


WRITER = """
import sys, torch
from pathlib import Path
from scalesearch.proxy.checkpoint import Checkpoint, write_checkpoint
for step in range(1, 100_000):
    one = Checkpoint(tensors={"weight": torch.full((300_000,), float(step))}, results=[], step=step)
    write_checkpoint(Path(sys.argv[1]), one, "this trial")
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path):
    path = tmp_path / "one.safetensors"
    for pause in (0.0, 0.013, 0.031):
        before = path.stat().st_mtime_ns if path.exists() else 0
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        while not path.exists() or path.stat().st_mtime_ns == before:
            assert writer.poll() is None
            time.sleep(0.001)
        time.sleep(pause)
        os.kill(writer.pid, signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        found = read(path)
        assert found is not None
        assert torch.equal(found.tensors["weight"], torch.full((300_000,), float(found.step)))
