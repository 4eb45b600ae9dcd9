"""Several processes that train one network: what one process comes to that goes through the same micro-batches."""

import multiprocessing
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from preparing import smallest_images, smallest_work

from scalesearch.engine.node import Trainer
from scalesearch.engine.work import Event, Failed, Finished, Kept, Progress, Work
from scalesearch.proxy.images import open_images
from scalesearch.proxy.ranks import opened
from scalesearch.recipe import EpochResult

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smallest_images(tmp_path_factory.mktemp("ranks") / "data")


def other(pipe: Connection) -> None:
    """The life of a trainer that follows: it meets the others, and trains beside the first as often as it is told."""
    trainer = Trainer(uses_gpu=False)
    trainer.meet(*pipe.recv())
    while True:
        one, fingerprint = pipe.recv()
        pipe.send(trainer.follow(one, fingerprint))


def first(pipe: Connection, count: int) -> None:
    """The life of the first one: it tells the place, and then what comes of each work; some end behind a step."""
    trainer = Trainer(uses_gpu=False)
    address = trainer.open("127.0.0.1", count)
    pipe.send(address)
    trainer.meet(address, 0, count)
    while True:
        one, fingerprint, is_halted = pipe.recv()
        assert trainer.begin(one, fingerprint)
        if is_halted:
            trainer.halt()
        found: list[Event] = []
        while report := trainer.advance():
            found += report.events
        trainer._stopping.clear()  # a trainer that was halted has no later work but here
        pipe.send(found)


@pytest.mark.skipif(sys.platform != "linux", reason="needs two addresses of this host")
def test_the_place_where_trainers_meet_is_open_at_its_address_alone():
    _store, address = opened("127.0.0.1", 2)
    host, port = address.split(":")
    socket.create_connection((host, int(port)), timeout=10).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", int(port)), timeout=10)  # another address of this host


@contextmanager
def trainers(count: int) -> Iterator[list[Connection]]:
    """Processes that have met, by their pipes, the first one first."""
    pipes, processes = [], []
    for rank in range(count):
        ours, theirs = SPAWN.Pipe()
        arguments = (theirs,) if rank else (theirs, count)
        processes.append(SPAWN.Process(target=other if rank else first, args=arguments, daemon=True))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    try:
        address = pipes[0].recv()
        for rank, pipe in enumerate(pipes[1:], 1):
            pipe.send((address, rank, count))
        yield pipes
    finally:
        for process in processes:
            process.kill()
            process.join()


def trained(pipes: list[Connection], one: Work, *, is_halted: bool = False) -> list[Event]:
    fingerprint = open_images(one.data).fingerprint
    pipes[0].send((one, fingerprint, is_halted))
    for pipe in pipes[1:]:
        pipe.send((one, fingerprint))
    found = pipes[0].recv()
    assert all(pipe.recv() for pipe in pipes[1:])  # every one has ended too
    return found


def results(events: list[Event]) -> list[EpochResult]:
    return [event.result for event in events if isinstance(event, Progress)]


@pytest.fixture(scope="module")
def alone() -> Iterator[list[Connection]]:
    with trainers(1) as pipes:
        yield pipes


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Connection]]:
    with trainers(2) as pipes:
        yield pipes


def test_two_processes_have_the_bits_of_one_that_adds_up_two_micro_batches(
    alone: list[Connection], pair: list[Connection], data: Path, tmp_path: Path
):
    expected = trained(alone, smallest_work(data, tmp_path / "alone", micro_batch=8))
    found = trained(pair, smallest_work(data, tmp_path / "pair", micro_batch=8))
    assert found == expected
    assert isinstance(found[-1], Finished)
    whole = trained(alone, smallest_work(data, tmp_path / "whole", micro_batch=16))
    assert results(whole) != results(expected)  # norms see whole batches there


@pytest.mark.parametrize(("count", "micro_batch"), [(3, 6), (3, 8), (2, 16)], ids=["unequal", "one idle", "all idle"])
def test_processes_with_unequal_shares_come_to_the_same_but_for_the_order_of_the_sum(
    alone: list[Connection], data: Path, tmp_path: Path, count: int, micro_batch: int
):
    expected = results(trained(alone, smallest_work(data, tmp_path / "alone", micro_batch=micro_batch, epochs=1)))
    with trainers(count) as pipes:
        found = results(trained(pipes, smallest_work(data, tmp_path / "many", micro_batch=micro_batch, epochs=1)))
    assert [one.train_loss for one in found] == pytest.approx([one.train_loss for one in expected], rel=1e-4)
    assert [one.loss for one in found] == pytest.approx([one.loss for one in expected], rel=1e-3)


def test_processes_that_are_stopped_go_on_from_the_checkpoint_of_the_first_and_have_the_same_bits(
    pair: list[Connection], data: Path, tmp_path: Path
):
    expected = results(trained(pair, smallest_work(data, tmp_path / "undisturbed", micro_batch=8, dropout=0.3)))
    one = smallest_work(data, tmp_path / "stopped", micro_batch=8, dropout=0.3)
    for step in (1, 2, 3):
        told = trained(pair, one, is_halted=True)
        assert isinstance(told[-1], Failed)
        assert [event.step for event in told if isinstance(event, Kept)] == [step]
    told = trained(pair, one)
    assert isinstance(told[-1], Finished)
    assert results(told) == expected
