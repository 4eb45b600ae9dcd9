"""The frozen input of a study: from what a user asks for to everything that fixes the answer.

`Request` is the asking (arguments, `study.yaml`), `Plan` the resolved whole (`plan.yaml` in a run folder), `Layout`
what a plan comes to: its candidates and the proxies it trains. Imports no torch.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from scalesearch.cost import count
from scalesearch.dataset import Dataset, describe
from scalesearch.errors import PlanError, ScaleSearchError, StudyError
from scalesearch.families import Base, find_base
from scalesearch.presets import PRESETS, Preset, PresetName, default_preset
from scalesearch.recipe import Recipe
from scalesearch.scaling import Multipliers, Rounding, scale
from scalesearch.space import Candidate, Candidates, Policy, Scalable, Space, candidates, parse_budget, trained_proxies
from scalesearch.spec import Network

SCHEMA = 1
SMALLEST_SIDE = 20
"""Least resolution of a proxy base [px]."""
LAST_MAP = 3
"""Least side of the proxy base's last map [px]."""
FEWEST_IMAGES = 256
"""Fewer training images than this rank nothing."""
ANCHOR = "base"
"""Id of the unscaled proxy base, trained outside the ranking."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user asks for; None leaves the choice to the preset or to a rule."""

    base: str = "b0"
    budget: str = "2x"
    rounding: Policy = "level"
    step: float | None = None
    tolerance: float | None = None
    data: str | None = None
    data_root: str | None = None
    preset: PresetName | None = None
    candidates: int | None = None
    """Distinct proxies to train."""
    seeds: int | None = None
    epochs: int | None = None
    images: int | None = None
    """Training images."""
    proxy_resolution: int | None = None
    """Resolution of the proxy base [px]."""
    recipe: dict[str, Any] | None = None
    """Keys of `Recipe` that differ from the preset's."""


def read_request(path: Path) -> Request:
    """A `study.yaml`, checked by pydantic.

    Raises:
        PlanError: the file cannot be read, or all its faults at once, each with its key.
    """
    from pydantic import TypeAdapter, ValidationError
    from pydantic.dataclasses import dataclass as checked

    values = _read_yaml(path)
    known = [entry.name for entry in fields(Request)]
    faults = [f"{path}: {key} is not a key{_near(str(key), known)}" for key in values if key not in known]
    given = {key: value for key, value in values.items() if key in known}
    try:
        TypeAdapter(checked(Request, config={"extra": "forbid", "strict": True})).validate_python(given)  # type: ignore[call-overload]
    except ValidationError as error:
        faults += [f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    if faults:
        raise PlanError(faults, mend=f"keys: {', '.join(known)}")
    return Request(**given)


def _near(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlanError(f"{path}: {' '.join(str(error).split())}", mend="give a readable YAML file") from None
    if not isinstance(values, dict):
        raise PlanError(f"{path}: not a mapping of keys to values", mend="see studies/ for an example")
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that fixes the answer of a study."""

    base: str
    """Name of the base network."""
    budget: str
    """The budget as the user wrote it."""
    space: Space
    preset: PresetName
    data: Dataset
    resolution: int
    """Side of the proxy base's input [px]."""
    halvings: int
    """How often the proxy base's channels are halved."""
    trained: int | None
    """Distinct proxies to train; None = all."""
    seeds: int
    """Trainings of every proxy, with seeds 0, 1, ..."""
    epochs: int
    images: int
    """Training images, the same for all."""
    validation_images: int
    threads: int
    """CPU threads of a trial: 1 and 2 threads give different bits."""
    recipe: Recipe

    @property
    def evidence(self) -> str:
        """What a result of this plan is worth."""
        return PRESETS[self.preset].evidence

    @property
    def found(self) -> Base:
        """The base network with its family."""
        return find_base(self.base)

    @property
    def scalable(self) -> Scalable:
        """The base at full size."""
        base = self.found
        return Scalable(network=base.network, rounding=base.family.rounding, resolution_step=4)

    @property
    def proxy_base(self) -> Scalable:
        """The base relaxed for small images and narrowed: what the trained proxies are scaled from."""
        base = self.found
        return _narrowed(
            relaxed(base.network, self.resolution, self.data.num_classes), base.family.rounding, self.halvings
        )

    @property
    def image_passes(self) -> int:
        """Training images seen by one trial."""
        return self.images * self.epochs

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to `plan.yaml`."""
        return {
            "schema": SCHEMA,
            **asdict(self),
            "data": self.data.to_dict(),
            "recipe": self.recipe.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """The inverse of `to_dict`.

        Raises:
            PlanError: a key is missing, unknown or out of range.
        """
        given = {key: value for key, value in values.items() if key != "schema"}
        try:
            given["space"] = Space(**given["space"])
            given["data"] = Dataset.from_dict(given["data"])
            given["recipe"] = Recipe.from_dict(given["recipe"])
            return cls(**given)
        except (KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"not a plan: {error}", mend="a plan.yaml is written by `scalesearch run`") from None

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: the identity of the study."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """`<base>-<budget>-<data>-<8 characters of the digest>`."""
        return f"{self.base}-{self.budget.lower().replace(' ', '')}-{self.data.name}-{self.digest[:8]}"


def read_plan(folder: Path) -> Plan:
    """The plan of a run folder.

    Raises:
        StudyError: there is no run in that folder, or its plan is damaged.
    """
    path = folder / "plan.yaml"
    if not path.is_file():
        raise StudyError(f"{folder} is not a run folder: it has no plan.yaml", mend="give a folder that `run` made")
    try:
        return Plan.from_dict(_read_yaml(path))
    except ScaleSearchError as error:
        raise StudyError(
            f"{path} is damaged: {error.message}", mend="restore the file, or run into a new folder"
        ) from None


def relaxed(network: Network, resolution: int, num_classes: int) -> Network:
    """The network for small images: early stride-2 steps removed until its last map is at least 3x3.

    The order is stem, stem pool, then strided stages from the first. Regularisation by dropout and stochastic
    depth is off: short trainings underfit.
    """
    stem, stages = network.stem, list(network.stages)

    def last_map() -> int:
        return -(-resolution // (stem.stride * stem.pool * math.prod(stage.stride for stage in stages)))

    if last_map() < LAST_MAP:
        stem = replace(stem, stride=1)
    if last_map() < LAST_MAP:
        stem = replace(stem, pool=1)
    for index, stage in enumerate(stages):
        if last_map() < LAST_MAP:
            stages[index] = replace(stage, stride=1)
    return replace(
        network,
        stem=stem,
        stages=tuple(stages),
        head=replace(network.head, dropout=0.0),
        drop_path=0.0,
        resolution=resolution,
        num_classes=num_classes,
    )


def _narrowed(network: Network, rounding: Rounding, halvings: int) -> Scalable:
    """Channels halved `halvings` times, the rounding's divisor with them, so that its steps stay as fine."""
    finer = replace(rounding, divisor=max(1, rounding.divisor >> halvings))
    narrow = scale(network, Multipliers(width=0.5**halvings), finer)
    return Scalable(network=narrow, rounding=finer, resolution_step=1)


def _halvings(network: Network, rounding: Rounding, most: int | None) -> int:
    if most is None:
        return 0
    return next(n for n in range(16) if count(_narrowed(network, rounding, n).network).macs <= most or n == 15)


def proxy_side(data: Dataset, growth: float, preset: Preset) -> int:
    """Resolution of the proxy base, so that what grows from it stays within the images' native side [px]."""
    native = round(data.side / math.sqrt(max(1.0, growth)))
    return max(SMALLEST_SIDE, min(preset.photo_side, native) if data.is_photos else native)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a plan comes to."""

    candidates: Candidates
    trained: tuple[str, ...]
    """Ids of the proxies to train, in candidate order."""

    def proxy(self, proxy_id: str) -> Candidate:
        """The first candidate that stands on a proxy."""
        return next(one for one in self.candidates.candidates if one.id == proxy_id)


def lay_out(plan: Plan) -> Layout:
    """Enumerate the candidates of a plan and choose the proxies it trains.

    Raises:
        SpaceError: nothing is left to search.
    """
    found = candidates(plan.space, plan.scalable, plan.proxy_base)
    return Layout(candidates=found, trained=trained_proxies(found.candidates, plan.trained))


def resolve(request: Request) -> tuple[Plan, Layout]:
    """Turn what is asked for into a plan, by the preset's numbers and the rules of docs/design.md.

    Raises:
        PlanError: everything that is wrong with the request, at once.
    """
    faults: list[ScaleSearchError] = []
    preset = PRESETS[request.preset or default_preset()]
    base = _attempt(faults, lambda: find_base(request.base))
    data = _attempt(faults, lambda: describe(request.data, root=Path(request.data_root) if request.data_root else None))
    recipe = _attempt(faults, lambda: Recipe.from_dict(preset.recipe.to_dict() | (request.recipe or {})))
    macs = count(base.network).macs if base else 1_000_000_000
    space = _attempt(faults, lambda: _space(request, parse_budget(request.budget, macs)))
    faults += _out_of_range(request)
    if base is None or data is None or recipe is None or space is None or faults:
        raise faults[0] if len(faults) == 1 else PlanError([str(fault) for fault in faults])
    return _planned(request, preset, base, data, recipe, space)


def _attempt(faults: list[ScaleSearchError], make: Callable[[], T]) -> T | None:
    try:
        return make()
    except ScaleSearchError as error:
        faults.append(error)
        return None


def _space(request: Request, growth: float) -> Space:
    return Space.of(growth, policy=request.rounding, step=request.step, tolerance=request.tolerance)


def _out_of_range(request: Request) -> list[ScaleSearchError]:
    least = {"candidates": 2, "seeds": 1, "epochs": 1, "images": FEWEST_IMAGES, "proxy_resolution": 8}
    asked = {name: getattr(request, name) for name in least}
    return [
        PlanError(f"{name.replace('_', '-')} {asked[name]}", mend=f"it must be at least {low}")
        for name, low in least.items()
        if asked[name] is not None and asked[name] < low
    ]


def _planned(
    request: Request, preset: Preset, base: Base, data: Dataset, recipe: Recipe, space: Space
) -> tuple[Plan, Layout]:
    side = request.proxy_resolution or proxy_side(data, space.budget, preset)
    small = relaxed(base.network, side, data.num_classes)
    validation = min(preset.validation_images, max(data.num_classes, data.train_count // 5))
    plan = Plan(
        base=base.name,
        budget=request.budget.strip(),
        space=space,
        preset=preset.name,
        data=data,
        resolution=side,
        halvings=_halvings(small, base.family.rounding, preset.proxy_macs),
        trained=request.candidates or preset.trained,
        seeds=request.seeds or preset.seeds,
        epochs=request.epochs or preset.epochs,
        images=data.train_count if data.has_validation else data.train_count - validation,
        validation_images=validation,
        threads=1,
        recipe=recipe,
    )
    layout = lay_out(plan)
    images = min(plan.images, request.images or _affordable(plan, layout, preset))
    if images < FEWEST_IMAGES:
        mend = "train fewer candidates, seeds or epochs, or give --images yourself"
        raise PlanError(
            f"the {preset.name} preset affords {images} training images, too few to rank anything", mend=mend
        )
    return replace(plan, images=images), layout


def _affordable(plan: Plan, layout: Layout, preset: Preset) -> int:
    """Training images that keep all trials together within the preset's image passes and image-macs."""
    if preset.image_passes is None or preset.image_macs is None:
        return plan.images
    macs = count(plan.proxy_base.network).macs
    growths = [1.0, *(layout.proxy(name).proxy.growth for name in layout.trained)]
    runs = plan.seeds * plan.epochs
    by_passes = preset.image_passes // (len(growths) * runs)
    return min(by_passes, int(preset.image_macs / (math.fsum(growths) * macs * runs)))
