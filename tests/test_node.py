"""What a trainer leaves on its node: nothing of a trial that has ended, nothing of a trainer that was killed."""

import gc
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from preparing import smallest_images, smallest_work

pytest.importorskip("fsspec", reason="needs scalesearch[ray]")

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from scalesearch.engine.afar import Afar
from scalesearch.engine.node import Trainer
from scalesearch.engine.work import Failed, Finished, Kept, Progress, Work
from scalesearch.proxy.images import open_images
from scalesearch.proxy.train import Training


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where trainers have their folders."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def trained(trainer: Trainer, work: Work, *, is_halted: bool = False) -> list[object]:
    assert trainer.begin(work, open_images(work.data).fingerprint)
    if is_halted:
        trainer.halt()
    found: list[object] = []
    while report := trainer.advance():
        found += report.events
    trainer._stopping.clear()  # a trainer that was halted has no later work but here
    return found


@pytest.mark.parametrize("is_afar", [False, True], ids=["here alone", "at a URL too"])
def test_a_trainers_copies_of_checkpoints_go_with_their_trial(place: Path, tmp_path: Path, is_afar: bool):
    store = tmp_path / "store"
    trainer = Trainer(uses_gpu=False, afar=Afar(store.as_uri()) if is_afar else None)
    work = smallest_work(smallest_images(tmp_path / "data"), tmp_path, micro_batch=16)
    work = replace(work, checkpoint=tmp_path / "not seen here" / "a.safetensors")
    with trainer._own:
        for step in (1, 2, 3):
            told = trained(trainer, work, is_halted=True)
            assert isinstance(told[-1], Failed)
            assert [event.step for event in told if isinstance(event, Kept)] == [step]
        assert {path.name for path in place.rglob("*.safetensors*")} == {"a.safetensors", "a.safetensors.before"}
        assert isinstance(trained(trainer, work)[-1], Finished)
        assert [path for path in place.rglob("*") if path.is_file()] == []
    assert len(list(store.iterdir())) == 2 if is_afar else not store.exists()


def test_nothing_of_a_training_is_held_when_it_is_told_to_be_over(place: Path, tmp_path: Path):
    trainer = Trainer(uses_gpu=False)
    work = smallest_work(smallest_images(tmp_path / "data"), tmp_path, micro_batch=16)
    with trainer._own:
        assert trainer.begin(work, open_images(work.data).fingerprint)
        for is_over in (False, True):
            while (report := trainer.advance()) and report.is_over != is_over:
                pass
            assert report
            assert any(type(one) is Training for one in gc.get_objects()) != is_over


class Slow(MemoryFileSystem):
    """A store that takes its time."""

    protocol = "slow"
    REST = 1.5
    """For each question [s]."""

    def cat_file(self, *arguments: Any, **options: Any) -> Any:
        time.sleep(self.REST)
        return super().cat_file(*arguments, **options)

    def pipe_file(self, *arguments: Any, **options: Any) -> Any:
        time.sleep(self.REST)
        return super().pipe_file(*arguments, **options)


@pytest.fixture
def slow() -> Iterator[str]:
    """A folder of such a store."""
    fsspec.register_implementation("slow", Slow)
    yield f"slow://{secrets.token_hex(4)}"
    MemoryFileSystem.store.clear()


def test_a_slow_store_never_keeps_a_trainer_from_answering_nor_from_training(
    slow: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("scalesearch.engine.trial.SOONEST", 0.0)  # a checkpoint behind every step that may have one
    monkeypatch.setattr("scalesearch.engine.trial.CHECKPOINTS", 1.0)
    trainer = Trainer(uses_gpu=False, afar=Afar(slow))
    work = smallest_work(smallest_images(tmp_path / "data"), tmp_path, micro_batch=16)
    work = replace(work, checkpoint=tmp_path / "not seen here" / "a.safetensors")
    with trainer._own:
        assert trainer.begin(work, open_images(work.data).fingerprint)
        trainer.halt()
        told, silences, start = list[object](), list[float](), time.monotonic()
        while report := trainer.advance():
            silences.append(time.monotonic() - start)
            told += report.events
            start = time.monotonic()
        assert max(silences) < Slow.REST
        assert [type(event) for event in told] == [Kept, Failed]  # told of as kept when it has come there
        store, folder = fsspec.core.url_to_fs(slow)
        assert [path.rpartition("/")[2] for path in store.find(folder)] == ["a.safetensors"]
        trainer._stopping.clear()
        told = trained(trainer, work)
    assert isinstance(told[-1], Finished)
    plain = Trainer(uses_gpu=False)
    with plain._own:
        assert accuracies(told) == accuracies(trained(plain, work))


def accuracies(told: Sequence[object]) -> list[float]:
    return [event.result.accuracy for event in told if isinstance(event, Progress)]


LIFE = """
import time
from scalesearch.engine.node import Trainer
trainer = Trainer(uses_gpu=False)
print(trainer._own.name, flush=True)
time.sleep(600)
"""


@pytest.fixture
def lives(place: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes with a trainer each."""
    options = {"stdout": subprocess.PIPE, "text": True, "env": {**os.environ, "TMPDIR": str(place)}}
    started = [subprocess.Popen([sys.executable, "-c", LIFE], **options) for _ in range(2)]
    yield started
    for one in started:
        one.kill()
        one.communicate()


@pytest.mark.skipif(os.name != "posix", reason="asks for processes as POSIX does")
def test_a_new_trainer_removes_the_folders_of_killed_ones_alone(place: Path, lives: list[subprocess.Popen[str]]):
    foreign = place / "scalesearch-another.host-4194305-abc"
    foreign.mkdir()
    folders = [Path(one.stdout.readline().strip()) for one in lives if one.stdout]
    for folder in folders:
        (folder / "a.safetensors").write_bytes(b"checkpoint")
    lives[0].kill()
    lives[0].wait()
    with Trainer(uses_gpu=False)._own as own:
        assert set(place.iterdir()) == {foreign, folders[1], Path(own)}
    assert list(folders[1].iterdir())
