"""How a command met a malformed input, and whether a trial was trained twice: what is right, and what is not."""

import hashlib
import json
import os
import signal
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calling import Call, Told

from scalesearch.cli.console import plain

FULL = os.environ.get("SCALESEARCH_FAULTS") == "full"
PATIENCE = 60
"""Most that a command may take on an input [s]."""


class TooLongError(BaseException):
    """A command hangs."""


@contextmanager
def limited(seconds: int = PATIENCE) -> Iterator[None]:
    """Ends what hangs, in whatever library."""

    def end(*_: object) -> None:
        raise TooLongError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def listing(folder: Path) -> dict[str, str]:
    """Every entry under a folder with its kind and the digest of its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(mode) and os.access(path, 4) else ""
        found[str(path.relative_to(folder))] = f"{stat.S_IFMT(mode)} {digest}"
    return found


def complaint(told: Told, *named: str) -> str:
    """What is wrong with the way an input was met; empty if nothing is. A refusal names one of what is given."""
    if told.code not in (0, 2):
        return f"exit code {told.code}: {told.err[-300:]}"
    if "Traceback" in told.out + told.err:
        return f"a traceback: {told.err[-300:]}"
    if told.code == 0:
        return ""
    lines = told.err.splitlines()
    if len(lines) != 1 or plain(lines[0]) != lines[0]:
        return f"{len(lines)} lines: {told.err[-300:]!r}"
    if not any(plain(name) in lines[0] for name in named):
        return f"does not name {' or '.join(named)[:200]}: {lines[0][-300:]}"
    return "" if "; " in lines[0] else f"no mend: {lines[0][-300:]}"


@dataclass(frozen=True)
class Harness:
    """Calls a command in a folder of its own and judges how it ended."""

    call: Call
    folder: Path

    def met(self, named: str | tuple[str, ...], *arguments: object) -> str:
        """What is wrong with the way a command met an input; a refusal must leave everything as it was."""
        before = listing(self.folder)
        try:
            with limited():
                told = self.call(*arguments)
        except TooLongError as error:
            return str(error)
        wrong = complaint(told, *([named] if isinstance(named, str) else named))
        if not wrong and told.code == 2 and listing(self.folder) != before:
            changed = {name for name, _ in listing(self.folder).items() ^ before.items()}
            return f"refused, but changed {sorted(changed)[:3]}"
        return wrong


def judge(found: list[tuple[str, str]], record: Callable[[str, object], None], count: int) -> None:
    """Fails with one example of each kind of complaint."""
    record("inputs", count)
    wrong = {text: example for example, text in found if text}
    kinds = Counter(text[:60] for _, text in found if text)
    assert not wrong, f"{sum(kinds.values())} of {count}: {kinds.most_common(8)}; {list(wrong.items())[:8]}"


def lines(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal."""
    path = folder / "journal.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def name_of(line: dict[str, Any]) -> tuple[Any, ...]:
    """The trial that a line of a journal is about."""
    return tuple(line[name] for name in ("proxy", "seed", "rung", "stage"))


def assert_nothing_ran_again(folder: Path, begun: Path) -> None:
    """No worker took up a trial that had ended, and one noted that it took up each that has; see `recording`."""
    rows = [row for row in map(json.loads, begun.read_text().splitlines()) if row["folder"] == str(folder)]
    again = [row for row in rows if row["ended"]]
    assert not again, again
    noted = {tuple(trial) for row in rows for trial in row["trials"]}
    assert noted >= {name_of(line) for line in lines(folder) if line["kind"] == "ended"}
