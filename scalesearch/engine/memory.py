"""Memory: a heap that keeps what is freed, a GPU's that others need, and the processes that ended for want of it."""

from __future__ import annotations

import ctypes
import platform
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of mallopt(3): bytes at the top of the heap that are given back; blocks that are mapped for themselves."""


def keep_freed_memory() -> None:
    """Have freed memory neither unmapped nor given back: a page that the kernel hands out again is cleared again.

    Worth 5 to 25 % of a step of B0's proxies at batch 24 to 128 (one core of an AMD EPYC, torch 2.15). Nothing happens
    where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(MMAP_MAX, 0)
    library.mallopt(TRIM_THRESHOLD, -1)  # never


def give_back(device: torch.device) -> None:
    """Free what others on a GPU may need: what was of a work that is over."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()


def out_of_memory_kills(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Processes of this one's control group that the kernel has ended for want of memory; 0 where it does not tell.

    Args:
        proc: where the kernel tells of processes.
        groups: where it tells of control groups, of the second version or of the first.
    """
    with suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                kind, name = ("", "memory.events") if not controllers else ("memory", "memory.oom_control")
                inside = path.strip("/")
                for place in (groups / kind / inside / name, groups / kind / name):  # a container sees its own as root
                    with suppress(OSError):
                        return _kills(place.read_text(encoding="utf-8"))
    return 0


def _kills(text: str) -> int:
    rows = dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)
    return int(rows.get("oom_kill", 0))
