"""Write a family and prove it: each member is built, counted once by fvcore at full size, and its files read back."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from scalesearch.cost import count
from scalesearch.emit.config import coefficients, config, config_text, read_config
from scalesearch.emit.place import CONFIG, MANIFEST, SOURCE, WEIGHTS, clear, refuse_occupied, refuse_trained
from scalesearch.emit.source import source
from scalesearch.emit.start import Start, renamed, started
from scalesearch.emit.weights import is_written, weights_digest, write_weights
from scalesearch.errors import EmitError, PlanError
from scalesearch.files import Told, make_folder, patiently, remedy, write_whole
from scalesearch.members import Member, Rule, Unreached
from scalesearch.nets.architecture import build, measure
from scalesearch.nets.builder import seeded
from scalesearch.nets.library_names import Library
from scalesearch.nets.measure import one_thread
from scalesearch.runfiles import sweep_family
from scalesearch.spec import Network

COMPARED_SIDE = 64
"""Side of the images on which written and built networks are compared [px]."""


def write(
    found: Sequence[Member | Unreached],
    rule: Rule | None,
    base: str,
    folder: Path,
    told: Callable[[dict[str, Any]], None],
    *,
    weights: bool,
    start: Start | None = None,
    naming: Library | None = None,
    seed: int = 0,
    full: Told | None = None,
) -> dict[str, Any]:
    """Write a family; what an earlier family left in the folder goes, what a killed writer left half written too.

    Args:
        found: the family; unreached members are listed in the manifest with their reason.
        rule: what the family follows; None = the published table.
        base: name of the base network.
        folder: gets a folder per member and `manifest.json`.
        told: hears each member's row of the manifest as soon as it is written and proved.
        weights: whether to write `model.safetensors` too; members that start from trained weights always get it.
        start: trained weights for the members that they fit.
        naming: whose names `model.safetensors` has; None = ours.
        seed: of the initial weights.
        full: hears of a full disk, which is then waited for; without it that is a fault.

    Returns:
        The manifest.

    Raises:
        CostMismatchError: fvcore counts another number than the closed form.
        EmitError: a file does not read back as what was written.
        PlanError: the folder cannot be written, holds others' files or weights where the family's go, or has a link
            in a member's place; or no member has the shape of the trained.
    """
    rows: list[dict[str, Any]] = []
    reached = [one for one in found if isinstance(one, Member)]
    if start is not None:
        reached = started(reached, start)
    carrying = reached if weights or start else []
    for member in carrying:
        renamed(member.network, build(member.network).state_dict(), naming)
    try:
        refuse_occupied(folder, [one.name for one in reached])
        refuse_trained(folder, [one.name for one in carrying])
        _make(folder, full)
        sweep_family(folder, [one.name for one in reached])
        clear(folder)
        for member in reached:
            rows.append(_write_member(member, _Order(rule, base, folder, weights, start, naming, seed, full)))
            told(rows[-1])
        manifest = {"schema_version": 1, "base": base, **coefficients(rule), "members": rows}
        manifest["unreached"] = _missing(found)
        write_whole(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode(), full)
    except OSError as error:
        place = error.filename or folder
        raise PlanError(f"{place} cannot be written: {error.strerror}", mend=remedy(error)) from None
    return manifest


def _missing(found: Sequence[Member | Unreached]) -> list[dict[str, Any]]:
    """What a manifest says of the members that could not be reached."""
    unreached = (one for one in found if isinstance(one, Unreached))
    return [{"name": one.name, "growth_asked": one.growth_asked, "reason": one.reason} for one in unreached]


def _make(folder: Path, full: Told | None) -> None:
    make = partial(make_folder, folder)
    patiently(make, folder, full) if full else make()


@dataclass(frozen=True, slots=True)
class _Order:
    """What holds for every member of a family."""

    rule: Rule | None
    base: str
    folder: Path
    weights: bool
    start: Start | None
    naming: Library | None
    seed: int
    full: Told | None


def _write_member(member: Member, order: _Order) -> dict[str, Any]:
    place = order.folder / member.name
    _make(place, order.full)
    module = build(member.network, seed=order.seed)
    origin = order.start.load(member.network, module) if order.start else None
    measure(member.network, member.cost, module)
    weights = {"seed": order.seed, "sha256": weights_digest(module), "start": origin, "naming": order.naming}
    values = config(member, order.rule, order.base, weights=weights)
    write_whole(place / CONFIG, config_text(values).encode(), order.full)
    about = _about(member, order.rule, order.base)
    write_whole(place / SOURCE, source(member.name, member.network, about).encode(), order.full)
    with_weights = order.weights or origin is not None
    if with_weights:
        write_weights(place / WEIGHTS, renamed(member.network, module.state_dict(), order.naming), member.network)
    elif is_written(place / WEIGHTS):  # by an earlier call, which did not get as far as the manifest
        (place / WEIGHTS).unlink()
    _compare_config(place / CONFIG, member)
    _compare_source(place / SOURCE, member, module, order.seed)
    files = [CONFIG, SOURCE, *([WEIGHTS] if with_weights else [])]
    return _row(member, values, [f"{member.name}/{file}" for file in files])


def _about(member: Member, rule: Rule | None, base: str) -> str:
    if rule is None:
        return f"the published {member.name}, {member.scaled.growth:.2f} times the compute of {base}."
    rule_text = "alpha {alpha:.4g}, beta {beta:.4g}, gamma {gamma:.4g}".format(**coefficients(rule)["rule"])
    return f"{base} scaled to {member.scaled.growth:.2f} times its compute by {rule_text} ({rule.evidence})."


def _row(member: Member, values: dict[str, Any], files: list[str]) -> dict[str, Any]:
    kept = ("name", "phi", "growth_asked", "realised_growth", "macs", "params", "activations")
    network = member.network
    return {
        **{key: values[key] for key in kept},
        **network.outline,
        **({"dropout": network.head.dropout} if isinstance(network, Network) else {}),
        "digest": values["digest"],
        "weights": values["weights"],
        "files": files,
    }


def _compare_config(path: Path, member: Member) -> None:
    _, network = read_config(path)
    if network != member.network or (isinstance(network, Network) and count(network) != member.cost):
        raise EmitError(f"{path} does not read back as {member.name}", mend="please report this file")


def _compare_source(path: Path, member: Member, module: nn.Module, seed: int = 0) -> None:
    """Hold the written source to the built module: same names, shapes, parameters and outputs."""
    with seeded(seed):
        other: nn.Module = _imported(path).network()
    try:
        other.load_state_dict(module.state_dict())
    except RuntimeError as error:
        raise EmitError(f"{path}: {' '.join(str(error).split())[:300]}", mend="please report this file") from None
    side = COMPARED_SIDE if isinstance(member.network, Network) else member.network.resolution
    images = torch.linspace(-1, 1, 2 * 3 * side**2).view(2, 3, side, side)
    with one_thread():
        ours, theirs = _outputs(module, images), _outputs(other, images)
    if not torch.equal(ours, theirs) or not torch.isfinite(ours).all():
        gap = float((ours - theirs).abs().max())
        raise EmitError(f"{path}: outputs differ by {gap:g}", mend="please report this file")
    if sum(weight.numel() for weight in other.parameters() if weight.requires_grad) != member.cost.params:
        raise EmitError(f"{path}: another number of parameters", mend="please report this file")


class _Uncached(SourceFileLoader):
    """A loader that leaves no `__pycache__` beside the file."""

    def set_data(self, path: str, data: object, **_: object) -> None:
        """Keep the byte code in memory."""


def _imported(path: Path) -> ModuleType:
    name = f"scalesearch_emitted_{path.parent.name}"
    found = importlib.util.spec_from_file_location(name, path, loader=_Uncached(name, str(path)))
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@torch.no_grad()
def _outputs(module: nn.Module, images: Tensor) -> Tensor:
    """Logits with batch statistics: fresh weights have no running ones, and deep networks would overflow."""
    module.eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train()
    return module(images)
