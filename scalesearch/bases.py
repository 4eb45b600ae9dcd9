"""A base by its name: a shipped network, a base file, or a user's builder; and back from a plan."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scalesearch.basefile import base_of, read_base
from scalesearch.blueprint import Counted, is_builder
from scalesearch.builder import Counts
from scalesearch.builder_base import BuilderBase
from scalesearch.errors import ScalingError, SpecError, shown
from scalesearch.families import find_base
from scalesearch.scalable import Base
from scalesearch.staged import StagedBase


def find(text: str, told: Callable[[str], None] = lambda _: None) -> Base:
    """The base that a text names: a shipped network, a base file (`mine.yaml`), or `package.module:function`.

    Args:
        text: the name.
        told: hears how far counting is, where networks have to be built to be counted.

    Raises:
        SpecError: no such base.
        PlanError: the file does not hold one; all its faults.
        ScalingError: the builder does not make a network.
    """
    if "://" in text:
        raise SpecError(f"--base {shown(text)} is no file of this machine", mend="fetch it, and name the file")
    if text.lower().endswith((".yaml", ".yml")) or "/" in text:
        return StagedBase(named=read_base(Path(text)))
    if is_builder(text):
        from scalesearch.nets.builder import native_side  # brings torch

        return BuilderBase(counts=Counts(builder=text, told=told), resolution=native_side(text))
    if ":" in text or text.endswith(".py"):
        raise SpecError(f"--base {text!r}", mend="name a function of your own as package.module:function")
    try:
        return StagedBase(named=find_base(text))
    except SpecError as error:
        if not os.path.exists(text):
            raise
        mend = f"give a FILE.yaml that describes a network; {error.mend}"
        raise SpecError(f"--base {text!r} is there, but no base file", mend=mend) from None


def halvings_to_fit(base: Base, side: int, classes: int, most: int | None) -> int:
    """How often the proxy base is narrowed until it costs at most `most` multiply-adds; None = no limit.

    A base that narrows no more before that is narrowed as far as it goes.
    """
    if most is None:
        return 0
    halvings, macs = 0, base.small(side, classes, 0).cost.macs
    while macs > most:
        try:
            narrower = base.small(side, classes, halvings + 1).cost.macs
        except (ScalingError, SpecError):
            break
        if narrower >= macs:
            break
        halvings, macs = halvings + 1, narrower
    return halvings


def base_from_plan(values: Any) -> Base:
    """The inverse of `Base.to_plan`; a builder is not imported, and nothing is asked of it beyond its table.

    Raises:
        ScaleSearchError, TypeError, KeyError: the values are not those of a base.
    """
    if isinstance(values, str):
        return StagedBase(named=find_base(values))
    if "builder" not in values:
        return StagedBase(named=base_of(values))
    builder: object = values["builder"]
    if not (isinstance(builder, str) and is_builder(builder)):
        raise SpecError(f"base.builder = {shown(builder)}", mend="it must be package.module:function")
    table = tuple(map(Counted.from_text, values["counted"]))
    return BuilderBase(counts=Counts(builder=builder, table=table, may_import=False), resolution=values["resolution"])
