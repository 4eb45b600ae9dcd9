"""Files written whole or not at all: what is there after success, after a fault, after a kill, and meanwhile."""

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesearch.files import append, listed, make_folder, remove, sweep, whole_file, write_whole

OLD, NEW = b"old" * 40_000, b"newer" * 40_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file.json"
    file.write_bytes(OLD)
    return file


@contextmanager
def left_alone(path: Path) -> Iterator[None]:
    """What happens inside leaves the file as it was, and nothing beside it."""
    yield
    assert path.read_bytes() == OLD
    assert list(path.parent.iterdir()) == [path]


@given(st.binary())
def test_the_content_is_exact(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("files") / "a.b.c"
    write_whole(path, content)
    write_whole(path, content)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_line_ends_and_text_are_kept_as_they_are(tmp_path):
    write_whole(tmp_path / "a", "α\n\r\nβ".encode())
    assert (tmp_path / "a").read_bytes() == b"\xce\xb1\n\r\n\xce\xb2"


def test_a_new_file_has_the_permissions_of_any_other(tmp_path):
    write_whole(tmp_path / "whole", NEW)
    (tmp_path / "plain").write_bytes(NEW)
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_old_file_stands_until_all_is_written(path):
    with whole_file(path) as file:
        file.write(NEW)
        file.flush()
        assert path.read_bytes() == OLD
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("harm", [OSError(28, "No space left on device"), ValueError("x"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_the_old_file_and_no_other(path, harm):
    def write():
        with whole_file(path) as file:
            file.write(NEW)
            raise harm

    with left_alone(path), pytest.raises(type(harm)):
        write()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_file_and_no_other(path, monkeypatch, step):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, step, fail)
    with left_alone(path), pytest.raises(OSError, match="Input/output error"):
        write_whole(path, NEW)


def test_a_folder_that_is_not_there_is_a_fault(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "nowhere" / "file", NEW)
    assert not list(tmp_path.iterdir())


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_the_return(path, monkeypatch):
    steps = []
    for step in ("fsync", "replace"):
        original = getattr(os, step)
        monkeypatch.setattr(os, step, lambda *given, s=step, f=original: steps.append(s) or f(*given))
    write_whole(path, NEW)
    assert steps == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_settle_folders_is_no_fault(path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    write_whole(path, NEW)
    monkeypatch.undo()
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fails_over_the_name_is_a_fault(path, monkeypatch, number):
    settle = os.fsync

    def fail(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        settle(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_whole(path, NEW)
    assert list(path.parent.iterdir()) == [path]


def test_a_text_goes_behind_what_is_in_a_file_and_never_through_a_link(path):
    link = path.with_name("link")
    link.symlink_to(path)
    append(link, "more")
    assert path.read_bytes() == OLD
    append(path, "mehr ü")
    append(path.with_name("new"), "more")
    assert path.read_bytes() == OLD + "mehr ü".encode()
    assert path.with_name("new").read_text() == "more"


def test_a_disk_that_is_full_is_told_of_with_the_file(path):
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), whole_file(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_in_the_place_of_a_file_is_a_fault_and_stays(tmp_path):
    (tmp_path / "place").mkdir()
    with pytest.raises(IsADirectoryError, match=f"Is a directory: '{tmp_path / 'place'}'$"):
        write_whole(tmp_path / "place", NEW)
    assert list(tmp_path.iterdir()) == [tmp_path / "place"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EACCES])
def test_a_file_that_the_disk_does_not_let_go_is_told_of(path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    told = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        remove(path, told.append)
    assert told == [f"{path} cannot be removed: {os.strerror(number)}; it is needed no more"]
    for _ in range(2):  # one that is gone is no fault
        remove(path, told.append)
    assert (len(told), path.exists()) == (1, False)


def test_what_lies_behind_a_link_or_in_no_folder_is_not_listed(path):
    link = path.with_name("link")
    link.symlink_to(path.parent)
    assert [listed(link), listed(path), listed(path.with_name("none"))] == [[], [], []]
    assert sorted(listed(path.parent)) == sorted([path, link])


def test_a_process_killed_in_the_middle_leaves_the_old_file(path):
    code = f"""
import sys, time
from pathlib import Path
from scalesearch.files import whole_file
with whole_file(Path({str(path)!r})) as file:
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"half\n"
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert path.read_bytes() == OLD
    write_whole(path, NEW)  # what the dead one left is in nobody's way, and can be swept
    assert path.read_bytes() == NEW
    [left] = path.parent.glob(".*")
    sweep(left)
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_sees_one_content_or_another_while_many_write(path):
    contents = {bytes([letter]) * 200_000 for letter in b"abcdefgh"}
    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write_whole, path, content) for content in sorted(contents) * 5]
        seen = {path.read_bytes()}
        while not all(writer.done() for writer in writers):
            seen.add(path.read_bytes())
    assert [writer.exception() for writer in writers] == [None] * len(writers)
    assert seen <= contents | {OLD}
    assert path.read_bytes() in contents
    assert list(path.parent.iterdir()) == [path]


def test_a_sweeper_that_never_rests_stands_in_no_writers_way(path):
    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write_whole, path, NEW) for _ in range(300)]
        while not all(writer.done() for writer in writers):
            for unfinished in path.parent.glob(".*"):
                sweep(unfinished)
    assert [writer.exception() for writer in writers] == [None] * len(writers)
    assert list(path.parent.iterdir()) == [path]


# ---- folders


def test_a_new_folder_and_the_parents_that_it_needs_are_brought_to_the_disk(tmp_path: Path, settled: list[int]):
    make_folder(tmp_path / "a" / "b" / "c")
    assert [*settled] == [path.stat().st_ino for path in (tmp_path / "a" / "b", tmp_path / "a", tmp_path)]
    settled.clear()
    make_folder(tmp_path / "a" / "b")
    assert settled == []
