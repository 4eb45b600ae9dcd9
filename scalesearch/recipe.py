"""How a proxy is trained: hyper-parameters as one frozen value, schedules as callables on progress in [0, 1).

Knows nothing of torch, of run lengths or of trials: progress makes a schedule agnostic to both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from scalesearch.errors import PlanError, shown
from scalesearch.typed import mistyped


@dataclass(frozen=True, slots=True)
class Schedule:
    """A piecewise linear function of training progress.

    >>> warm_up = Schedule((0.0, 0.2, 1.0), (0.0, 1.0, 0.0))
    >>> warm_up(0.1), warm_up(0.2), warm_up(0.6)
    (0.5, 1.0, 0.5)
    """

    knots: tuple[float, ...]
    """Positions in [0, 1], rising, from 0 to 1."""
    values: tuple[float, ...]
    """Value at each knot."""

    def __post_init__(self) -> None:
        rising = all(left < right for left, right in zip(self.knots, self.knots[1:], strict=False))
        if len(self.knots) != len(self.values) or len(self.knots) < 2 or not rising:
            raise PlanError(
                f"schedule knots {self.knots} and values {self.values}", mend="give rising knots, one value each"
            )
        if self.knots[0] != 0 or self.knots[-1] != 1:
            raise PlanError(f"schedule knots {self.knots}", mend="the first is 0 and the last is 1")

    def __call__(self, progress: float) -> float:
        """The value at `progress` in [0, 1)."""
        right = min(max(bisect_right(self.knots, progress), 1), len(self.knots) - 1)
        x0, x1 = self.knots[right - 1], self.knots[right]
        y0, y1 = self.values[right - 1], self.values[right]
        return y0 + (y1 - y0) * (progress - x0) / (x1 - x0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Training hyper-parameters of every proxy of a plan.

    The defaults are for some hundred steps on a CPU, chosen in studies/quick-recipe.
    """

    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 0.01
    """Peak learning rate."""
    schedule: Schedule = field(default=Schedule((0.0, 0.2, 1.0), (0.0, 1.0, 0.0)))
    """Factor on the learning rate."""
    momentum: float = 0.9
    """Nesterov momentum of sgd; first beta of adamw."""
    weight_decay: float = 0.05
    """On convolution and classifier weights; norms and biases are spared."""
    batch_size: int = 24
    """Images per step."""
    label_smoothing: float = 0.1
    average: float = 0.1
    """Horizon of the moving average of the weights that is evaluated, as a share of the run; 0 = no average."""
    norm_images: int = 512
    """Training images that re-estimate the batch-norm statistics before each evaluation."""
    crop: float = 0.0
    """Padding on each side before the random crop, as a share of the side; wants runs of more than a few epochs."""
    flip: bool = False
    """Whether images are mirrored at random; wants runs of more than a few epochs."""
    near_identity: bool = True
    """Whether residual branches start at zero."""

    def __post_init__(self) -> None:
        if wrong := list(mistyped(self, "recipe")):
            raise PlanError([f"{fault} is no value for it" for fault in wrong], mend="correct the recipe")
        rules = {
            "optimizer": self.optimizer in ("sgd", "adamw"),
            "learning_rate": self.learning_rate > 0,
            "momentum": 0 <= self.momentum < 1,
            "weight_decay": self.weight_decay >= 0,
            "batch_size": _is_whole(self.batch_size) and self.batch_size >= 2,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "average": 0 <= self.average <= 1,
            "norm_images": _is_whole(self.norm_images) and self.norm_images >= 2,
            "flip": _is_flag(self.flip),
            "near_identity": _is_flag(self.near_identity),
            "crop": 0 <= self.crop < 0.5,
        }
        faults = [
            f"recipe.{name} = {getattr(self, name)!r} is out of range" for name, holds in rules.items() if not holds
        ]
        if faults:
            raise PlanError(faults, mend="correct the recipe")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to `plan.yaml`."""
        values = asdict(self)
        values["schedule"] = {"knots": list(self.schedule.knots), "values": list(self.schedule.values)}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`; missing keys take their defaults.

        Raises:
            PlanError: an unknown key, or a value out of range.
        """
        known = {entry.name for entry in fields(cls)}
        unknown = [f"recipe.{key} is not a key" for key in values if key not in known]
        if unknown:
            raise PlanError(unknown, mend=f"keys: {', '.join(sorted(known))}")
        given = dict(values)
        try:
            if "schedule" in given:
                given["schedule"] = _schedule(given["schedule"])
            return replace(cls(), **given)
        except TypeError as error:
            raise PlanError(f"recipe: {error}", mend="see plan.yaml of any run for an example") from None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _schedule(values: Any) -> Schedule:
    try:
        knots, heights = ([float(number) for number in values[name]] for name in ("knots", "values"))
    except (KeyError, TypeError, ValueError, ArithmeticError):
        raise PlanError(
            f"recipe.schedule = {shown(values)}", mend="give lists of numbers `knots` and `values`"
        ) from None
    return Schedule(tuple(knots), tuple(heights))


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """What one epoch of training led to."""

    epoch: int
    """Epochs trained so far, from 1."""
    train_loss: float
    """Mean loss over the epoch's steps, with label smoothing [nats]."""
    accuracy: float
    """Correct validation images [%]."""
    loss: float
    """Mean validation cross-entropy [nats]."""
