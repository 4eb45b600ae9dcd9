"""What a user asks for, from arguments and `study.yaml`, and its resolution to a plan. Imports no torch."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from scalesearch.bases import find, halvings_to_fit
from scalesearch.blueprint import is_builder
from scalesearch.dataset import Dataset, describe
from scalesearch.errors import PlanError, ScaleSearchError
from scalesearch.levelling import Scaled
from scalesearch.limits import Limits, parse_limits
from scalesearch.plan import MOST, Layout, Plan, lay_out
from scalesearch.presets import PRESETS, PolicyName, Preset, PresetName, default_preset
from scalesearch.proxy_base import native_side
from scalesearch.recipe import Recipe
from scalesearch.scalable import Base
from scalesearch.scaling import Multipliers
from scalesearch.space import LARGEST_BUDGET, Policy, Space, budget_form, budget_text, parse_budget
from scalesearch.staged import StagedBase
from scalesearch.typed import mistyped
from scalesearch.yamlfile import read_mapping

MARGIN = 0.1
"""Differences in accuracy up to this count as none, where the user does not say [points]."""
FEWEST_IMAGES = 256
"""Fewer training images than this rank nothing."""

RANGES = {
    "candidates": (2, MOST["proxies"]),
    "seeds": (1, MOST["seeds"]),
    "threads": (1, MOST["threads"]),
    "together": (1, MOST["together"]),
    "epochs": (1, MOST["epochs"]),
    "images": (FEWEST_IMAGES, MOST["images"]),
    "proxy_resolution": (8, 1024),
    "margin": (0, 50),
    "max_epochs_total": (1, MOST["most_epochs"]),
    "confirm": (0, MOST["confirm"]),
    "check_phi": (-4, 4),
}
"""Least and largest value of each number that a user may ask for."""

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
    policy: PolicyName | None = None
    margin: float | None = None
    """Differences in accuracy up to this count as none [points]."""
    max_epochs_total: int | None = None
    """Epochs of all trials of the search together."""
    confirm: int | None = None
    """Leading proxies to be confirmed on the test part."""
    check_phi: float | None = None
    """Exponent on the budget at which the leading shares are ranked again."""
    seeds: int | None = None
    epochs: int | None = None
    images: int | None = None
    """Training images."""
    proxy_resolution: int | None = None
    """Resolution of the proxy base [px]."""
    max_params: str | None = None
    """Most parameters of a candidate, such as `20M`."""
    max_activations: str | None = None
    max_memory: str | None = None
    """Most memory of a training step [bytes], with its batch: `16G@64`."""
    threads: int | None = None
    """CPU threads of a trial; without it, as measured."""
    together: int | None = None
    """Most seeds of a proxy that are trained as one network; without it, as measured."""
    recipe: dict[str, Any] | None = None
    """Keys of `Recipe` that differ from the preset's."""


def read_request(path: Path) -> Request:
    """A `study.yaml`, checked by pydantic.

    Raises:
        PlanError: the file cannot be read, or all its faults at once, each with its key.
    """
    values = read_mapping(path)
    known = [entry.name for entry in fields(Request)]
    faults = [f"{key} is not a key{_near(str(key), known)}" for key in values if key not in known]
    given = {key: value for key, value in values.items() if key in known}
    faults += _wrong_types(given) or mistyped(Request(**given))
    if faults:
        raise PlanError(faults, mend=f"keys: {', '.join(known)}").within(path)
    if is_builder(given.get("base", "")):
        fault = f"{path}: base: {given['base']} is code, which a file may not run"
        raise PlanError(fault, mend=f"take it out, and give --base {given['base']}")
    return Request(**given)


def _wrong_types(given: dict[str, Any]) -> list[str]:
    """One text per key whose value is not of its declared type."""
    from pydantic import ConfigDict, ValidationError, create_model

    types = get_type_hints(Request)
    rows: dict[str, Any] = {entry.name: (types[entry.name], entry.default) for entry in fields(Request)}
    try:
        create_model("Study", __config__=ConfigDict(strict=True), **rows).model_validate(given)
    except ValidationError as error:
        return [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    return []


def _near(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def resolve(request: Request, told: Callable[[str], None] = lambda _: None) -> tuple[Plan, Layout]:
    """Turn what is asked for into a plan, by the preset's numbers and the rules of docs/design.md.

    Args:
        request: what is asked for.
        told: hears how far counting is, where the base has to be built to be counted.

    Raises:
        PlanError: everything that is wrong with the request, at once.
    """
    faults: list[ScaleSearchError] = []
    preset = PRESETS[request.preset or default_preset()]
    base = _attempt(faults, lambda: find(request.base, told))
    data = _attempt(faults, lambda: describe(request.data, root=Path(request.data_root) if request.data_root else None))
    recipe = _attempt(faults, lambda: Recipe.from_dict(preset.recipe.to_dict() | (request.recipe or {})))
    limits = _attempt(faults, lambda: parse_limits(request.max_params, request.max_activations, request.max_memory))
    space = _attempt(faults, lambda: _space(request, base)) if base else None
    if base is None:  # the budget's form can be checked all the same
        _attempt(faults, lambda: budget_form(request.budget))
    faults += _out_of_range(request)
    faults += _unanswerable(request, base, data, space)
    if base is None or data is None or recipe is None or space is None or limits is None or faults:
        raise faults[0] if len(faults) == 1 else PlanError([str(fault) for fault in faults], mend="mend each of them")
    return _planned(request, preset, base, data, recipe, space, limits)


def _attempt(faults: list[ScaleSearchError], make: Callable[[], T]) -> T | None:
    try:
        return make()
    except ScaleSearchError as error:
        faults.append(error)
        return None


def _space(request: Request, base: Base) -> Space:
    growth = parse_budget(request.budget, base.full().cost.macs)
    return Space.of(growth, policy=request.rounding, step=request.step, tolerance=request.tolerance)


def _out_of_range(request: Request) -> list[ScaleSearchError]:
    asked = {name: getattr(request, name) for name in RANGES}
    return [
        PlanError(f"{name.replace('_', '-')} {asked[name]}", mend=f"it must be at least {low} and at most {high}")
        for name, (low, high) in RANGES.items()
        if asked[name] is not None and not low <= asked[name] <= high
    ]


def default_policy(request: Request) -> PolicyName:
    """`fit`, but where the paper's rounding makes candidates of unequal compute, which lie on no surface."""
    return "grid" if request.rounding == "paper" else "fit"


def _unanswerable(
    request: Request, base: Base | None, data: Dataset | None, space: Space | None
) -> list[ScaleSearchError]:
    """What is asked of data or of a base that they cannot give."""
    faults: list[ScaleSearchError] = []
    if request.confirm and data is not None and not data.has_test:
        faults.append(PlanError(f"--confirm: {data.source} has no test part", mend="add one, or leave --confirm out"))
    if request.rounding == "paper" and request.policy not in (None, "grid"):
        fault = f"--policy {request.policy} compares candidates of equal compute, which --rounding paper does not make"
        faults.append(PlanError(fault, mend="use --policy grid, or --rounding level"))
    if (request.together or 1) > 1 and base is not None and not isinstance(base, StagedBase):
        faults.append(PlanError("--together: networks of a builder are trained one by one", mend="leave it out"))
    phi = request.check_phi
    low, high = RANGES["check_phi"]
    if phi is None or base is None or space is None or not low <= phi <= high:
        return faults
    if not isinstance(base, StagedBase):
        mend = "leave it out, or search again with the budget that the exponent stands for"
        faults.append(PlanError("--check-phi: networks of a builder are counted at one budget only", mend=mend))
    growth = space.budget**phi
    if phi in (0, 1) or not 1 / LARGEST_BUDGET <= growth <= LARGEST_BUDGET:
        mend = f"give an exponent other than 0 and 1, for 1/{LARGEST_BUDGET:g}x to {LARGEST_BUDGET:g}x"
        faults.append(PlanError(f"--check-phi {phi:g} asks for {growth:.4g}x", mend=mend))
    return faults


def _planned(
    request: Request, preset: Preset, base: Base, data: Dataset, recipe: Recipe, space: Space, limits: Limits
) -> tuple[Plan, Layout]:
    side = request.proxy_resolution or base.proxy_side(native_side(data, space.budget, preset.photo_side), space.budget)
    validation = min(preset.validation_images, max(data.num_classes, data.train_count // 5))
    policy = request.policy or default_policy(request)
    epochs = request.epochs or preset.epochs
    plan = Plan(
        base=base,
        budget=budget_text(request.budget),
        space=space,
        preset=preset.name,
        data=data,
        resolution=side,
        halvings=halvings_to_fit(base, side, data.num_classes, preset.proxy_macs),
        proxies=request.candidates or (None if policy == "fit" else preset.proxies),
        policy=policy,
        margin=MARGIN if request.margin is None else request.margin,
        most_epochs=request.max_epochs_total or _preset_epochs(preset, policy, epochs),
        confirm=request.confirm or 0,
        check_phi=request.check_phi,
        seeds=request.seeds or preset.seeds,
        epochs=epochs,
        images=data.train_count,
        validation_images=validation,
        threads=request.threads,
        together=request.together,
        recipe=recipe,
        limits=limits,
    )
    layout = lay_out(plan)
    least = epochs * min(2, len(layout.trained))
    if plan.search_epochs(len(layout.trained)) < least:
        fault = (
            f"{plan.most_epochs} epochs in all, {plan.anchor_epochs} of them the unscaled base's, train no two proxies"
        )
        raise PlanError(fault, mend=f"give --max-epochs-total {plan.anchor_epochs + least} or more, or fewer --seeds")
    own = [
        Scaled(network=one.network, effective=Multipliers(), cost=one.cost, growth=1.0)
        for one in (plan.scalable, plan.proxy_base)
    ]
    base.confirm([*own, *(scaled for one in layout.candidates for scaled in (one.scaled, one.proxy))])
    plan = replace(plan, base=base.settled())
    if plan.most_images < FEWEST_IMAGES:
        fault = f"{data.source} leaves {plan.most_images} training images beside {validation} for validation"
        raise PlanError(fault, mend=f"a search needs at least {FEWEST_IMAGES} (docs/data.md)")
    images = min(plan.most_images, request.images or _affordable(plan, layout, preset))
    if images < FEWEST_IMAGES:
        fault = f"the {preset.name} preset affords {images} training images; a search needs at least {FEWEST_IMAGES}"
        raise PlanError(fault, mend="train fewer candidates, seeds or epochs, or give --images yourself")
    return replace(plan, images=images), layout


def _preset_epochs(preset: Preset, policy: PolicyName, epochs: int) -> int | None:
    """Epochs that a preset gives a search; None = what the policy takes."""
    return preset.trials * epochs if preset.trials and policy == "fit" else None


def _affordable(plan: Plan, layout: Layout, preset: Preset) -> int:
    """Training images that keep all trials together within the preset's image passes and image-macs."""
    if preset.image_passes is None or preset.image_macs is None:
        return plan.most_images
    growths = [layout.candidate(name).proxy.growth for name in layout.trained]
    whole = replace(plan, most_epochs=_preset_epochs(preset, plan.policy, plan.epochs))  # --max-epochs-total saves time
    anchored, epochs = whole.anchor_epochs, whole.search_epochs(len(growths))
    macs = plan.proxy_base.cost.macs * (anchored + epochs * math.fsum(growths) / len(growths))
    return min(preset.image_passes // (anchored + epochs), int(preset.image_macs / macs))
