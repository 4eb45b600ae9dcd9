"""Kills for want of memory, as the kernel tells of them in both versions of control groups."""

from pathlib import Path

import pytest

from scalesearch.engine.memory import out_of_memory_kills
from scalesearch.engine.watch import SLOWLY, Watch

TOLD = {
    "second version": ("0::/user/job\n", "user/job/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
    "first version": (
        "5:memory:/job\n0::/\n",
        "memory/job/memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    ),
    "in a container": ("0::/kubepods/far/away\n", "memory.events", "oom_kill 2\n"),
}


@pytest.mark.parametrize("where", TOLD)
def test_kills_are_read_from_the_processs_own_group(where: str, tmp_path: Path):
    groups, file, text = TOLD[where]
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(groups)
    place = tmp_path / "groups" / file
    place.parent.mkdir(parents=True)
    place.write_text(text)
    assert out_of_memory_kills(tmp_path / "proc", tmp_path / "groups") == 2


def test_a_kernel_that_does_not_tell_has_killed_nobody(tmp_path: Path):
    assert out_of_memory_kills(tmp_path / "proc", tmp_path / "groups") == 0
    assert out_of_memory_kills() >= 0


class Counted:
    """Signs of a worker."""

    value = 7


def test_silence_is_counted_from_the_last_sign_and_measured_by_the_workers_own_pace():
    signs = Counted()
    watch = Watch(signs, limit=10)
    watch.begin()
    assert not watch.has_begun
    assert not any(watch.is_hanging(1) for _ in range(10 * SLOWLY))  # until the second sign it may take its time
    signs.value += 2
    assert not watch.is_hanging(1)
    assert watch.has_begun
    assert [watch.is_hanging(1) for _ in range(11)] == [False] * 10 + [True]
    signs.value += 1  # a step that took eleven seconds
    assert not watch.is_hanging(1)
    assert not any(watch.is_hanging(1) for _ in range(11 * SLOWLY))
    assert watch.is_hanging(1)
