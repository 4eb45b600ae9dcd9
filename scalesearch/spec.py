"""What a network is: stem, stages and head as frozen, validated values.

Knows nothing of how a network is scaled, counted or built: those fold over this value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, cast

from scalesearch.declared import Declared, Fault, FieldError, Range, read
from scalesearch.errors import shown

BlockName = Literal["mbconv", "separable", "basic", "bottleneck"]
ActivationName = Literal["silu", "relu", "relu6", "hardswish"]
SCHEMA = 1


WIDEST, DEEPEST, LARGEST_SIDE = 65_536, 4_096, 16_384
"""Most channels of any part, most blocks of a stage, and largest side of an input [px]."""
Channels = Annotated[int, Range(1, WIDEST)]
SomeChannels = Annotated[int, Range(0, WIDEST)]
Kernel = Annotated[int, Range(1, 63, odd=True)]
Stride = Annotated[int, Range(1, 64)]
Share = Annotated[float, Range(0, 1, below=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stem(Declared):
    """The convolution (with batch norm and activation) that meets the image."""

    width: Channels
    """Output channels."""
    kernel: Kernel = 3
    """Side of the square kernel, odd [px]."""
    stride: Stride = 2
    """Down-sampling of the convolution."""
    pool: Stride = 1
    """Down-sampling of a 3x3 max-pool behind it; 1 = no pool."""

    place = "stem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Declared):
    """A run of equal blocks; the first one carries the stride and the change of width.

    Blocks: `mbconv` (expand 1x1, depthwise, squeeze-excite, project 1x1; expansion of the input width),
    `separable` (depthwise, pointwise), `basic` (two convolutions with a shortcut), `bottleneck`
    (1x1, kernel, 1x1 with a shortcut; expansion of the output width, below 1 in ResNets).
    """

    block: BlockName
    """Operator of every block of the stage."""
    depth: Annotated[int, Range(1, DEEPEST)]
    """Number of blocks."""
    width: Channels
    """Output channels of every block."""
    kernel: Kernel = 3
    """Side of the square spatial kernel, odd [px]."""
    stride: Stride = 1
    """Down-sampling of the first block."""
    expansion: Annotated[float, Range(1 / 64, 64)] = 1.0
    """Hidden channels over the channels named in the block's description. `mbconv` and `bottleneck` only."""
    se_ratio: Share = 0.0
    """Squeeze-excite channels over the channels that `SqueezeExcite.of` names; 0 = none. `mbconv` only."""
    groups: Channels = 1
    """Groups of the spatial convolution, as in ResNeXt. `bottleneck` only."""
    activation: ActivationName | None = None
    """Non-linearity of its blocks; None = the network's."""

    place = "stage"

    def contradictions(self) -> Iterator[Fault]:
        """What only some kinds of block have."""
        if self.se_ratio and self.block != "mbconv":
            yield Fault("se_ratio", f" = {self.se_ratio:g}", "0 unless block is mbconv")
        if self.expansion != 1 and self.block in ("basic", "separable"):
            yield Fault("expansion", f" = {self.expansion:g}", "1 unless block is mbconv or bottleneck")
        hidden = self.width * self.expansion
        if self.groups > 1 and self.block != "bottleneck":
            yield Fault("groups", f" = {self.groups}", "1 unless block is bottleneck")
        elif self.groups > 1 and hidden % self.groups:
            yield Fault("groups", f" = {self.groups}", f"a divisor of width x expansion = {hidden:g} channels")


@dataclass(frozen=True, slots=True, kw_only=True)
class SqueezeExcite(Declared):
    """How squeeze-excite is built, in the stages that have it."""

    of: Literal["input", "hidden"] = "input"
    """Channels of the block that `se_ratio` refers to: its unexpanded input, or its hidden ones."""
    divisor: Annotated[int, Range(1, 64)] = 1
    """Squeezed channels are multiples of this; at 1 they are cut to a whole number."""
    activation: ActivationName | None = None
    """Non-linearity between its convolutions; None = the stage's."""
    gate: Literal["sigmoid", "hardsigmoid"] = "sigmoid"
    """What turns its output into factors in [0, 1]."""

    place = "squeeze_excite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(Declared):
    """A 1x1 convolution (or none), global average pooling, a linear layer (or none), dropout and the classifier."""

    width: SomeChannels = 0
    """Output channels of the 1x1 convolution; 0 = none."""
    hidden: SomeChannels = 0
    """Outputs of a linear layer (with activation) behind the pooling; 0 = none."""
    dropout: Share = 0.0
    """Probability of dropping a feature before the classifier."""

    place = "head"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network(Declared):
    """A whole ConvNet at its input size: the one noun that is scaled, counted, built, trained and emitted.

    >>> Network(stem=Stem(width=8), stages=(Stage(block="basic", depth=1, width=8),), head=Head(),
    ...         resolution=32, num_classes=10).depths
    (1,)
    """

    stem: Stem
    stages: tuple[Stage, ...]
    head: Head
    resolution: Annotated[int, Range(1, LARGEST_SIDE)]
    """Side of the square RGB input [px]."""
    num_classes: Annotated[int, Range(1, 1_000_000)]
    """Outputs of the classifier."""
    activation: ActivationName = "silu"
    """Non-linearity of stem, blocks and head."""
    squeeze_excite: SqueezeExcite = SqueezeExcite()
    """How squeeze-excite is built."""
    hidden_divisor: Annotated[int, Range(1, 64)] = 1
    """Hidden channels of `mbconv` blocks are rounded to multiples of this."""
    padding: Literal["symmetric", "same"] = "symmetric"
    """`same`: TensorFlow's padding, which puts the odd pixel of a strided convolution at the right and below."""
    norm_eps: Share = 1e-5
    """Batch norm: added to the variance."""
    norm_momentum: Share = 0.1
    """Batch norm: weight of the newest batch in the running statistics (PyTorch's convention)."""
    drop_path: Share = 0.0
    """Stochastic depth: probability of dropping the last block's residual branch, linear in the block index."""

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return tuple(stage.depth for stage in self.stages)

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels of each stage."""
        return tuple(stage.width for stage in self.stages)

    @property
    def depth(self) -> int:
        """Blocks of all stages."""
        return sum(self.depths)

    @property
    def built(self) -> object:
        """What is built: the network itself."""
        return self

    @property
    def outline(self) -> dict[str, Any]:
        """What people look at first."""
        return {
            "depths": list(self.depths),
            "widths": list(self.widths),
            "stem": self.stem.width,
            "head": self.head.width,
            "resolution": self.resolution,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, as written to `config.yaml`."""
        values = asdict(self)
        values["stages"] = list(values["stages"])
        return {"schema": SCHEMA, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Network:
        """The inverse of `to_dict`.

        Raises:
            SpecError: a key is missing, unknown or out of range; another schema.
        """
        found, faults = read_network(values)
        if found is None:
            raise FieldError(faults, "")
        return found

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of what differs from the defaults: equal where networks are, and only there.

        A field that a later version adds changes no digest, as long as its default means what was built before.
        """
        numbers = json.loads(json.dumps(_given(self)), parse_int=float)  # an expansion of 6 is one of 6.0
        text = json.dumps(numbers, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _given(value: Any) -> Any:
    """Plain values of the fields that differ from their defaults."""
    if isinstance(value, tuple):
        return [_given(one) for one in cast("tuple[Any, ...]", value)]
    if not is_dataclass(value):
        return value
    entries = ((entry, getattr(value, entry.name)) for entry in fields(value))
    return {entry.name: _given(held) for entry, held in entries if held != entry.default}


def read_network(values: object) -> tuple[Network | None, list[Fault]]:
    """A network from plain values, or all that is wrong with them."""
    faults: list[Fault] = []
    given = values
    if isinstance(values, Mapping):
        rows = cast("Mapping[Any, Any]", values)
        given = {key: value for key, value in rows.items() if key != "schema"}
        if rows.get("schema", SCHEMA) != SCHEMA:
            faults.append(Fault("schema", f" = {shown(rows['schema'])}", f"{SCHEMA}, which this version reads"))
    found = read(Network, given, "", faults)
    return (None if faults else found), faults
