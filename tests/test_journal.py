"""The journal: whatever is torn or damaged, all else is believed, and a run that goes on comes to the same."""

import errno
import json
import os
import random
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesearch.errors import StudyError
from scalesearch.files import patiently
from scalesearch.journal import NAME, Journal, read_journal
from scalesearch.recipe import EpochResult
from scalesearch.trials import TrialKey, TrialResult, TrialState

KEYS = [TrialKey(proxy=f"d{index}-w1.1", seed=index % 3, rung=1 + index % 3) for index in range(6)]
KEYS[5] = TrialKey(proxy="d5-w1.1", seed=2, rung=2, stage="travel")
Told = dict[TrialKey, tuple[TrialState, tuple[EpochResult, ...], str]]


def epoch(key: TrialKey, number: int) -> EpochResult:
    """What a training comes to, however often it is repeated."""
    draw = random.Random(f"{key} {number}")
    return EpochResult(epoch=number, train_loss=draw.random(), accuracy=100 * draw.random(), loss=draw.random())


def train(journal: Journal) -> None:
    """Train what is left, as a coordinator does; the fourth trial fails."""
    known = {result.key: result for result in journal.results}
    for index, key in enumerate(KEYS):
        if key in known and known[key].has_ended:
            continue
        journal.start(key)
        for number in range(1, key.rung + 1):
            journal.report(key, epoch(key, number))
        if index == 3:
            journal.end(key, TrialState.FAILED, "worker killed by SIGKILL")
        else:
            journal.end(key, TrialState.COMPLETE)


def told(results: list[TrialResult]) -> Told:
    """What does not hang on clocks."""
    return {one.key: (one.state, one.epochs, one.reason) for one in results}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a journal that nothing disturbed."""
    path = tmp_path_factory.mktemp("journal") / NAME
    with closing(Journal(path)) as journal:
        journal.bind("images", "fingerprint")
        train(journal)
    return path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("harmed") / NAME


def gone_on(place: Path, content: bytes) -> tuple[Told, Told]:
    """What a harmed journal says, and what it says when a coordinator has gone on with it."""
    place.write_bytes(content)
    before = told(read_journal(place).results)
    with closing(Journal(place)) as journal:
        assert told(journal.results) == before
        journal.bind("images", "fingerprint")
        train(journal)
        after = told(journal.results)
    assert told(read_journal(place).results) == after
    return before, after


def ends(found: Told) -> Told:
    return {key: one for key, one in found.items() if one[0] is not TrialState.RUNNING}


def test_what_is_written_is_read_with_exact_numbers(whole: bytes, place: Path):
    place.write_bytes(whole)
    record = read_journal(place)
    assert dict(record.bound) == {"images": "fingerprint"}
    assert (record.damaged, record.whole) == ((), len(whole))
    assert [result.key for result in record.results] == KEYS
    assert record.trials[KEYS[0]].epochs == (epoch(KEYS[0], 1),)
    assert [result.state for result in record.results] == ["complete"] * 3 + ["failed"] + ["complete"] * 2
    assert record.trials[KEYS[3]].reason == "worker killed by SIGKILL"
    assert all(one.seconds is not None and one.started and one.ended for one in record.results)


def test_lines_are_json_with_the_crc_of_what_stands_before_it(whole: bytes):
    for line in whole.splitlines():
        row = json.loads(line)
        body, _, check = line.rpartition(b',"crc":"')
        assert row["crc"] == check.decode()[:8] == f"{zlib.crc32(body):08x}"
        assert row["kind"] in ("bound", "started", "epoch", "ended")


def test_a_journal_cut_at_any_byte_loses_the_torn_line_and_comes_to_the_same(whole: bytes, place: Path):
    _, complete = gone_on(place, whole)
    by_lines: list[Told] = []
    lines = whole.splitlines(keepends=True)
    for count in range(len(lines) + 1):
        place.write_bytes(b"".join(lines[:count]))
        by_lines.append(told(read_journal(place).results))
    for cut in range(len(whole) + 1):
        place.write_bytes(whole[:cut])
        assert told(read_journal(place).results) == by_lines[whole[:cut].count(b"\n")]
    for cut in random.Random(0).sample(range(len(whole)), 60):
        before, after = gone_on(place, whole[:cut])
        assert ends(before).items() <= complete.items()
        assert after == complete


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_bytes_overwritten_anywhere_cost_no_more_than_the_lines_they_lie_in(whole: bytes, place: Path, data: Any):
    start = data.draw(st.integers(0, len(whole) - 1))
    harm = data.draw(st.binary(min_size=1, max_size=40))
    content = whole[:start] + harm + whole[start + len(harm) :]
    _, complete = gone_on(place, whole)
    harmed = set(range(whole[:start].count(b"\n"), whole[: start + len(harm)].count(b"\n") + 1))
    lines = whole.splitlines()
    touched = {json.loads(lines[index]).get("proxy") for index in harmed if index < len(lines)}
    before, after = gone_on(place, content)
    untouched = {key: one for key, one in complete.items() if key.proxy not in touched}
    assert untouched.items() <= before.items()
    assert ends(before).items() <= complete.items()
    assert after == complete


@pytest.mark.parametrize("gone", range(8))
def test_a_line_that_is_gone_costs_an_end_that_rests_on_it_and_nothing_else(whole: bytes, place: Path, gone: int):
    lines = whole.splitlines(keepends=True)
    row = json.loads(lines[gone])
    before, after = gone_on(place, b"".join(lines[:gone] + lines[gone + 1 :]))
    unfinished = {key.proxy for key in KEYS} - {key.proxy for key in ends(before)}
    assert unfinished == ({row["proxy"]} if row["kind"] in ("epoch", "ended") else set())
    assert after == gone_on(place, whole)[1]


def test_an_end_is_said_to_be_damaged_by_its_number(whole: bytes, place: Path):
    lines = whole.splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"state":"', b'"state":"x')
    place.write_bytes(b"".join(lines))
    assert read_journal(place).damaged == (4,)


def checked(**row: Any) -> bytes:
    body = json.dumps(row, separators=(",", ":")).encode()[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body))


TRIAL = {"proxy": "d1", "seed": 0, "rung": 2, "stage": "search"}
ENDED = {"kind": "ended", **TRIAL, "state": "complete", "reason": "", "epochs": 0, "seconds": 1.0}
EPOCH = {"kind": "epoch", **TRIAL, "epoch": 1, "train_loss": 1.0, "accuracy": 1.0, "loss": 1.0, "seconds": 1.0}
DECIDED = {"kind": "decided", "on": "ab", "arms": ["d1"], "leaves": [], "behind": [], "ending": None}
TIME = "2026-11-20T12:00:00.000+00:00"


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"kind": "started"},
        {"kind": "begun", **TRIAL},
        {"kind": ["bound"], **TRIAL},
        {"kind": "bound", "part": 1, "value": "x"},
        {"kind": "bound", "part": "images", "value": None},
        {"kind": "started", **TRIAL, "time": 3},
        {"kind": "started", **TRIAL, "time": "noon"},
        {"kind": "started", **TRIAL, "proxy": ["d1"], "time": TIME},
        {"kind": "started", **TRIAL, "proxy": 5, "time": TIME},
        {"kind": "started", **TRIAL, "seed": -1, "time": TIME},
        {"kind": "started", **TRIAL, "rung": 0, "time": TIME},
        {"kind": "started", **TRIAL, "rung": 2.0, "time": TIME},
        {"kind": "started", **TRIAL, "seed": 10**30, "time": TIME},
        {"kind": "started", **TRIAL, "stage": "nap", "time": TIME},
        {"kind": "started", **TRIAL, "stage": {}, "time": TIME},
        {"kind": "decided", "on": "ab"},
        {**DECIDED, "on": 5},
        {**DECIDED, "arms": "d1"},
        {**DECIDED, "arms": []},
        {**DECIDED, "arms": [1]},
        {**DECIDED, "behind": None},
        {**DECIDED, "leaves": [{"arm": "d1", "rung": 1}]},
        {**DECIDED, "leaves": [{"arm": "d1", "rung": 1, "seeds": "2"}]},
        {**DECIDED, "leaves": 3},
        {**DECIDED, "ending": "never"},
        {**DECIDED, "ending": ["spent"]},
        {**EPOCH, "epoch": "1"},
        {**EPOCH, "epoch": True},
        {**EPOCH, "accuracy": None},
        {**EPOCH, "accuracy": 50},
        {**EPOCH, "loss": [1.0]},
        {**EPOCH, "seconds": "1"},
        {**ENDED, "time": TIME, "state": "running"},
        {**ENDED, "time": TIME, "state": ["complete"]},
        {**ENDED, "time": TIME, "reason": None},
        {**ENDED, "time": TIME, "epochs": 0.0},
    ],
    ids=str,
)
def test_what_no_run_has_written_is_named_by_its_line_whatever_its_checksum(place: Path, row: dict[str, Any]):
    place.write_bytes(checked(kind="bound", part="images", value="x") + checked(**row))
    with pytest.raises(StudyError, match=rf"{NAME}, line 2: .*; remove line 2") as caught:
        read_journal(place)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("before", [1, 2, 998, 999, 1000, 1001])
def test_a_bad_line_is_named_by_its_own_number_however_many_stand_before_it(place: Path, before: int):
    """Lines are parsed many at a time."""
    one = checked(kind="bound", part="images", value="x")
    place.write_bytes(one * before + b"".join([checked(kind="epoch"), one]))
    with pytest.raises(StudyError, match=rf"{NAME}, line {before + 1}: .*; remove line {before + 1}"):
        read_journal(place)


def test_lines_that_are_rows_only_together_are_not_believed(place: Path):
    """As many rows as lines, of lines of which none is a row."""
    bodies = [
        '{"kind":"bound","part":"a","value":"b"},{"x":1',
        '{"x":[{"y":1',
        '1],"kind":"bound","part":"a","value":"c"',
    ]
    lines = [b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body)) for body in map(str.encode, bodies)]
    place.write_bytes(b"".join(lines))
    with pytest.raises(StudyError, match=rf"{NAME}, line 1: Extra data.*; remove line 1"):
        read_journal(place)


def test_two_decisions_on_the_same_results_are_named_by_the_line_of_the_second(place: Path):
    place.write_bytes(checked(**DECIDED) * 2)
    assert list(read_journal(place).decided) == ["ab"]
    place.write_bytes(checked(**DECIDED) + checked(**{**DECIDED, "arms": ["d2"]}))
    with pytest.raises(StudyError, match=rf"{NAME}, line 2: another decision .*; remove line 2"):
        read_journal(place)


@pytest.mark.parametrize("body", [b"[1", b"7", b'"a"', b"[" * 5000, b"\xff\xfe", b"1" * 5000])
def test_content_that_is_no_object_is_named_by_its_line(place: Path, body: bytes):
    place.write_bytes(b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body)))
    with pytest.raises(StudyError, match="line 1: "):
        read_journal(place)


@pytest.mark.parametrize("content", [b"\0" * 100 + b"\n", b"garbage\n" * 9, b"\n"], ids=["zeros", "text", "empty"])
def test_a_file_without_a_whole_line_is_refused_and_left_as_it_is(place: Path, content: bytes):
    place.write_bytes(content)
    with pytest.raises(StudyError, match="none of its lines is whole; restore it, or run into a new folder"):
        Journal(place)
    assert place.read_bytes() == content


def test_a_journal_that_is_not_there_says_nothing_and_is_made_by_its_coordinator(tmp_path: Path):
    assert read_journal(tmp_path / NAME).results == []
    with closing(Journal(tmp_path / NAME)) as journal:
        assert journal.results == []
    assert (tmp_path / NAME).read_bytes() == b""


def test_a_journal_that_cannot_be_read_or_written_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / NAME).mkdir()
    with pytest.raises(StudyError, match="is not a file"):
        read_journal(tmp_path / NAME)
    with pytest.raises(StudyError, match="cannot be written: "):
        Journal(tmp_path / "none" / NAME)


def test_seconds_are_those_in_training_whatever_the_clock_says_and_however_often_it_stops(tmp_path: Path, monkeypatch):
    clock = iter([100.0, 103.0, 9000.0, 9002.0, 9007.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    key = TrialKey(proxy="d1", seed=0, rung=2)
    with closing(Journal(tmp_path / NAME)) as journal:
        journal.start(key)
        journal.report(key, epoch(key, 1))
    with closing(Journal(tmp_path / NAME)) as journal:
        journal.start(key)
        journal.report(key, epoch(key, 2))
        journal.end(key, TrialState.COMPLETE)
        assert journal.result(key).seconds == 10.0


KILLED = """
import sys
from pathlib import Path
from scalesearch.journal import Journal
from test_journal import KEYS, epoch
from scalesearch.trials import TrialState
journal = Journal(Path(sys.argv[1]))
for key in KEYS:
    journal.start(key)
    for number in range(1, key.rung + 1):
        journal.report(key, epoch(key, number))
    journal.end(key, TrialState.COMPLETE)
    print(key, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("count", [1, 4])
def test_what_was_told_before_a_kill_is_there_after_it(tmp_path: Path, count: int):
    command = [sys.executable, "-c", KILLED, str(tmp_path / NAME)]
    path = f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parents[1]}"
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as writer:
        assert writer.stdin
        assert writer.stdout
        for _ in range(count):
            writer.stdout.readline()
            writer.stdin.write("\n" * (_ < count - 1))
            writer.stdin.flush()
        writer.kill()
    found = [one for one in read_journal(tmp_path / NAME).results if one.has_ended]
    assert [one.key for one in found] == KEYS[:count]


# ---- full disks


def test_every_kind_of_a_full_disk_is_waited_out_and_told_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scalesearch.files.PAUSE", 0.01)
    tries, told = iter([errno.ENOSPC, errno.EDQUOT, errno.ENOSPC, 0]), list[str]()

    def write() -> str:
        if code := next(tries):
            raise OSError(code, os.strerror(code))
        return "written"

    assert patiently(write, Path("file"), told.append) == "written"
    waiting = "file cannot be written: No space left on device; waiting for room on the disk"
    assert told == [waiting, "file is written; going on"]


def test_another_fault_of_a_disk_is_not_waited_for():
    def write() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        patiently(write, Path("file"), print)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a small file system")
def test_a_journal_on_a_disk_that_fills_up_goes_on_when_there_is_room(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no mount here: {mounted.stderr.decode().strip()}")
    ballast = disk / "ballast"
    notices: list[str] = []

    def free(text: str) -> None:
        notices.append(text)
        ballast.unlink(missing_ok=True)

    try:
        with closing(Journal(disk / NAME, free)) as journal:
            journal.bind("images", "fingerprint")
            with ballast.open("wb", buffering=0) as file:
                while file.write(b"0" * 65536):
                    if os.statvfs(disk).f_bfree == 0:
                        break
            train(journal)
            journal.bind("images", "x" * 5000)
        record = read_journal(disk / NAME)
        assert record.damaged == ()
        assert len(ends(told(record.results))) == len(KEYS)
        assert [text.endswith("going on") for text in notices] == [False, True]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_end_whose_fsync_failed_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, sync, faults, told = tmp_path / NAME, os.fsync, [errno.ENOSPC, errno.EDQUOT], []
    with closing(Journal(path, told.append)) as journal:
        journal.start(KEYS[0])
        journal.end(KEYS[0], TrialState.FAILED, "before")
        kept = path.stat().st_size

        def failing(file: int) -> None:
            if faults:  # a network file system that has no room says so here, and what was written is gone
                os.ftruncate(file, kept)
                raise OSError(faults.pop(), "no room")
            sync(file)

        monkeypatch.setattr(os, "fsync", failing)
        monkeypatch.setattr("scalesearch.files.PAUSE", 0.01)
        journal.start(KEYS[1])
        journal.end(KEYS[1], TrialState.FAILED, "behind")
        monkeypatch.undo()
        journal.start(KEYS[2])
    assert [result.reason for result in read_journal(path).results] == ["before", "behind", ""]
    assert len(told) == 2


def test_lines_that_are_believed_are_written_anew_and_brought_to_the_disk_before_anything_rests_on_them(
    whole: bytes, settled: list[int], tmp_path: Path
):
    path = tmp_path / NAME
    path.write_bytes(whole + b'{"kind": "torn')
    doubtful = path.stat().st_ino
    with closing(Journal(path)) as journal:
        assert path.stat().st_ino != doubtful  # an fsync of the old file may find nothing to do
        assert settled == [path.stat().st_ino, tmp_path.stat().st_ino]
        assert path.read_bytes() == whole
        assert len(journal.results) == len(KEYS)
    assert [file.name for file in tmp_path.iterdir()] == [NAME]


def test_a_journal_larger_than_any_run_writes_is_refused_unread(tmp_path: Path):
    path = tmp_path / NAME
    with path.open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(StudyError, match="larger than any run writes"):
        read_journal(path)
