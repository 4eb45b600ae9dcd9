"""A server that is restarted, killed and frozen under a run at work costs no byte of the answer, nor of the study.

Nor does one whose database is spoilt; one that holds tables of somebody else is refused.
"""

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Program
from disturbing import FEW, SEARCHES, STANDING_IN, TINY, Run, assert_is_whole, assert_mirrored, contents, ends
from following import trials_of
from judging import FULL
from servers import IS_THERE, Server

from scalesearch.journal import NAME, read_journal

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


SPOILT: dict[str, tuple[str, ...]] = {
    "attributes that are no JSON": ("UPDATE trial_user_attributes SET value_json = '{'",),
    "a table gone": ("DROP TABLE trial_intermediate_values",),
    "attributes gone": ("DELETE FROM trial_user_attributes WHERE trial_id % 2 = 0",),
    "attributes of another kind": ("UPDATE trial_user_attributes SET value_json = '[null]'",),
    "trials gone": (
        *(f"DELETE FROM {name}" for name in ("trial_user_attributes", "trial_system_attributes", "trial_params")),
        *(f"DELETE FROM {name}" for name in ("trial_values", "trial_intermediate_values", "trials")),
    ),
    "values gone": ("DELETE FROM trial_values",),
    "trials that run for ever": ("UPDATE trials SET state = 'RUNNING'",),
    "trials that failed": ("UPDATE trials SET state = 'FAIL'",),
    "another's study": ("UPDATE studies SET study_name = 'another'",),
    "the layout of another Optuna": ("UPDATE alembic_version SET version_num = 'v0.0.1'",),
    "no version": ("DELETE FROM version_info", "DELETE FROM alembic_version"),
    "a trial of a person": (
        "INSERT INTO trials (number, study_id, state) SELECT 10000, study_id, 'WAITING' FROM studies",
    ),
}
FOREIGN = ("the layout of another Optuna",)
"""What only whoever looks after the server can mend: others' studies may be in such a database."""


@pytest.fixture(scope="module")
def followed(
    postgres: Server, tiny_npz: Path, begun: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path, str], Any]:
    """Starts the stand-in on a folder and a database."""
    place, started = tmp_path_factory.mktemp("followed"), list[Any]()

    def start(folder: Path, url: str) -> Any:
        options = ["--data", tiny_npz, *TINY.split(), *FEW.split(), "--storage", url, "--out", folder]
        where = place / f"program-{len(started)}"
        started.append(Program("run", *options, place=where, entry=STANDING_IN, STEP_SECONDS="0"))
        return started[-1]

    return start


@pytest.fixture(scope="module")
def whole(postgres: Server, followed: Callable[[Path, str], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, whose study is in the database `whole`."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    one = followed(folder, postgres.database("whole"))
    assert one.wait() == 0, one.err.read_text()
    return folder


@pytest.mark.parametrize("what", list(SPOILT) if FULL else list(SPOILT)[:3])
def test_a_spoilt_database_costs_no_byte_and_is_mended_but_for_another_layout_which_is_named(
    postgres: Server,
    followed: Callable[[Path, str], Any],
    whole: Path,
    program: Callable[..., Any],
    what: str,
    tmp_path: Path,
):
    url, folder = postgres.database(f"spoilt: {what}"[:40], "whole").replace(" ", "%20"), tmp_path / "run"
    shutil.copytree(whole, folder)
    postgres.told(url, *SPOILT[what])
    one = followed(folder, url)
    if one.wait():
        assert_refused(one.process.returncode, one.err.read_text(), postgres)
    mended = program("repair", folder, "--storage", url)
    assert (mended.wait() == 0) == (what not in FOREIGN), mended.err.read_text()
    if what in FOREIGN:
        assert_refused(mended.process.returncode, mended.err.read_text(), postgres)
    else:
        study = read_journal(folder / NAME).bound["study"]  # another one beside it where this one cannot be mended
        assert_mirrored(folder, trials_of(url.replace("://", "+psycopg://"), study))
    assert contents(folder) == contents(whole)


def assert_refused(code: int, said: str, server: Server) -> None:
    [line] = said.splitlines()
    assert code == 2
    assert f"postgresql://me@127.0.0.1:{server.port}/" in line
    assert "; " in line


@pytest.mark.parametrize("table", ["studies (name text)", "alembic_version (a int)", "version_info (a int)"])
def test_a_database_with_tables_of_somebody_else_under_the_same_names_is_refused_before_anything_is_written(
    postgres: Server,
    followed: Callable[[Path, str], Any],
    whole: Path,
    program: Callable[..., Any],
    table: str,
    tmp_path: Path,
):
    url = postgres.database(table.partition(" ")[0])
    postgres.told(url, f"CREATE TABLE {table}", "CREATE TABLE mine (a int)")
    one = followed(tmp_path / "run", url)
    one.wait()
    assert_refused(one.process.returncode, one.err.read_text(), postgres)
    assert not (tmp_path / "run").exists()
    before = (whole / NAME).read_bytes()
    mended = program("repair", whole, "--storage", url)
    mended.wait()
    assert_refused(mended.process.returncode, mended.err.read_text(), postgres)
    assert (whole / NAME).read_bytes() == before
