"""A server that is restarted, killed and frozen under a run at work costs no byte of the answer, nor of the study."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from disturbing import SEARCHES, STANDING_IN, TINY, Run, assert_is_whole, contents, ends
from judging import FULL
from servers import IS_THERE, Server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not IS_THERE, reason="needs a PostgreSQL server's binaries")]
pytest.importorskip("psycopg")

DISTURBANCES = 30 if FULL else 4
POLICY = "grid"
PACE = {"STEP_SECONDS": "0.1", "STUDY_REST": "0.05"}
"""Steps slower than in other tests, and a study that is written nearly all the time, so that faults meet it."""


@pytest.fixture
def server() -> Iterator[Server]:
    """One that no other test needs."""
    found = Server()
    yield found
    found.freeze(signal.SIGCONT)
    found.stop("immediate")
    found.remove()


def restart(server: Server, chance: random.Random) -> None:
    server.stop()
    come_back(server, chance)


def end_at_once(server: Server, chance: random.Random) -> None:
    server.stop("immediate")
    come_back(server, chance)


def kill(server: Server, chance: random.Random) -> None:
    server.kill()
    come_back(server, chance)


def come_back(server: Server, chance: random.Random) -> None:
    time.sleep(chance.uniform(0, 2))
    server.start()


def freeze(server: Server, chance: random.Random) -> None:
    server.freeze(signal.SIGSTOP)
    time.sleep(chance.uniform(0.5, 5))
    server.freeze(signal.SIGCONT)


WAYS = (restart, freeze, kill, end_at_once)


@pytest.mark.timeout(3600)
def test_a_server_that_is_restarted_killed_and_frozen_costs_no_byte_and_no_trial_of_the_study(
    server: Server,
    program: Callable[..., Any],
    tiny_npz: Path,
    begun: Path,
    tmp_path: Path,
):
    def start(folder: Path) -> Any:
        options = [*TINY.split(), *SEARCHES[POLICY].split(), "--storage", server.url, "--out", folder]
        return program("run", "--data", tiny_npz, *options, entry=STANDING_IN, **PACE)

    undisturbed = start(tmp_path / "undisturbed")
    assert undisturbed.wait() == 0, undisturbed.err.read_text()
    run = Run(start, contents(tmp_path / "undisturbed"), server.driver, begun)
    chance, done, number = random.Random(0), 0, 0
    while done < DISTURBANCES:
        number += 1
        done += disturb_until_done(server, run, tmp_path / f"run-{number}", chance, done)
        assert_is_whole(run, tmp_path / f"run-{number}")


def disturb_until_done(server: Server, run: Run, folder: Path, chance: random.Random, before: int) -> int:
    """Disturb the server at random until a run has come to its end or enough is done; returns the disturbances."""
    done, going = 0, run.start(folder)
    while going.process.poll() is None and not ends(folder):
        time.sleep(0.05)  # at first it has to be there, and what it misses has to be more than a plan
    while before + done < DISTURBANCES:
        time.sleep(chance.uniform(0.1, 2))
        if going.process.poll() is not None:
            break
        WAYS[(before + done) % len(WAYS)](server, chance)
        done += 1
    assert going.wait() == 0, going.err.read_text()
    return done
