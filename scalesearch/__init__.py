"""Compound-scaling search for ConvNets: candidates of equal compute, honest rankings, built families.

The command line is `scalesearch`; from Python, `scalesearch.load(path)` returns an emitted network as a module.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__version__ = "0.1.0"


def load(path: str | Path, *, builder: str | None = None) -> nn.Module:
    """The module of an emitted member: see `scalesearch.emit.load.load`."""
    from scalesearch.emit.load import load as load_member

    return load_member(path, builder=builder)
