"""A run folder as a place: held by one coordinator, bound to one plan, its files written whole or not at all."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from scalesearch.errors import StudyError
from scalesearch.files import Told, write_whole
from scalesearch.plan import Plan, read_plan

OURS = frozenset({"checkpoints", "logs", "data", "study.db", ".lock"})
"""What a run makes before it writes down its plan, or that may be put there for it."""


@contextmanager
def claimed(folder: Path, plan: Plan) -> Iterator[Plan]:
    """Hold a run folder for one coordinator, with the plan written down in it.

    Yields:
        The plan, with the pace that an earlier run of it has measured.

    Raises:
        StudyError: the folder holds another plan or another coordinator, or cannot be written.
    """
    _refuse_foreign(folder)
    try:
        for name in ("checkpoints", "logs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=5)  # a coordinator that was just told to stop needs a moment
    except Timeout:
        raise StudyError(f"{folder} is in use by another run", mend="wait for it, or stop it first") from None
    except OSError as error:
        raise StudyError(
            f"{folder} cannot be written: {error.strerror}", mend="choose another folder with --out"
        ) from None
    try:
        yield _stored_plan(folder, plan)
    finally:
        lock.release()


def _refuse_foreign(folder: Path) -> None:
    foreign = (
        folder.is_dir() and not (folder / "plan.yaml").is_file() and {path.name for path in folder.iterdir()} - OURS
    )
    if foreign:
        raise StudyError(f"{folder} holds other files, such as {min(foreign)}", mend="choose another folder with --out")


def is_live(folder: Path) -> bool:
    """Whether a coordinator works in a run folder now."""
    if not (folder / ".lock").is_file():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def _stored_plan(folder: Path, plan: Plan) -> Plan:
    path = folder / "plan.yaml"
    if not path.exists():
        if (folder / "study.db").exists():
            raise StudyError(f"{folder} holds a study without a plan", mend="choose another folder with --out")
        write_plan(folder, plan)
        return plan
    stored = read_plan(folder)
    if replace(stored, pace=plan.pace) != plan:
        raise StudyError(
            f"{folder} holds another plan: {_difference(stored, plan)}", mend="choose another folder with --out"
        )
    return stored


def write_plan(folder: Path, plan: Plan, told: Told | None = None) -> None:
    """Write `plan.yaml`: when a folder is claimed for the first time, and once its pace is measured."""
    write_text(folder / "plan.yaml", yaml.safe_dump(plan.to_dict(), sort_keys=False, allow_unicode=True), told)


def _difference(stored: Plan, plan: Plan) -> str:
    def lines(one: Plan) -> list[str]:
        return yaml.safe_dump(replace(one, pace=None).to_dict(), default_flow_style=None, width=10_000).splitlines()

    changed = [line for line in difflib.ndiff(lines(stored), lines(plan)) if line[0] in "+-"]
    return " · ".join(f"{line[0]} {line[1:].strip()}" for line in changed[:8])


def write_text(path: Path, text: str, told: Told | None = None) -> None:
    """Write a UTF-8 file whole or not at all; where somebody is told of it, a full disk is waited for."""
    write_whole(path, text.encode(), told)
