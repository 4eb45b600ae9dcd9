"""Has every worker of the program note what it begins to train: with this folder on PYTHONPATH, in the file BEGUN_IN.

A line is one trial's or one group's, with the run folder, and those of its trials whose ends stood in the journal by
then: an end is there before anybody acts on it.
"""

import errno
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

from scalesearch.engine import node, worker


def noting(train: Callable[..., Any]) -> Callable[..., Any]:
    """What takes up a work, its second argument, with a note before."""

    def noted(first: Any, work: Any, *others: Any) -> Any:
        note(work.checkpoint.parent.parent, [astuple(key) for key in work.keys])
        return train(first, work, *others)

    return noted


def note(folder: Path, trials: Sequence[tuple[Any, ...]]) -> None:
    """Append a line, which stays whole whoever else writes or is killed."""
    row = {"folder": str(folder), "trials": trials, "ended": sorted(ended(folder).intersection(trials))}
    file = os.open(os.environ["BEGUN_IN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{json.dumps(row)}\n".encode())
    os.close(file)


def ended(folder: Path) -> set[tuple[Any, ...]]:
    """Trials whose end stands in a journal; read here, for the program's own reader is what is judged."""
    found: set[tuple[Any, ...]] = set()
    for line in journal(folder).split(b"\n")[:-1]:
        with suppress(ValueError):  # a line that lost its power
            row = json.loads(line)
            if row["kind"] == "ended":
                found.add(tuple(row[name] for name in ("proxy", "seed", "rung", "stage")))
    return found


def journal(folder: Path) -> bytes:
    """Its content; nothing where the disk has lost its power."""
    try:
        return (folder / "journal.jsonl").read_bytes()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


if "BEGUN_IN" in os.environ:  # not where pytest looks for examples in this file
    worker._train = noting(worker._train)  # pyright: ignore[reportPrivateUsage]
    node.Trainer._train = noting(node.Trainer._train)  # pyright: ignore[reportPrivateUsage]
