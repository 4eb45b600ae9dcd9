"""The commands that need no search: `scale`, and `emit`, which takes the rule of one too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from scalesearch.cli.options import (
    BASES,
    FromWeights,
    Json,
    MaxActivations,
    MaxMemory,
    MaxParams,
    Naming,
    Quiet,
    Rounding,
    RunOfRule,
    Weights,
    a_path,
    output,
    scaled,
)
from scalesearch.errors import PlanError


def scale(
    base: Annotated[str, scaled("--base", help=f"Network to scale: {BASES}.")],
    depth: Annotated[float, scaled("--depth", help="Multiplier.")] = 1.0,
    width: Annotated[float, scaled("--width", help="Multiplier.")] = 1.0,
    resolution: Annotated[int | None, scaled("--resolution", help="Side of the input, in pixels.")] = None,
    rounding: Rounding = None,
    budget: Annotated[str | None, scaled("--budget", help="Growth that level aims at, with --phi.")] = None,
    phi: Annotated[float | None, scaled("--phi", help="Exponent on the budget; default 1.")] = None,
    classes: Annotated[int | None, scaled("--classes", help="Outputs of the classifier.")] = None,
    measure: Annotated[bool, output("--measure", help="Count with fvcore too, and compare.")] = False,
    as_json: Json = False,
) -> None:
    """Describe a network, or scale it by given multipliers."""
    from scalesearch.cli import networks
    from scalesearch.direct import scaled_base

    found = scaled_base(
        base,
        depth=depth,
        width=width,
        resolution=resolution,
        policy=rounding or "level",
        budget=budget,
        phi=phi,
        classes=classes,
    )
    measured = None
    if measure:
        from scalesearch.nets.architecture import measure as measure_network

        measured = measure_network(found.scaled.network, found.scaled.cost)
    networks.scale(found, measured, as_json=as_json)


def emit(
    folder: RunOfRule = None,
    candidate: Annotated[str | None, scaled("--candidate", help="Id whose rule to take.")] = None,
    base: Annotated[str | None, scaled("--base", help="Network to scale, without a run.")] = None,
    coefficients: Annotated[str | None, scaled("--coefficients", help="ALPHA,BETA,GAMMA.")] = None,
    budget: Annotated[str | None, scaled("--budget", help="What the coefficients are normalised to.")] = None,
    published: Annotated[bool, scaled("--published", help="The paper's own table.")] = False,
    phi: Annotated[str | None, scaled("--phi", help="Exponents, such as 0.5,1,2.")] = None,
    growth: Annotated[str | None, scaled("--growth", help="Growths of compute, such as 1.5,3.")] = None,
    classes: Annotated[int | None, scaled("--classes", help="Outputs of the classifier.")] = None,
    max_params: MaxParams = None,
    max_activations: MaxActivations = None,
    max_memory: MaxMemory = None,
    weights: Weights = False,
    from_weights: FromWeights = None,
    naming: Naming = None,
    out: Annotated[Path | None, output("--out", **a_path, help="Default: RUN/family, RUN/family-ID or family.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a scaled family: configs, standalone networks and, on request, weights."""
    from scalesearch.cli import plots, show
    from scalesearch.cli.progress import EmitDisplay
    from scalesearch.direct import FamilyRequest, asked_family
    from scalesearch.members import Member

    if naming and not (weights or from_weights):
        raise PlanError("--naming without weights", mend="add --weights or --from-weights")
    request = FamilyRequest(
        candidate=candidate,
        base=base,
        coefficients=coefficients,
        budget=budget,
        published=published,
        phi=phi,
        growth=growth,
        classes=classes,
        max_params=max_params,
        max_activations=max_activations,
        max_memory=max_memory,
    )
    place = out or (folder or Path()) / (f"family-{candidate}" if candidate else "family")
    found = plots.outcome(folder) if folder else None  # before the folder is held, as if a run were at work
    with _held(folder, place):
        family = asked_family(request, found)
        from scalesearch import emit as emission  # brings torch, which a refused request does without

        if out or not folder:  # what a run folder holds follows the run
            emission.refuse_other(place, family.rule, family.base)
        emission.refuse_occupied(place, [one.name for one in family.members if isinstance(one, Member)])
        show.heading(family.evidence, family.base, as_json=as_json)
        with EmitDisplay(family, quiet=quiet, on_stderr=as_json) as display:
            start = emission.Start.read(from_weights) if from_weights else None
            what = family.members, family.rule, family.base, place, display.emitted
            manifest = emission.write(*what, weights=weights, start=start, naming=naming)
    show.family(manifest, place, as_json=as_json)


@contextmanager
def _held(folder: Path | None, place: Path) -> Iterator[None]:
    """Hold a run folder while a family is written into it; one that goes elsewhere needs no run to stand still."""
    ways = (os.path.abspath, os.path.realpath)  # a family that a link keeps on another disk is the run's too
    is_inside = folder is not None and any(Path(way(place)).is_relative_to(way(folder)) for way in ways)
    if folder is None or not is_inside or not (folder / "plan.yaml").is_file():
        yield
        return
    from scalesearch.runfolder import held

    with held(folder):
        yield
