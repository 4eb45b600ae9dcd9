"""A network that only a user's own builder can make: `build(depth=…, width=…, resolution=…)` of `package.module`.

Beside `Network` the second kind of architecture. Knows nothing of torch: what the builder makes is known by its shapes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, field
from typing import Annotated, Any, cast

from scalesearch.cost import Cost
from scalesearch.declared import Declared, Fault, FieldError, Range, read
from scalesearch.spec import Network

Factor = Annotated[float, Range(1e-4, 1e4)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint(Declared):
    """What a builder is asked for, and what it then makes."""

    builder: str
    """`package.module:function`, called as function(depth=…, width=…, resolution=…)."""
    depth: Factor
    """Multiplier of the base's depth; what it means is the builder's."""
    width: Factor
    """Multiplier of the base's width."""
    resolution: Annotated[int, Range(1, 16_384)]
    """Side of the square RGB input [px]."""
    num_classes: Annotated[int, Range(1, 1_000_000)]
    """Outputs of the module."""
    shapes: str
    """SHA-256 of names and shapes of its parameters: what the module must be to count as this network."""

    place = "network"

    def contradictions(self) -> Iterator[Fault]:
        """A builder has a module and a name in it."""
        if not is_builder(self.builder):
            yield Fault("builder", f" = {self.builder!r}", "package.module:function")

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: the identity."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def built(self) -> object:
        """What is built: other multipliers that lead to the same shapes make the same network."""
        return self.builder, self.shapes, self.resolution

    @property
    def outline(self) -> dict[str, Any]:
        """What people look at first."""
        return {"depth": self.depth, "width": self.width, "resolution": self.resolution}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to `config.yaml`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Counted:
    """What a builder makes of multipliers and a side, or why it does not."""

    depth: float
    width: float
    resolution: int
    conv: int = 0
    linear: int = 0
    params: int = 0
    activations: int = 0
    num_classes: int = 1
    shapes: str = ""
    fault: str = ""
    """Kind of the error that the builder raised instead of making a network; empty if it made one."""
    reason: str = field(default="", compare=False)
    """What it said, which may differ from call to call; not written."""

    @property
    def cost(self) -> Cost:
        """The cost, without norms and pooling, which torch does not count."""
        return Cost(conv=self.conv, linear=self.linear, params=self.params, activations=self.activations)

    @property
    def text(self) -> str:
        """One line, as written to `plan.yaml`."""
        return " ".join(str(value) for value in astuple(self)[:-1])

    @classmethod
    def from_text(cls, text: str) -> Counted:
        """The inverse of `text`."""
        depth, width, side, conv, linear, params, activations, classes, shapes, fault = text.split(" ", 9)
        counted = map(int, (side, conv, linear, params, activations, classes))
        return cls(float(depth), float(width), *counted, shapes=shapes, fault=fault)


Architecture = Network | Blueprint


def is_builder(text: str) -> bool:
    """Whether a text has the form `package.module:function`.

    >>> is_builder("nets.mine:build"), is_builder("b0"), is_builder("C:/mine.yaml")
    (True, False, False)
    """
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", text) is not None


def architecture(values: object) -> Architecture:
    """A network of either kind from its plain values.

    Raises:
        SpecError: the values are those of neither.
    """
    if not (isinstance(values, Mapping) and "builder" in values):
        return Network.from_dict(values)  # type: ignore[arg-type]
    faults: list[Fault] = []
    found = read(Blueprint, cast("object", values), "", faults)
    if found is None:
        raise FieldError(faults, "network")
    return found
