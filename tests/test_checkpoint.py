"""Checkpoints: what is read is what was written, or nothing at all."""

import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scalesearch.proxy.checkpoint import read_checkpoint, write_checkpoint
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


def stored(tmp_path: Path) -> Path:
    path = tmp_path / "one.safetensors"
    write_checkpoint(path, TENSORS, RESULTS, "this trial")
    return path


def test_tensors_and_results_come_back_to_the_bit(tmp_path: Path):
    found = read_checkpoint(stored(tmp_path), "this trial")
    assert found is not None
    tensors, results = found
    assert results == RESULTS
    assert {name: bits(value) for name, value in tensors.items()} == {n: bits(v) for n, v in TENSORS.items()}


def test_what_is_read_does_not_change_with_the_file(tmp_path: Path):
    path = stored(tmp_path)
    found = read_checkpoint(path, "this trial")
    assert found is not None
    write_checkpoint(path, {name: torch.zeros_like(value) for name, value in TENSORS.items()}, [], "this trial")
    assert bits(found[0]["module.weight"]) == bits(TENSORS["module.weight"])


def test_a_checkpoint_of_another_trial_is_none(tmp_path: Path):
    assert read_checkpoint(stored(tmp_path), "another trial") is None


def test_a_missing_checkpoint_is_none(tmp_path: Path):
    assert read_checkpoint(tmp_path / "none.safetensors", "this trial") is None


def test_a_folder_in_the_place_of_a_checkpoint_is_none(tmp_path: Path):
    assert read_checkpoint(tmp_path, "this trial") is None


@pytest.mark.parametrize("sixteenths", range(16))
def test_a_checkpoint_cut_short_is_none(tmp_path: Path, sixteenths: int):
    path = stored(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * sixteenths // 16])
    assert read_checkpoint(path, "this trial") is None


def test_a_checkpoint_without_its_last_byte_is_none(tmp_path: Path):
    path = stored(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert read_checkpoint(path, "this trial") is None


@pytest.mark.parametrize("content", [b"\0" * 4096, b"\xff" * 4096, b"{}", b"PK\x03\x04" * 99], ids=repr)
def test_garbage_is_none(tmp_path: Path, content: bytes):
    path = tmp_path / "one.safetensors"
    path.write_bytes(content)
    assert read_checkpoint(path, "this trial") is None


@pytest.mark.parametrize("rows", ["", "null", "1", '{"a": 1}', "[1]", '[{"epoch": 1}]', "[", '[{"rank": 1}]'])
def test_results_that_are_none_make_the_checkpoint_none(tmp_path: Path, rows: str):
    path = tmp_path / "one.safetensors"
    save_file(TENSORS | {"module.weight": torch.zeros(1)}, path, {"results": rows, "identity": "this trial"})
    assert read_checkpoint(path, "this trial") is None


def test_a_safetensors_file_of_someone_else_is_none(tmp_path: Path):
    path = tmp_path / "one.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    assert read_checkpoint(path, "this trial") is None


def test_a_disk_that_fills_up_leaves_the_old_checkpoint(tmp_path: Path):
    path = stored(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_checkpoint(path, {"weight": torch.zeros(4096)}, RESULTS[:1], "this trial")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = read_checkpoint(path, "this trial")
    assert found is not None
    assert found[1] == RESULTS
    write_checkpoint(path, TENSORS, RESULTS[:1], "this trial")
    again = read_checkpoint(path, "this trial")
    assert again is not None
    assert again[1] == RESULTS[:1]


WRITER = """
import sys, torch
from pathlib import Path
from scalesearch.proxy.checkpoint import write_checkpoint
from scalesearch.recipe import EpochResult
for epoch in range(1, 100_000):
    results = [[EpochResult(epoch=epoch, train_loss=0.0, accuracy=0.0, loss=0.0)]]
    write_checkpoint(Path(sys.argv[1]), {"weight": torch.full((300_000,), float(epoch))}, results, "this trial")
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
        found = read_checkpoint(path, "this trial")
        assert found is not None
        tensors, [[result]] = found
        assert torch.equal(tensors["weight"], torch.full((300_000,), float(result.epoch)))
        assert result == replace(RESULTS[0][0], epoch=result.epoch, train_loss=0.0, accuracy=0.0, loss=0.0)
