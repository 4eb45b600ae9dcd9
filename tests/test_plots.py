"""What a terminal shows of a run's standing."""

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from calling import Call
from conftest import Program

from scalesearch.cli.console import columns, terminal
from scalesearch.cli.plots import WIDTH, intervals
from scalesearch.ranking import Arm, rank


def test_intervals_span_the_plot_and_heavy_ones_may_be_the_best():
    accuracies = {"first": [85.0, 85.2], "near": [84.9, 85.1], "worse": [70.0, 70.2]}
    head, *rows, key, _ = intervals(rank([Arm(id=name) for name in accuracies], accuracies))
    assert [row.split()[0] for row in rows] == ["first", "near", "worse"]
    assert [row.count("●") for row in rows] == [1, 1, 1]
    assert ["━" in row for row in rows] == [True, True, False]
    width = len("worse") + 2 + WIDTH
    assert all(len(row) <= width for row in (head, *rows))
    assert rows[-1].index("─") == len("worse") + 2  # the lowest end
    assert "95 % interval" in key


def test_without_intervals_nothing_is_drawn():
    assert list(intervals(rank([Arm(id="a"), Arm(id="b")], {"a": [80.0], "b": [81.0]}))) == []


def test_rank_draws_its_intervals_and_status_its_progress(
    finished: tuple[Path, Program], call: Call, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "120")
    assert "●" in call("rank", finished[0]).out
    assert "d w r %" in call("rank", finished[0]).out
    assert f"{55 * '━'} 100 %" in call("status", finished[0]).out


def test_only_a_finished_run_has_a_full_bar(finished: tuple[Path, Program], call: Call, tmp_path: Path):
    shutil.copytree(finished[0], tmp_path / "run")
    journal = tmp_path / "run" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    while b'"kind":"ended"' not in lines[-1]:
        lines.pop()
    journal.write_bytes(b"".join(lines)[:-9])
    told = call("status", tmp_path / "run").out
    assert told.startswith("interrupted: 7 of 8 trials done, 1 begun (epochs trained: 3), 0 failed")
    assert "━─ 99 %\n" in told


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("base", ["b0", "resnet152"])
def test_a_plan_fits_the_terminal(call: Call, monkeypatch: pytest.MonkeyPatch, width: int, base: str):
    monkeypatch.setenv("COLUMNS", f"{width}")
    lines = call("plan", "--base", base).out.splitlines()
    assert {line for line in lines if len(line) > width} == set()
    assert any({"candidate", "growth", "searched", "reference"} < {*line.split()} for line in lines)


def on_a_terminal(*arguments: object, kind: str) -> str:
    """What the program writes on a terminal of 80 characters."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    environment = {**os.environ, "TERM": kind}
    environment.pop("COLUMNS", None)
    line = [sys.executable, "-m", "scalesearch", *map(str, arguments)]
    with subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        with open(ours, "rb", buffering=0) as terminal:
            written = b""
            with suppress(OSError):  # the last of the program's ends has been closed
                while more := terminal.read(4096):
                    written += more
        assert process.wait(60) == 0
    return written.decode().replace("\r\n", "\n")


def test_a_dumb_terminal_shows_the_table_that_a_file_of_its_width_holds(
    finished: tuple[Path, Program], call: Call, monkeypatch: pytest.MonkeyPatch
):
    shown = on_a_terminal("rank", finished[0], kind="dumb")
    monkeypatch.setenv("COLUMNS", "80")
    assert shown == call("rank", finished[0]).out


def test_a_table_is_never_crushed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    table = columns("member", "widths")
    table.add_row("B1", "16 " * 100 + "17")
    terminal(as_json=False).print(table)
    assert capsys.readouterr().out.splitlines()[1] == f"B1      {'16 ' * 100}17"


@pytest.mark.parametrize("width", [80, 60, 120])
def test_rank_and_status_fit_the_terminal(
    finished: tuple[Path, Program], call: Call, monkeypatch: pytest.MonkeyPatch, width: int
):
    monkeypatch.setenv("COLUMNS", f"{width}")
    lines = [*call("rank", finished[0]).out.splitlines(), *call("status", finished[0]).out.splitlines()]
    assert {line for line in lines if len(line) > max(width, 80)} == set()
    plot = [line.rstrip() for line in lines if "━" in line or "─" in line]
    assert {line for line in plot if len(line) > width and "interval" not in line} == set()


def test_a_damaged_journal_is_told_of(finished: tuple[Path, Program], call: Call, tmp_path: Path):
    shutil.copytree(finished[0], tmp_path / "run")
    journal = tmp_path / "run" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:-2], b"?" + lines[-2], lines[-1][:-9]]))
    told = "2 lines of the journal are damaged: what rests on them counts as not trained"
    for command in ("status", "rank", "report"):
        found = call(command, tmp_path / "run")
        assert (found.code, [line.partition(";")[0] for line in found.err.splitlines()]) == (0, [told])
    assert told in (tmp_path / "run" / "report.html").read_text()
