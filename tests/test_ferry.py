"""A store of checkpoints that is slow or silent: nobody waits for it but who has to, and never without a word."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("fsspec", reason="needs scalesearch[ray]")

from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import register_implementation

from scalesearch.engine.afar import Afar
from scalesearch.engine.ferry import Errands, Ferry
from scalesearch.engine.work import Kept, Noticed
from scalesearch.trials import TrialKey

KEY = TrialKey(proxy="tiny", seed=0, rung=3)


class Silent(MemoryFileSystem):
    """A store that answers once it is let."""

    protocol = "silent"
    answers = threading.Event()
    kept: bytes | None = None
    """What each of its files holds; None = there is none."""

    def cat_file(self, *arguments: object, **options: object) -> object:
        self.answers.wait()
        if self.kept is None:
            raise FileNotFoundError
        return self.kept

    def pipe_file(self, path: str, value: bytes, *arguments: object, **options: object) -> None:
        self.answers.wait()
        super().pipe_file(path, value)


@pytest.fixture
def ferry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ferry]:
    """To such a store, of whose silence people are told soon."""
    register_implementation("silent", Silent)
    monkeypatch.setattr("scalesearch.engine.ferry.SILENT", 0.5)
    Silent.answers.clear()
    Silent.kept = None
    yield Ferry(Afar("silent://run"), tmp_path / "a.safetensors")
    Silent.answers.set()
    Silent.store.clear()


def kept(step: int) -> Kept:
    return Kept(KEY, step)


def test_errands_are_done_in_their_order_and_hold_up_nobody():
    gate, done, errands = threading.Event(), list[str](), Errands()

    def errand(name: str, fault: Noticed | None = None) -> Callable[[], Noticed | None]:
        def do() -> Noticed | None:
            gate.wait()
            done.append(name)
            return fault

        return do

    start = time.monotonic()
    for name in "abc":
        errands.add(errand(name, Noticed(name) if name == "b" else None))
    assert errands.heard() == []
    assert errands.wait(0.2) == []
    assert time.monotonic() - start < 5
    assert not errands.are_done
    gate.set()
    assert errands.wait(60) == [Noticed("b")]
    assert errands.are_done
    assert done == ["a", "b", "c"]


def test_of_checkpoints_that_come_while_one_is_on_its_way_the_last_follows(ferry: Ferry, tmp_path: Path):
    told = []
    for step in (1, 2, 3):
        (tmp_path / "a.safetensors").write_bytes(b"%d" % step)
        told += ferry.told([kept(step)])
    assert told == []
    Silent.answers.set()
    landed = [event for events in ferry.landed(is_spent=False) for event in events]
    assert landed == [kept(1), kept(3)]
    assert {content.getvalue() for content in Silent.store.values()} == {b"1", b"3"}


def test_nothing_follows_a_checkpoint_that_is_spent(ferry: Ferry, tmp_path: Path):
    for step in (1, 2):
        (tmp_path / "a.safetensors").write_bytes(b"%d" % step)
        ferry.told([kept(step)])
    Silent.answers.set()
    assert [event for events in ferry.landed(is_spent=True) for event in events] == [kept(1)]


def test_a_silent_store_is_told_of_and_the_work_ends_without_it(ferry: Ferry, tmp_path: Path):
    (tmp_path / "a.safetensors").write_bytes(b"1")
    ferry.told([kept(1)])
    last = [event for events in ferry.landed(is_spent=False) for event in events]
    assert last == [Noticed("silent://run has not answered for 0 s; going on without")]


def test_a_silent_store_is_waited_for_at_the_beginning_and_told_of_once(ferry: Ferry, tmp_path: Path):
    told, end = [], time.monotonic() + 2
    for events in ferry.fetched():
        told += events
        if time.monotonic() > end:
            Silent.answers.set()
    assert told == [Noticed("silent://run has not answered for 0 s; waiting for it")]
    assert list(tmp_path.iterdir()) == []


def test_a_work_begins_anew_without_a_checkpoint_that_never_comes_and_a_late_one_harms_nothing(
    ferry: Ferry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("scalesearch.engine.ferry.LATEST", 1.5)
    Silent.kept = b"0"
    begun = time.monotonic()
    assert [event for events in ferry.fetched() for event in events] == [
        Noticed("silent://run has not answered for 0 s; waiting for it"),
        Noticed("silent://run has not answered for 2 s; beginning anew"),
    ]
    checkpoint = tmp_path / "a.safetensors"
    checkpoint.write_bytes(b"1")
    assert ferry.told([kept(1)]) == []
    last = [event for events in ferry.landed(is_spent=False) for event in events]
    assert last == [Noticed("silent://run has not answered for 0 s; going on without")]
    assert time.monotonic() - begun < 60
    Silent.answers.set()
    while list(tmp_path.iterdir()) != [checkpoint]:
        assert time.monotonic() - begun < 120
        time.sleep(0.05)
    assert checkpoint.read_bytes() == b"1"


@pytest.mark.usefixtures("ferry")
def test_a_work_begins_anew_where_its_checkpoint_cannot_be_brought(tmp_path: Path):
    Silent.answers.set()
    (tmp_path / "file").touch()
    ferry = Ferry(Afar("silent://run"), tmp_path / "file" / "a.safetensors")
    ((told,),) = [events for events in ferry.fetched() if events]
    assert isinstance(told, Noticed)
    assert told.text.startswith("no checkpoint can be read from silent://run: ")
    assert told.text.endswith("; trials begin anew")


def test_a_store_that_answers_again_is_waited_for_at_the_end(
    ferry: Ferry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("scalesearch.engine.ferry.LATEST", 0.5)
    assert list(ferry.fetched())
    monkeypatch.setattr("scalesearch.engine.ferry.SILENT", 60)
    (tmp_path / "a.safetensors").write_bytes(b"1")
    told, end = ferry.told([kept(1)]), time.monotonic() + 60
    Silent.answers.set()
    while not Silent.store:
        assert time.monotonic() < end
        told += ferry.told([])
        time.sleep(0.05)
    told += ferry.told([kept(2)])
    told += [event for events in ferry.landed(is_spent=False) for event in events]
    assert told[-1] == kept(2)
    assert not any(isinstance(event, Noticed) for event in told)


def test_what_a_store_keeps_comes_to_its_place(ferry: Ferry, tmp_path: Path):
    Silent.answers.set()
    Silent.kept = b"0"
    assert [event for events in ferry.fetched() for event in events] == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a.safetensors": b"0",
        "a.safetensors.before": b"0",
    }
