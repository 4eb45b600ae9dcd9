"""Slots of this machine: where one trial at a time is trained, and what its hardware calls itself."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scalesearch.errors import StudyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A place where one trial at a time is trained."""

    device: str
    """`cpu` or `cuda:<index>`."""
    name: str
    """What the hardware calls itself."""


def local_slots(*, need_gpu: bool) -> list[Slot]:
    """A slot per GPU that torch can use, else one per core that this process may use.

    Raises:
        StudyError: a GPU is needed (the plan counts on one) and torch cannot use it.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if need_gpu and not gpus:
        raise StudyError(
            "the driver lists a GPU, but torch cannot use it",
            mend="install the CUDA build of torch that fits the driver, or give --preset quick",
        )
    if gpus:
        return [Slot(device=f"cuda:{index}", name=torch.cuda.get_device_name(index)) for index in range(gpus)]
    return [Slot(device="cpu", name=processor_name())] * usable_cores()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """What the system calls its processor."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
