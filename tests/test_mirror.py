"""The study that follows a search: it never holds it up, and comes up with it by itself or by `repair`."""

import fcntl
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import pytest
import sqlalchemy
from calling import Call
from conftest import Program
from following import begun, expected, searched, small, states, stored
from hypothesis import example, given
from hypothesis import strategies as st

from scalesearch.cli import _code
from scalesearch.errors import StudyError
from scalesearch.journal import NAME, read_journal
from scalesearch.repair import repair
from scalesearch.search import mirrored
from scalesearch.storage import in_folder, on_server, redacted, redacted_argument
from scalesearch.stored import read_run
from scalesearch.tables import trials_table
from scalesearch.trials import TrialKey

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished search with its study."""
    folder = tmp_path / "run"
    _, study = searched(folder)
    assert study.close(within=120)
    return folder


def test_a_finished_study_has_every_trial_of_the_journal_in_the_order_of_the_plan(folder: Path):
    assert [path.name for path in folder.glob("study*")] == ["study.db"]
    assert states(folder) == expected(folder)


def test_a_reader_that_holds_the_study_does_not_disturb_the_search(tmp_path: Path):
    folder = tmp_path / "run"
    begun(folder)
    with closing(sqlite3.connect(folder / "study.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM trials").fetchall()
        notices, study = searched(folder)
        assert study.close(within=120)
        reader.execute("SELECT * FROM trials").fetchall()
    assert notices == []
    assert states(folder) == expected(folder)


def test_a_writer_that_holds_the_study_delays_nothing_but_the_study(tmp_path: Path):
    folder = tmp_path / "run"
    begun(folder)
    with closing(sqlite3.connect(folder / "study.db")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        _, study = searched(folder)
        assert all(one.has_ended for one in read_journal(folder / NAME).results)
        assert not study.close(within=0.5)
        writer.rollback()
    assert repair(folder).trials == len(expected(folder))
    assert states(folder) == expected(folder)


def test_a_study_that_is_waited_for_is_told_of_as_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scalesearch.mirror.STUCK", 0.5)
    folder = tmp_path / "run"
    begun(folder)
    with closing(sqlite3.connect(folder / "study.db")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        study, notices, end = mirrored(in_folder(folder), *small()), list[str](), time.monotonic() + 60
        study.follow(images="y")
        while not notices and time.monotonic() < end:
            notices += study.notices()
            time.sleep(0.02)
        writer.rollback()
        assert study.close(within=120)
    told = "study.db is behind (a busy machine, or a lock): for 0.5 s no answer; the search goes on, the study follows"
    assert told in notices[0]


def test_a_study_that_cannot_be_had_is_told_of_once_and_the_search_goes_on(tmp_path: Path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "study.db").write_bytes(b"garbage" * 1000)
    (folder / NAME).touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scalesearch.mirror.RETRY", 0.05)
        study = mirrored(in_folder(folder), *small())
        study.follow(images="x")
        end = time.monotonic() + 60
        notices: list[str] = []
        while not notices and time.monotonic() < end:
            notices += study.notices()
            time.sleep(0.02)
        time.sleep(0.5)
        notices += study.notices()
        assert not study.close(within=0.1)
    [notice] = notices
    assert "study.db cannot be written: " in notice
    assert notice.endswith("; the search goes on, the study follows when it can")


# ---- repair


def damages() -> dict[str, Callable[[Path], object]]:
    return {
        "missing": lambda path: path.unlink(),
        "garbage": lambda path: path.write_bytes(b"garbage" * 1000),
        "cut": lambda path: path.write_bytes(path.read_bytes()[:20000]),
        "empty": lambda path: path.write_bytes(b""),
        "foreign": _foreign,
        "contradicting": _contradicting,
        "twofold": _twofold,
        "lagging": _lagging,
    }


def _foreign(path: Path) -> None:
    path.unlink()
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="scalesearch", direction="maximize")
    study.enqueue_trial({"x": 1})


def _change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(statement).rowcount
        connection.commit()


def _contradicting(path: Path) -> None:
    _change(path, "UPDATE trials SET state = 'FAIL' WHERE state = 'COMPLETE'")


def _twofold(path: Path) -> None:
    study = optuna.load_study(study_name="scalesearch", storage=f"sqlite:///{path}")
    study.add_trial(study.trials[0])
    study._storage.remove_session()  # type: ignore[attr-defined]


def _lagging(path: Path) -> None:
    _change(path, "UPDATE trials SET state = 'RUNNING' WHERE trial_id > 2")


@pytest.mark.parametrize("damage", damages())
def test_repair_brings_any_study_to_the_journal_and_keeps_what_was_damaged(folder: Path, damage: str):
    damages()[damage](folder / "study.db")
    found = repair(folder)
    assert states(folder) == expected(folder)
    assert found.trials == len(expected(folder))
    kept = damage in ("garbage", "cut", "foreign", "contradicting", "twofold")
    assert [path.name for path in found.aside] == ["study.damaged-1.db"] * kept
    assert all(path.is_file() for path in found.aside)
    assert (found.added == found.trials) is (damage != "lagging")
    again = repair(folder)
    assert (again.added, again.changed, again.aside, again.damaged) == (0, 0, (), ())


def test_repair_leaves_a_study_alone_that_somebody_has_locked(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scalesearch.study.BUSY", 0.1)
    content = (folder / "study.db").read_bytes()
    with closing(sqlite3.connect(folder / "study.db", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StudyError, match="cannot be read: database is locked; mend that, then repair again"):
            repair(folder)
    assert not list(folder.glob("study.damaged*"))
    assert len((folder / "study.db").read_bytes()) == len(content)


@pytest.mark.parametrize("url", ["mysql://x/y", "postgresql://me@127.0.0.1:1/none", None], ids=str)
def test_a_repair_that_is_refused_changes_no_file(
    url: str | None,
    folder: Path,
    files_of: Callable[[Path], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("scalesearch.study.BUSY", 0.1)
    with (folder / NAME).open("r+b") as journal:
        journal.write(b"?")
    with closing(sqlite3.connect(folder / "study.db", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        before = files_of(folder)
        assert _code(["repair", str(folder), *(["--storage", url] if url else [])]) == 2
        assert files_of(folder) == before
    [line] = capsys.readouterr().err.splitlines()
    assert {"mysql://x/y": "is no URL", None: "is locked"}.get(url, "no study can be kept in") in line


def test_a_damaged_study_is_set_aside_for_good_before_another_is_made(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "study.db").write_bytes(b"garbage" * 1000)
    sync, settled = os.fsync, list[set[str]]()

    def noted(file: int) -> None:
        sync(file)
        if os.fstat(file).st_ino == folder.stat().st_ino:
            settled.append({path.name for path in folder.glob("study*")})

    monkeypatch.setattr(os, "fsync", noted)
    repair(folder)
    assert {"study.damaged-1.db"} in settled


def test_repair_takes_damaged_lines_out_of_a_journal(folder: Path):
    lines = (folder / NAME).read_bytes().splitlines(keepends=True)
    lines[4] = lines[4][:20] + b"?" + lines[4][21:]
    (folder / NAME).write_bytes(b"".join(lines))
    found = repair(folder)
    assert found.damaged == (5,)
    assert (folder / "journal.damaged-1.jsonl").read_bytes() == b"".join(lines)
    assert (folder / NAME).read_bytes() == b"".join(lines[:4] + lines[5:])
    assert repair(folder).damaged == ()


def test_repair_tells_of_a_last_line_that_was_cut_off(folder: Path):
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(content[:-1])
    assert repair(folder).is_torn
    assert not repair(folder).is_torn


def test_repair_says_how_the_trials_stand_and_which_end_is_lost(folder: Path, call: Call):
    assert ": 8 ended\n" in call("repair", folder).out
    results = read_run(folder).results
    (folder / "trials.csv").write_text(trials_table(results))
    (folder / "ranking.json").write_text("{}")
    lines = (folder / NAME).read_bytes().splitlines(keepends=True)
    last = next(number for number in reversed(range(len(lines))) if b'"kind":"ended"' in lines[number])
    (folder / NAME).write_bytes(b"".join(lines[:last]) + lines[last][:-9])
    row = json.loads(lines[last])
    name = str(TrialKey(proxy=row["proxy"], seed=row["seed"], rung=row["rung"]))
    told = call("repair", folder).out
    assert "the last line of the journal was cut off and is left out; study " in told
    assert ": 7 ended, 1 begun\n" in told
    assert f"begun but not ended, though all epochs are there, so that the end is lost: {name}\n" in told
    assert f"trials.csv and ranking.json rest on ends that the journal does not have: {name}\n" in told
    assert "\nrun the same command: it trains the rest\n" in told
    document = call("repair", folder, "--json").done
    assert (document["ended"], document["waiting"], document["begun"], document["ahead"]) == (7, 0, [name], [name])
    assert document["lost_ends"] == [name]


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"state\ncomplete\n", b"proxy,seed,epochs,stage,state\na,x,1,search,failed"]
)
def test_a_table_of_trials_that_is_no_such_table_says_nothing(content: bytes, tmp_path: Path):
    begun(tmp_path / "run")
    (tmp_path / "run" / "trials.csv").write_bytes(content)
    found = repair(tmp_path / "run")
    assert (found.ended, found.waiting, found.ahead, found.is_finished) == (0, found.trials, (), False)


def test_repair_speaks_json_and_to_people_and_leaves_a_held_folder(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "study.db").unlink()
    assert _code(["repair", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    count = len(expected(folder))
    assert (document["schema_version"], document["trials"], document["added"]) == (2, count, count)
    assert _code(["repair", str(folder)]) == 0
    assert f": {count} trials, 0 added, 0 brought up" in capsys.readouterr().out
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert _code(["repair", str(folder)]) == 2
    assert "is in use by another run; wait for it" in capsys.readouterr().err


# ---- storages and their passwords


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me:secret@host/db", "postgresql://me@host/db"),
        ("postgresql://me:se/c@ret@host:1/db", "postgresql://me@host:1/db"),
        ("postgresql+psycopg://me:secret@host/db?sslmode=require", "postgresql+psycopg://me@host/db?sslmode=require"),
        ("postgresql:///db?host=/run&password=secret", "postgresql:///db?host=/run"),
        ("postgres://:secret@host/db?password=secret&user=me", "postgres://@host/db?user=me"),
        ("postgresql://host/db?pass%77ord=secret", "postgresql://host/db?…"),
        ("postgresql://host/db?PASSWORD=secret&sslmode=require", "postgresql://host/db?…&sslmode=require"),
        ("postgresql://host/db?sslmode=require&amp;password=secret", "postgresql://host/db?sslmode=require&…"),
        ("postgresql://host/db?sslmode=require#password=secret", "postgresql://host/db?…"),
        ("postgresql://host/db?password=secret&secret", "postgresql://host/db?…"),
        ("postgresql://host/db?user=me:secret", "postgresql://host/db?…"),
        ("postgresql://host/db#password=secret", "postgresql://host/db"),
        ("postgresql://host#password=a:secret", "postgresql://host"),
        ("postgresql://host:1?pass%77ord=a@secret", "postgresql://host@…"),
        ("postgresql://me@host/db?hostaddr=::1&port=1", "postgresql://me@host/db?hostaddr=::1&port=1"),
        ("az://box/run?sp=rw&sig=secret", "az://box/run?…"),
        ("simplecache::az://me:secret@box/run?sig=secret", "simplecache::az://me@box/run?…"),
        ("ftp://me:secret@host/run", "ftp://me@host/run"),
        ("simplecache::s3://me:se/c@ret@bucket/run", "simplecache::s3://me@bucket/run"),
        ("ray://host:10001", "ray://host:10001"),
        ("file:///shared/a:b@c", "file:///shared/a:b@c"),
    ],
)
def test_a_shown_url_has_no_password(url: str, shown: str):
    assert redacted(f"run --storage={url} --quiet") == f"run --storage={shown} --quiet"
    assert redacted(f"{url}; a mend, or {url}: a reason") == f"{shown}; a mend, or {shown}: a reason"
    assert redacted(json.dumps({"url": url})) == json.dumps({"url": shown}, ensure_ascii=False)
    assert redacted_argument(f"--storage={url}") == f"--storage={shown}"


PASSWORDS = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1)


@given(PASSWORDS)
@example("se'cret")
@example('se"cret')
@example("se?cret")
@example("se@cr/et:#?password=x&y")
def test_no_password_is_shown_whatever_stands_in_it(password: str):
    url = f"postgresql://me:{password}@host/db"
    place = on_server(url, "study")
    assert place.shown in ("postgresql://me@host/db", "postgresql://me@…")
    assert redacted_argument(f"--storage={url}") == f"--storage={place.shown}"
    if " " not in password:
        assert redacted(f"run --storage={url} --quiet") == f"run --storage={place.shown} --quiet"


@given(PASSWORDS.filter(lambda one: one not in "…"))
def test_no_password_is_told_whoever_says_it(password: str):
    place = on_server(f"postgresql://me:{quote(password)}@host/db", "study")
    for text in (password, repr(password), quote(password)):
        assert password not in place.told(f"{text}").replace("…", "")


@pytest.mark.parametrize("query", ["pass%77ord=", "PASSWORD=", "sslmode=require&amp;password=", "password=a&"])
def test_no_secret_of_a_query_is_told_whoever_says_it(query: str):
    assert "hidden" not in on_server(f"postgresql://host/db?{query}hidden", "study").told("no user hidden")


@pytest.mark.parametrize(
    "url", ["me:secret@host/db", "mysql://me:secret@host/db", "secret", "", "sqlite:///x.db", "postgresql:/secret"]
)
def test_what_is_no_url_of_postgresql_is_refused(url: str, call: Callable[..., Any], tmp_path: Path):
    told = call("run", "--storage", url or "?", "--out", tmp_path / "run")
    assert told.code == 2
    assert "is no URL of a PostgreSQL database; give one such as postgresql://" in told.err
    assert "secret" not in told.err
    assert not (tmp_path / "run").exists()


# ---- what draws a study


PLOTS = (
    *("contour", "edf", "intermediate_values", "optimization_history", "parallel_coordinate", "param_importances"),
    *("rank", "slice", "timeline"),
)


@pytest.mark.parametrize("name", PLOTS)
def test_the_plots_of_optuna_draw_a_finished_study(folder: Path, name: str):
    pytest.importorskip("plotly")
    database = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    try:
        study = optuna.load_study(study_name="scalesearch", storage=database)
        drawn = getattr(optuna.visualization, f"plot_{name}")(study)
    finally:
        database.remove_session()
        database.engine.dispose()
    assert any(trace.x is not None and len(trace.x) for trace in drawn.data if "x" in trace)


@pytest.fixture
def dashboard() -> Iterator[Callable[[str], Callable[[str], Any]]]:
    """Serves the studies at a URL on a loopback port; returns a function that asks its API."""
    pytest.importorskip("optuna_dashboard")
    started: list[subprocess.Popen[bytes]] = []

    def serve(url: str) -> Callable[[str], Any]:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        code = "from optuna_dashboard._cli import main; main()"
        options = ["--server", "wsgiref", "--host", "127.0.0.1", "--port", str(port), "--quiet"]
        command = [sys.executable, "-W", "ignore", "-c", code, url, *options]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

        def ask(path: str) -> Any:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
                return json.load(answer) if path.startswith("/api") else answer.url

        end = time.monotonic() + 120
        while True:
            try:
                ask("/api/studies")
            except OSError:
                assert time.monotonic() < end
                assert started[-1].poll() is None
                time.sleep(0.1)
            else:
                return ask

    yield serve
    for one in started:
        one.kill()
        one.wait()


def listed(ask: Callable[[str], Any]) -> list[dict[str, Any]]:
    [study] = ask("/api/studies")["study_summaries"]
    return ask(f"/api/studies/{study['study_id']}")["trials"]


@pytest.mark.slow
def test_optuna_dashboard_lists_a_finished_study(folder: Path, dashboard: Callable[[str], Callable[[str], Any]]):
    before = (folder / "study.db").read_bytes()
    trials = listed(dashboard(f"sqlite:///{folder / 'study.db'}"))
    wanted = [(state.capitalize(), value) for _, state, value in expected(folder)]
    assert [(one["state"], one.get("values", [None])[0]) for one in trials] == wanted
    assert all(len(one["intermediate_values"]) == 2 for one in trials if one["state"] == "Complete")
    assert (folder / "study.db").read_bytes() == before


def trains(url: str) -> bool:
    """Whether a study has a running trial; one that is not made yet has none, and nothing is made here."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with suppress(sqlalchemy.exc.DBAPIError), engine.connect() as reader:
        return bool(reader.execute(sqlalchemy.text("SELECT * FROM trials WHERE state = 'RUNNING'")).fetchall())
    return False


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")
@pytest.mark.parametrize("storage", ["sqlite", "postgresql"])
def test_optuna_dashboard_shows_a_search_at_work_and_at_its_end_and_does_not_disturb_it(
    storage: str,
    request: pytest.FixtureRequest,
    program: Callable[..., Program],
    finished: tuple[Path, Program],
    tiny_options: tuple[str, ...],
    dashboard: Callable[[str], Callable[[str], Any]],
    tmp_path: Path,
):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    folder, faults, seen = tmp_path / "run", list[str](), set[str]()
    url, polled, options = (
        f"sqlite:///{folder}/study.db",
        f"sqlite:///file:{folder}/study.db?mode=ro&uri=true",
        list[str](),
    )
    if storage == "postgresql":
        pytest.importorskip("psycopg")
        place = request.getfixturevalue("postgres").database("dashboard")
        options, url = ["--storage", place], place.replace("://", "+psycopg://")
        polled = url
    run = program("run", *tiny_options, *options, "--out", folder)
    while not trains(polled):
        assert run.process.poll() is None, run.err.read_text()
        time.sleep(0.02)
    os.killpg(run.process.pid, signal.SIGSTOP)  # until dashboard and browser are there, which takes as long as the rest
    ask = dashboard(url)
    [study] = ask("/api/studies")["study_summaries"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(ask(f"/dashboard/studies/{study['study_id']}/trials"))
        page.get_by_text("Running").first.wait_for()
        os.killpg(run.process.pid, signal.SIGCONT)
        while run.process.poll() is None:
            seen.update(one["state"] for one in listed(ask))
            page.wait_for_timeout(200)
        page.goto(ask(f"/dashboard/studies/{study['study_id']}"))
        page.wait_for_selector(".main-svg .scatterlayer .point", state="attached")
        browser.close()
    assert run.wait() == 0, run.err.read_text()
    assert "cannot be written" not in run.out.read_text()
    assert {"Running", "Waiting"} <= seen
    assert faults == []
    assert stored(url, study["study_name"]) == expected(folder)
    assert [(one["state"], one["values"][0]) for one in listed(ask)] == [("Complete", x) for *_, x in expected(folder)]
    assert (folder / "ranking.json").read_bytes() == (finished[0] / "ranking.json").read_bytes()
