"""The files of a run folder: which are a run's own, which killed writers left, and which are of others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from pathlib import Path

from scalesearch.errors import DataError, StudyError
from scalesearch.files import UNFINISHED, Told, listed, remove, sweep
from scalesearch.journal import NAME
from scalesearch.trials import STAGES

BARE = frozenset({"checkpoints", "logs", NAME, "plan.yaml", ".lock", ".holder"})
"""What a run has made before it takes up its images."""
OURS = BARE - {"plan.yaml"} | {"data", "study.db"}
"""What a run makes before it writes down its plan, or that may be put there for it."""
_TRIAL = rf"\w[\w.-]*-s\d+-e\d+(?:{'|'.join(f'-{stage}' for stage in STAGES)})?"
CHECKPOINT = re.compile(rf"{_TRIAL}\.safetensors(?:\.before)?|\.{_TRIAL}\.safetensors\.[0-9a-f]{{8}}")
"""Names of the files of a trial's checkpoint, one that is being written included."""
LOG = re.compile(rf"{_TRIAL}\.log")
"""Names of the files of a trial's traceback."""
RUN_FILES = re.compile(
    r"plan\.yaml|study\.db|journal(?:\.damaged-\d+)?\.jsonl|\.holder|report\.html"
    r"|(?:candidates|trials)\.csv|(?:scan|ranking|environment)\.json"
)
"""Names of the files that are written whole at the top of a run folder."""
FAMILY_FILES = re.compile(r"manifest\.json|config\.yaml|network\.py|model\.safetensors")
"""The same of a family."""


def sweep_left(folder: Path) -> None:
    """Remove what killed writers left half written, whether they held the folder or, as of a report, did not.

    Its families are the run's own and those of single candidates beside it.
    """
    _sweep(folder, RUN_FILES)
    for family in (folder / "family", *folder.glob("family-*")):
        sweep_family(family, names(family))


def sweep_family(folder: Path, members: Iterable[str]) -> None:
    """Remove what killed writers of a family left half written.

    Args:
        folder: of the family.
        members: names of their folders in it; no other is looked into.
    """
    for place in (folder, *(folder / name for name in members)):
        _sweep(place, FAMILY_FILES)


def _sweep(folder: Path, written: re.Pattern[str]) -> None:
    for path in folder.glob(".*"):
        if _is_left(path.name, written) and path.is_file():
            sweep(path)


def sweep_checkpoints(checkpoints: Path, wanted: Set[Path], told: Told) -> None:
    """Remove what killed writers and finished trials left behind; behind a link it may be another run's.

    Args:
        checkpoints: the folder.
        wanted: those that stay.
        told: hears of one that cannot be removed.
    """
    for path in listed(checkpoints):
        if path not in wanted and CHECKPOINT.fullmatch(path.name) and path.is_file():
            remove(path, told)


def _is_left(name: str, written: re.Pattern[str]) -> bool:
    """Whether a name is that of an unfinished file of ours: a person's `.env.20240101` is none."""
    found = UNFINISHED.fullmatch(name)
    return found is not None and written.fullmatch(found[1]) is not None


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder without a plan that holds files of others.

    Raises:
        StudyError: it does; one is named.
    """
    if not folder.is_dir() or (folder / "plan.yaml").is_file():
        return
    foreign = {name for name in names(folder) if not _is_left(name, RUN_FILES)} - OURS
    for part, ours in (("checkpoints", CHECKPOINT), ("logs", LOG)):
        foreign |= {f"{part}/{name}" for name in names(folder / part) if not ours.fullmatch(name)}
    foreign |= {f"data/{name}" for name in _foreign_images(folder / "data")}
    if foreign:
        raise StudyError(f"{folder} holds other files, such as {min(foreign)}", mend="choose another folder with --out")


def names(folder: Path) -> set[str]:
    """What lies in a folder; nothing where there is none."""
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _foreign_images(data: Path) -> set[str]:
    """What lies where images are decoded and is no part of prepared images that were put there."""
    from scalesearch.proxy.images import ARRAYS, SUMMARY, open_images  # brings numpy

    try:
        open_images(data)
    except DataError:
        return names(data)
    return names(data) - {SUMMARY, ".lock", *(f"{name}.npy" for name in ARRAYS)}  # a cache locks its folders
