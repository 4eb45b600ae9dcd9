"""What a network is: stem, stages and head as frozen, validated values.

Knows nothing of how a network is scaled, counted or built: those fold over this value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from scalesearch.errors import SpecError

BlockName = Literal["mbconv", "separable", "basic", "bottleneck"]
ActivationName = Literal["silu", "relu", "relu6"]
SCHEMA = 1

T = TypeVar("T")


def _require(condition: bool, path: str, value: object, allowed: str) -> None:
    if not condition:
        raise SpecError(f"{path} = {value!r}", mend=f"it must be {allowed}")


def _whole(path: str, value: object, *, least: int = 1) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    _require(is_whole and value >= least, path, value, f"a whole number of at least {least}")  # type: ignore[operator]


def _kernel(path: str, value: object) -> None:
    _whole(path, value)
    _require(int(value) % 2 == 1, path, value, "odd, so that padding is symmetric")  # type: ignore[call-overload]


def _ratio(path: str, value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    _require(is_number and 0 <= value < 1, path, value, "a number in [0, 1)")  # type: ignore[operator]


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
        is_number = isinstance(self.expansion, int | float) and not isinstance(self.expansion, bool)
        _require(is_number and 0 < self.expansion <= 64, "stage.expansion", self.expansion, "a number in (0, 64]")
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
        _require(len(self.stages) > 0, "stages", self.stages, "at least one stage")
        _require(isinstance(self.stages, tuple), "stages", self.stages, "a tuple")
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
                "stages": tuple(_construct(Stage, f"stages[{i}]", row) for i, row in enumerate(rows)),
                "head": _construct(Head, "head", values.get("head", {})),
            },
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of `to_dict`: the identity of the network."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _mapping(path: str, values: object) -> Mapping[str, Any]:
    _require(isinstance(values, Mapping), path, values, "a mapping")
    return values  # type: ignore[return-value]


def _construct(cls: type[T], path: str, values: object) -> T:
    given = _mapping(path, values)
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(str(key) for key in given if key not in known)
    _require(not unknown, path, ", ".join(unknown), f"made of {', '.join(known)}")
    try:
        return cls(**given)
    except TypeError as error:
        raise SpecError(f"{path}: {str(error).split('__init__() ')[-1]}", mend="add the missing keys") from None
