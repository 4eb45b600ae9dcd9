"""The study on a PostgreSQL server that the test starts: it may be restarted, killed, frozen or away; nothing waits."""

import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
from following import Seen, begun, expected, searched, states, stored
from servers import IS_THERE, SECRET, Server

from scalesearch.engine.work import Event, Finished
from scalesearch.errors import StudyError
from scalesearch.journal import NAME, read_journal
from scalesearch.repair import repair
from scalesearch.storage import Storage, on_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not IS_THERE, reason="needs a PostgreSQL server's binaries"),
]
psycopg = pytest.importorskip("psycopg")


@pytest.fixture
def server(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, and a study that does not rest for long."""
    monkeypatch.setattr("scalesearch.mirror.RESTS", (0.05, 0.05))
    monkeypatch.setattr("scalesearch.mirror.RETRY", 0.2)
    monkeypatch.setattr("scalesearch.mirror.STUCK", 1.0)
    return postgres


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    """What the same search comes to in a file."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    _, study = searched(folder)
    assert study.close(within=120)
    return states(folder)


def on(server: Server, tmp_path: Path) -> Storage:
    """A run folder whose study is on the server."""
    place = on_server(server.url, tmp_path.name)
    begun(tmp_path / "run", place)
    return place


def restart(server: Server) -> None:
    server.stop()
    server.start()


def kill(server: Server) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("what", [None, restart, kill], ids=["undisturbed", "restarted", "killed"])
def test_a_study_on_a_server_comes_to_the_same_whatever_happens_to_the_server(
    server: Server,
    plain: list[Seen],
    what: Callable[[Server], None] | None,
    tmp_path: Path,
):
    ended: list[Event] = []

    def heard(event: Event) -> None:
        time.sleep(0.02)
        if isinstance(event, Finished):
            ended.append(event)
            if len(ended) == 3 and what:
                what(server)

    place = on(server, tmp_path)
    _, study = searched(tmp_path / "run", place, heard)
    assert study.close(within=120)
    assert stored(server.driver, place.study) == plain == expected(tmp_path / "run")


def test_a_frozen_server_holds_up_nothing_and_is_told_of(server: Server, plain: list[Seen], tmp_path: Path):
    place = on(server, tmp_path)
    ended: list[Event] = []

    def heard(event: Event) -> None:
        time.sleep(0.15)
        if isinstance(event, Finished):
            ended.append(event)
            if len(ended) == 2:
                server.freeze(signal.SIGSTOP)

    try:
        notices, study = searched(tmp_path / "run", place, heard)
        assert not study.close(within=0.5)
        assert any("no answer; the search goes on" in text for text in notices), notices
    finally:
        server.freeze(signal.SIGCONT)
    repair(tmp_path / "run", server.url)
    assert sorted(stored(server.driver, place.study)) == sorted(plain)


def test_a_server_that_is_away_at_the_end_is_caught_up_with_by_repair(
    server: Server,
    plain: list[Seen],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    place = on(server, tmp_path)
    server.stop()
    notices, study = searched(tmp_path / "run", place, lambda _: time.sleep(0.1))
    assert not study.close(within=1)
    server.start()
    assert len([text for text in notices if "cannot be written" in text]) == 1
    assert SECRET not in " ".join(notices)
    monkeypatch.setenv("PGPASSWORD", SECRET)  # the journal has none
    with pytest.raises(StudyError, match="PGPASSWORD is sent to no server that a file names"):
        repair(tmp_path / "run")
    told = repair(tmp_path / "run", place.shown)
    assert (told.added, told.storage) == (len(plain), place.shown)
    assert SECRET not in (tmp_path / "run" / NAME).read_text()
    assert stored(server.driver, place.study) == plain


def test_several_runs_share_a_database(server: Server, plain: list[Seen], tmp_path: Path):
    folders = [tmp_path / name / "run" for name in ("one", "two")]
    names = set()
    for folder in folders:
        folder.parent.mkdir()
        _, study = searched(folder)
        assert study.close(within=120)
        names.add(repair(folder, server.url).study)
    assert len(names) == 2
    assert [stored(server.driver, name) for name in names] == [plain, plain]


@pytest.mark.parametrize("fault", ["password", "host", "database"])
def test_a_url_that_cannot_be_used_is_refused_before_training_without_its_password(
    server: Server, call: Callable[..., Any], fault: str, tmp_path: Path
):
    place = f"127.0.0.1:{server.port}"
    url = {
        "password": f"postgresql://me:wrong-{SECRET}@{place}/postgres",
        "host": f"postgresql://me:{SECRET}@127.0.0.1:1/postgres",
        "database": f"postgresql://me:{SECRET}@{place}/none",
    }[fault]
    told = call("run", "--preset", "quick", "--storage", url, "--out", tmp_path / "run")
    assert told.code == 2
    [line] = told.err.splitlines()
    assert line.startswith("scalesearch: no study can be kept in postgresql://me@127.0.0.1:")
    assert SECRET not in told.out + told.err
    assert list(tmp_path.iterdir()) == []


def studies(url: str) -> list[str]:
    with closing(psycopg.connect(url)) as opened:
        return [name for (name,) in opened.execute("SELECT study_name FROM studies ORDER BY study_name")]


def test_a_run_that_is_refused_before_it_has_images_leaves_no_folder_and_no_study(
    server: Server, call: Callable[..., Any], tmp_path: Path
):
    url = server.database(tmp_path.name)
    data = "--data", "torchvision:CIFAR10", "--data-root", tmp_path / "none"
    told = call("run", *data, "--preset", "quick", "--quiet", "--storage", url, "--out", tmp_path / "run")
    assert "torchvision:CIFAR10 cannot be read from" in told.refusal
    assert list(tmp_path.iterdir()) == []
    assert studies(url) == []


OPENING = """
import sys
from scalesearch.study import reach, try_out
from scalesearch.storage import on_server
import psycopg
place = on_server(*sys.argv[1:])
print("ready", flush=True)
sys.stdin.readline()
reach(place)
try_out(place)
"""


@pytest.mark.parametrize("turn", range(3))
def test_runs_that_begin_together_in_an_empty_database_all_find_their_tables(
    postgres: Server, tmp_path: Path, turn: int
):
    url, names = postgres.database(tmp_path.name), [f"run {number}" for number in range(3)]
    with ExitStack() as stack:
        commands = [[sys.executable, "-c", OPENING, url, name] for name in names]
        runs = [stack.enter_context(Popen(one, stdin=PIPE, stdout=PIPE, text=True)) for one in commands]
        assert [run.stdout.readline() for run in runs] == ["ready\n"] * 3
        for run in runs:
            run.stdin.write("\n")
            run.stdin.flush()
        assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert studies(url) == names


def test_no_file_and_no_line_of_a_run_holds_the_password(
    server: Server, program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    folder = tmp_path / "run"
    first = program("run", *tiny_options, "--storage", server.url, "--out", folder)
    first.wait_for("2/8 ")
    first.interrupt()
    assert first.wait(30) == 130
    assert f"--storage postgresql://me@127.0.0.1:{server.port}/postgres" in first.err.read_text()
    second = program("run", *tiny_options, "--storage", server.url, "--out", folder)
    assert second.wait(400) == 0, second.err.read_text()
    said = [path.read_text() for one in (first, second) for path in (one.out, one.err)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert all(SECRET not in text for text in said)
    assert all(SECRET.encode() not in path.read_bytes() for path in files)
    assert not (folder / "study.db").exists()
    seen = stored(server.driver, read_journal(folder / NAME).bound["study"])
    assert seen == expected(folder)
    assert {state for _, state, _ in seen} == {"COMPLETE"}
