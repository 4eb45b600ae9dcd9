"""A run folder as a place: held by one coordinator, bound to one plan, its files written whole or not at all."""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from scalesearch.errors import ScaleSearchError, StudyError
from scalesearch.files import Told, has_locks, make_folder, nearest, remedy, write_whole
from scalesearch.journal import NAME, Journal, Record, read_journal, refuse_link
from scalesearch.jsonfile import read_object
from scalesearch.plan import Plan, read_plan
from scalesearch.runfiles import BARE, names, refuse_foreign, sweep_left
from scalesearch.storage import Storage, in_folder, is_plain, on_server, redacted_argument

NETWORKS = frozenset(
    {"prl_fs", "fhgfs"}
    | {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "davfs"}
    | {"wekafs", "panfs", "pvfs2", "orangefs", "gfs2", "ocfs2", "vboxsf"}
)
"""File systems of several machines, whose locks SQLite cannot rely on."""
LOCAL = frozenset(
    {"fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.bindfs", "fuse.grpcfuse", "fuse.osxfs", "fuse.gocryptfs"}
    | {"fuse.encfs", "fuse.ntfs", "fuse.ntfs-3g", "fuse.exfat"}
)
"""File systems of user programs that stay on this machine; of others, `fuse.sshfs` or a nameless `fuse`, that is not
known. Disks that such a program reads are `fuseblk`."""


@contextmanager
def claimed(folder: Path, plan: Plan) -> Iterator[Plan]:
    """Hold a run folder for one coordinator, with the plan written down in it.

    A refusal inside takes away again what was made here, unless something is there by then that a run goes on with.

    Yields:
        The plan, with the pace that an earlier run of it has measured.

    Raises:
        StudyError: the folder holds files of others, another plan or another coordinator, or cannot be written.
    """
    refuse_foreign(folder)
    if (folder / "plan.yaml").is_file():
        _agreed(folder, plan)  # before anything is made in what may be no run folder
    before = names(folder)
    places = (folder / "checkpoints", folder / "logs", folder, *folder.parents)
    made = [path for path in places if not (path.exists() or path.is_symlink())]
    with held(folder):
        is_first = not (folder / "plan.yaml").exists()
        plan = _stored_plan(folder, plan)
        try:
            yield plan
        except ScaleSearchError:
            if is_first and names(folder) <= before | BARE and _is_unused(read_journal(folder / NAME)):
                _withdraw(folder, made)
            raise


def _is_unused(record: Record) -> bool:
    """Whether nothing rests on a journal: no trial, no images, no study on a server."""
    return not record.trials and record.bound.keys() <= {"checkpoints"}


def _withdraw(folder: Path, made: Sequence[Path]) -> None:
    """Take away the files of a run that has begun nothing, and the folders made for it, innermost first.

    Whoever is killed meanwhile leaves what a run may begin in. Folders that hold anything stay.
    """
    inside = [path for path in made if path.parent == folder]
    outside = [path for path in made if path.parent != folder]
    _remove(inside)  # while the lock is held: whoever waits for it makes them again
    for name in (NAME, "plan.yaml", ".holder", ".lock"):
        (folder / name).unlink(missing_ok=True)
    _remove(outside)


def _remove(empty: Sequence[Path]) -> None:
    for path in empty:
        with suppress(OSError):
            path.rmdir()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run folder alone.

    Raises:
        StudyError: another process holds it, which is named; or it cannot be written, or locked.
    """
    try:
        if not has_locks(nearest(folder)):
            fault = f"{folder} lies on a file system without file locks, which keep two runs apart"
            raise StudyError(fault, mend="keep it on another, or mount that one with locks (of Lustre: -o flock)")
        lock = _locked(folder)
        sweep_left(folder)
        holder, said = folder / ".holder", json.dumps(_ourselves())
        write_text(holder, said)
    except Timeout:
        raise StudyError(f"{folder} is in use by {_holder(folder)}", mend="wait for it, or stop it first") from None
    except OSError as error:
        place = error.filename if error.filename in {str(folder / name) for name in BARE} else folder
        raise StudyError(f"{place} cannot be written: {error.strerror}", mend=remedy(error)) from None
    try:
        yield
    finally:
        with suppress(OSError):
            # another's where the folder was given up here
            if holder.is_file() and holder.read_bytes() == said.encode():
                holder.unlink()
        lock.release()


def _locked(folder: Path) -> FileLock:
    """The lock of a run folder, which is made; a run that is refused meanwhile takes away what it has made of it."""
    lock = FileLock(folder / ".lock")
    with suppress(FileNotFoundError):
        _furnish(folder)
        lock.acquire(timeout=5)  # a coordinator that was just told to stop needs a moment
    _furnish(folder)
    if not lock.is_locked:
        lock.acquire(timeout=5)
    return lock


def _furnish(folder: Path) -> None:
    for name in ("checkpoints", "logs"):
        make_folder(folder / name)


def _ourselves() -> dict[str, object]:
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return {"pid": os.getpid(), "host": platform.node(), "since": since}


def _holder(folder: Path) -> str:
    """Who holds a folder, in words. The lock decides; this file, which a killed holder leaves behind, only names."""
    try:
        found = read_object(folder / ".holder")
        return f"pid {int(found['pid'])} on {str(found['host'])[:60]} since {str(found['since'])[:30]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


def network_of(path: Path, mounts: str) -> str | None:
    r"""The kind of network file system that a path lies on; None where it is local.

    Args:
        path: absolute.
        mounts: the table, as /proc/mounts has it.

    >>> network_of(Path("/home/me/run"), "/dev/sda / ext4 rw 0 0\nhost:/home /home nfs4 rw 0 0")
    'nfs4'
    """
    found: tuple[int, str] = (-1, "")
    for line in mounts.splitlines():
        _, place, kind, *_ = [re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), one) for one in line.split(" ")]
        if path.is_relative_to(place) and len(place) >= found[0]:  # of two mounts on one place, the later one
            found = len(place), kind
    kind = found[1]
    is_unknown = (kind == "fuse" or kind.startswith("fuse.")) and kind not in LOCAL
    return kind if kind in NETWORKS or is_unknown else None


def placed(folder: Path, url: str | None) -> Storage:
    """Where the study of a run is stored: on a server, given now or when the run began, or in its folder.

    Raises:
        StudyError: no such place can be used.
    """
    bound = read_journal(folder / NAME).bound
    url = url or _believed(folder, bound.get("storage"))
    if url:
        return on_server(url, bound.get("study") or f"{folder.resolve().name}-{secrets.token_hex(4)}")
    mounts = Path("/proc/mounts")
    kind = network_of(folder.resolve(), mounts.read_text(encoding="utf-8")) if mounts.is_file() else None
    if kind:
        raise StudyError(
            f"{folder} lies on a network file system ({kind}), where SQLite keeps no study",
            mend="keep it on a server with --storage postgresql://user@host/database, or use a local --out",
        )
    refuse_link(folder / "study.db", mend="remove it: `scalesearch repair` makes the study anew")
    return in_folder(folder)


def _believed(folder: Path, url: str | None) -> str | None:
    """The URL that a run folder names for its study: a stranger may have written it, who gets no password by it."""
    if url is None:
        return None
    keeps = f"{folder} keeps its study in {redacted_argument(url)}"
    if not is_plain(url):
        raise StudyError(
            f"{keeps}; of a file no more is believed than user@host:port/database?sslmode=…",
            mend="name it anew with --storage",
        )
    if "PGPASSWORD" in os.environ:
        raise StudyError(
            f"{keeps}; PGPASSWORD is sent to no server that a file names",
            mend="name it with --storage, or keep the password in ~/.pgpass",
        )
    return url


def bind_storage(journal: Journal, place: Storage) -> None:
    """Have a run remember the server that its study is on, without a password."""
    if place.file is None:
        journal.bind("study", place.study)
        journal.bind("storage", place.shown)


def recorded(folder: Path) -> Record:
    """What the journal of a run folder says.

    Raises:
        StudyError: it is damaged, gone from beside its study, or without a whole line beside its ranking.
    """
    path, mend = folder / NAME, "restore it, or run into a new folder"
    if (folder / "study.db").exists() and not path.exists():
        raise StudyError(f"{folder} holds a study without its {NAME}", mend=mend)
    record = read_journal(path)
    if not record.whole and (folder / "ranking.json").exists():
        state = "holds no trial" if path.exists() else "is missing"
        raise StudyError(f"{path} {state} beside the ranking of its trials", mend=mend)
    return record


def is_torn(folder: Path, record: Record) -> bool:
    """Whether the last line of a journal that nobody writes is cut off."""
    journal = folder / NAME
    return journal.is_file() and journal.stat().st_size > record.whole


def is_live(folder: Path) -> bool:
    """Whether a coordinator works in a run folder now; asks without write access, and without standing in its way."""
    if not (folder / ".lock").is_file():  # a pipe would be waited for
        return False
    try:
        with (folder / ".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _stored_plan(folder: Path, plan: Plan) -> Plan:
    if not (folder / "plan.yaml").exists():
        if (folder / "study.db").exists() or (folder / NAME).exists():
            raise StudyError(f"{folder} holds a study without a plan", mend="choose another folder with --out")
        write_plan(folder, plan)
        return plan
    return _agreed(folder, plan)


def _agreed(folder: Path, plan: Plan) -> Plan:
    """The plan, with the pace of the one that is written down in a run folder.

    Raises:
        StudyError: that is another plan, or none; or its journal is damaged.
    """
    record = recorded(folder)
    stored = read_plan(folder)
    if replace(stored, pace=plan.pace) != plan:
        empty = "" if record.trials else "remove it, which has no trial yet, or "
        raise StudyError(
            f"{folder} holds another plan: {_difference(stored, plan)}", mend=f"{empty}choose another folder with --out"
        )
    return replace(plan, pace=stored.pace)  # what a person asked for now, builders included, not what a file says


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
