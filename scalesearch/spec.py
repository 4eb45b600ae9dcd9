"""What a network is: stem, stages and head as frozen, validated values.

Knows nothing of how a network is scaled, counted or built: those fold over this value.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar, cast, get_args

from scalesearch.errors import SpecError

BlockName = Literal["mbconv", "separable", "basic", "bottleneck"]
ActivationName = Literal["silu", "relu", "relu6"]
SCHEMA = 1


def _fault(path: str, value: object, allowed: str) -> SpecError:
    return SpecError(f"{path} = {value!r}", mend=f"it must be {allowed}")


def _require(condition: bool, path: str, value: object, allowed: str) -> None:
    if not condition:
        raise _fault(path, value, allowed)


def _whole(path: str, value: object, *, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _fault(path, value, f"a whole number of at least {least}")
    return value


def _kernel(path: str, value: object) -> None:
    _require(_whole(path, value) % 2 == 1, path, value, "odd, so that padding is symmetric")


def _number(value: object) -> float:
    """The value, or nan, which lies in no range, where it is not a number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _ratio(path: str, value: object) -> None:
    _require(0 <= _number(value) < 1, path, value, "a number in [0, 1)")


def _is(value: object, kind: type) -> bool:
    """Whether a value has its declared type: callers may not run a type checker."""
    return isinstance(value, kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stem:
    """The convolution (with batch norm and activation) that meets the image."""

    width: int
    """Output channels."""
    kernel: int = 3
    """Side of the square kernel, odd [px]."""
    stride: int = 2
    """Down-sampling of the convolution."""
    pool: int = 1
    """Down-sampling of a 3x3 max-pool behind it; 1 = no pool."""

    def __post_init__(self) -> None:
        _whole("stem.width", self.width)
        _kernel("stem.kernel", self.kernel)
        _whole("stem.stride", self.stride)
        _whole("stem.pool", self.pool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A run of equal blocks; the first one carries the stride and the change of width.

    Blocks: `mbconv` (expand 1x1, depthwise, squeeze-excite, project 1x1; expansion of the input width),
    `separable` (depthwise, pointwise), `basic` (two convolutions with a shortcut), `bottleneck`
    (1x1, kernel, 1x1 with a shortcut; expansion of the output width, below 1 in ResNets).
    """

    block: BlockName
    """Operator of every block of the stage."""
    depth: int
    """Number of blocks."""
    width: int
    """Output channels of every block."""
    kernel: int = 3
    """Side of the square spatial kernel, odd [px]."""
    stride: int = 1
    """Down-sampling of the first block."""
    expansion: float = 1.0
    """Hidden channels over the channels named in the block's description."""
    se_ratio: float = 0.0
    """Squeeze-excite channels over the block's input width; 0 = none. `mbconv` only."""

    def __post_init__(self) -> None:
        _require(self.block in get_args(BlockName), "stage.block", self.block, f"one of {get_args(BlockName)}")
        for name in ("depth", "width", "stride"):
            _whole(f"stage.{name}", getattr(self, name))
        _kernel("stage.kernel", self.kernel)
        _require(0 < _number(self.expansion) <= 64, "stage.expansion", self.expansion, "a number in (0, 64]")
        _ratio("stage.se_ratio", self.se_ratio)
        _require(
            self.se_ratio == 0 or self.block == "mbconv", "stage.se_ratio", self.se_ratio, "0 unless block is mbconv"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A 1x1 convolution (or none), global average pooling, dropout and the classifier."""

    width: int = 0
    """Output channels of the 1x1 convolution; 0 = none."""
    dropout: float = 0.0
    """Probability of dropping a feature before the classifier."""

    def __post_init__(self) -> None:
        _whole("head.width", self.width, least=0)
        _ratio("head.dropout", self.dropout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A whole ConvNet at its input size: the one noun that is scaled, counted, built, trained and emitted.

    >>> Network(stem=Stem(width=8), stages=(Stage(block="basic", depth=1, width=8),), head=Head(),
    ...         resolution=32, num_classes=10).depths
    (1,)
    """

    stem: Stem
    stages: tuple[Stage, ...]
    head: Head
    resolution: int
    """Side of the square RGB input [px]."""
    num_classes: int
    """Outputs of the classifier."""
    activation: ActivationName = "silu"
    """Non-linearity of stem, blocks and head."""
    norm_eps: float = 1e-5
    """Batch norm: added to the variance."""
    norm_momentum: float = 0.1
    """Batch norm: weight of the newest batch in the running statistics (PyTorch's convention)."""
    drop_path: float = 0.0
    """Stochastic depth: probability of dropping the last block's residual branch, linear in the block index."""

    def __post_init__(self) -> None:
        _require(_is(self.stem, Stem), "stem", self.stem, "a Stem")
        _require(_is(self.stages, tuple), "stages", self.stages, "a tuple")
        _require(len(self.stages) > 0, "stages", self.stages, "at least one stage")
        for index, stage in enumerate(self.stages):
            _require(_is(stage, Stage), f"stages[{index}]", stage, "a Stage")
        _require(_is(self.head, Head), "head", self.head, "a Head")
        _whole("resolution", self.resolution)
        _whole("num_classes", self.num_classes)
        allowed = get_args(ActivationName)
        _require(self.activation in allowed, "activation", self.activation, f"one of {allowed}")
        _ratio("norm_eps", self.norm_eps)
        _ratio("norm_momentum", self.norm_momentum)
        _ratio("drop_path", self.drop_path)

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
        values = dict(_mapping("network", values))
        schema = values.pop("schema", SCHEMA)
        _require(schema == SCHEMA, "schema", schema, f"{SCHEMA}, the only one this version reads")
        rows = values.get("stages", ())
        _require(isinstance(rows, list | tuple), "stages", rows, "a list of stages")
        return _construct(
            cls,
            "network",
            values
            | {
                "stem": _construct(Stem, "stem", values.get("stem", {})),
                "stages": tuple(_stage(f"stages[{index}]", row) for index, row in enumerate(rows)),
                "head": _construct(Head, "head", values.get("head", {})),
            },
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of `to_dict`: the identity of the network. Equal networks have equal ones."""
        numbers = json.loads(json.dumps(self.to_dict()), parse_int=float)  # an expansion of 6 is one of 6.0
        text = json.dumps(numbers, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _mapping(path: str, values: object) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise _fault(path, values, "a mapping")
    return cast("Mapping[str, Any]", values)


T = TypeVar("T", Stem, Stage, Head, Network)


def _construct(cls: type[T], path: str, values: object) -> T:
    given = _mapping(path, values)
    known = [field.name for field in fields(cls)]
    unknown = sorted(str(key) for key in given if key not in known)
    _require(not unknown, path, ", ".join(unknown), f"made of {', '.join(known)}")
    try:
        return cls(**given)
    except TypeError as error:
        raise SpecError(f"{path}: {str(error).split('__init__() ')[-1]}", mend="add the missing keys") from None


def _stage(path: str, values: object) -> Stage:
    """A stage whose faults name its place in the list."""
    try:
        return _construct(Stage, path, values)
    except SpecError as fault:
        raise SpecError(fault.message.replace("stage.", f"{path}.", 1), mend=fault.mend) from None
