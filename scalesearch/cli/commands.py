"""The commands. Heavy imports stand inside the bodies: `plan` but of a builder, `status`, `--help` import no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalesearch.cli.asked import asked_cluster, asked_request, resolved
from scalesearch.cli.counting import Counting
from scalesearch.cli.options import (
    BASES,
    Address,
    BaseName,
    Budget,
    Cache,
    CheckPhi,
    Checkpoints,
    Confirm,
    CpusPerTrial,
    Data,
    DataRoot,
    EngineOption,
    Epochs,
    FromWeights,
    GpusPerTrial,
    Images,
    Json,
    Log,
    Margin,
    MaxActivations,
    MaxEpochs,
    MaxHours,
    MaxMemory,
    MaxParams,
    Naming,
    PolicyOption,
    PresetOption,
    ProxyResolution,
    Quiet,
    Rounding,
    RunFolder,
    Seeds,
    Step,
    StorageUrl,
    StudyFile,
    Threads,
    Together,
    Tolerance,
    Trained,
    Weights,
)
from scalesearch.cli.reporting import report, reported
from scalesearch.errors import PlanError

if TYPE_CHECKING:
    from scalesearch.outcome import Outcome

app = typer.Typer(
    name="scalesearch",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compound-scaling search for ConvNets: candidates of equal compute, honest rankings, built families.",
)


@app.callback()
def _globals(
    traceback: Annotated[bool, typer.Option("--traceback", help="Show the traceback of a failure.")] = False,
) -> None:
    """Compound-scaling search for ConvNets: candidates of equal compute, honest rankings, built families."""


@app.command()
def run(
    base: BaseName = None,
    budget: Budget = None,
    rounding: Rounding = None,
    step: Step = None,
    tolerance: Tolerance = None,
    data: Data = None,
    data_root: DataRoot = None,
    download: Annotated[bool, typer.Option("--download", help="Let torchvision fetch the dataset.")] = False,
    preset: PresetOption = None,
    policy: PolicyOption = None,
    margin: Margin = None,
    max_epochs_total: MaxEpochs = None,
    confirm: Confirm = None,
    check_phi: CheckPhi = None,
    candidates: Trained = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    images: Images = None,
    threads: Threads = None,
    together: Together = None,
    proxy_resolution: ProxyResolution = None,
    max_params: MaxParams = None,
    max_activations: MaxActivations = None,
    max_memory: MaxMemory = None,
    max_hours: MaxHours = None,
    study: StudyFile = None,
    storage: StorageUrl = None,
    cache: Cache = None,
    engine: EngineOption = None,
    address: Address = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    checkpoints: Checkpoints = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; default: runs/<named after the plan>.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Write report.html again after every decision.")] = False,
    log: Log = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Search a scaling rule: train proxies, rank them, and emit the scaled family. The same command resumes."""
    from scalesearch.cli import show

    request = asked_request(study, locals())
    cluster = asked_cluster(engine, address=address, cpus=cpus_per_trial, gpus=gpus_per_trial, checkpoints=checkpoints)
    with Counting(quiet=quiet) as told:
        plan, layout = resolved(study, request, told)
    from scalesearch.cli.progress import RunDisplay
    from scalesearch.run import run as carry_out  # brings torch, which a refused request does without

    folder = out or Path("runs") / plan.folder_name
    ways = {"cache": cache, "download": download, "hours": max_hours, "storage": storage, "cluster": cluster}
    with (
        reported(folder, live=live, log=log) as heard,
        RunDisplay(folder, quiet=quiet, on_stderr=as_json, heard=heard) as display,
    ):
        outcome, manifest = carry_out(plan, layout, folder, display, **ways)
    show.run(folder, outcome, manifest, as_json=as_json)
    if outcome.failed:
        raise typer.Exit(3)


@app.command()
def plan(
    base: BaseName = None,
    budget: Budget = None,
    rounding: Rounding = None,
    step: Step = None,
    tolerance: Tolerance = None,
    data: Data = None,
    data_root: DataRoot = None,
    preset: PresetOption = None,
    policy: PolicyOption = None,
    margin: Margin = None,
    max_epochs_total: MaxEpochs = None,
    confirm: Confirm = None,
    check_phi: CheckPhi = None,
    candidates: Trained = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    images: Images = None,
    threads: Threads = None,
    together: Together = None,
    proxy_resolution: ProxyResolution = None,
    max_params: MaxParams = None,
    max_activations: MaxActivations = None,
    max_memory: MaxMemory = None,
    study: StudyFile = None,
    as_json: Json = False,
) -> None:
    """List the candidates of a search with their cost and proxies. Trains nothing; torch is for builders alone."""
    from scalesearch.cli import networks

    request = asked_request(study, locals())
    with Counting(quiet=False) as told:
        found = resolved(study, request, told)
    networks.plan(*found, as_json=as_json)


@app.command()
def scale(
    base: Annotated[str, typer.Option("--base", help=f"Network to scale: {BASES}.")],
    depth: Annotated[float, typer.Option("--depth", help="Multiplier.")] = 1.0,
    width: Annotated[float, typer.Option("--width", help="Multiplier.")] = 1.0,
    resolution: Annotated[int | None, typer.Option("--resolution", help="Side of the input, in pixels.")] = None,
    rounding: Rounding = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Growth that level aims at, with --phi.")] = None,
    phi: Annotated[float | None, typer.Option("--phi", help="Exponent on the budget; default 1.")] = None,
    classes: Annotated[int | None, typer.Option("--classes", help="Outputs of the classifier.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Count with fvcore too, and compare.")] = False,
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


@app.command()
def rank(folder: RunFolder, as_json: Json = False) -> None:
    """Rank the trials of a run so far."""
    from scalesearch.cli import plots, show
    from scalesearch.stored import ranked, read_run

    stored = read_run(folder)
    outcome = ranked(stored)
    plots.damage(stored)
    show.rank(outcome, as_json=as_json)


@app.command()
def status(folder: RunFolder, as_json: Json = False) -> None:
    """Tell how far a run is."""
    from scalesearch.cli import plots
    from scalesearch.stored import read_run

    plots.status(read_run(folder), as_json=as_json)


app.command()(report)


@app.command()
def repair(folder: RunFolder, storage: StorageUrl = None, as_json: Json = False) -> None:
    """Bring the Optuna study of a run to its journal; what is damaged is kept aside."""
    from scalesearch.cli import show
    from scalesearch.repair import repair as mend

    show.repaired(folder, mend(folder, storage), as_json=as_json)


@app.command()
def emit(
    folder: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run folder, for its rule.")] = None,
    candidate: Annotated[str | None, typer.Option("--candidate", help="Id whose rule to take.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="Network to scale, without a run.")] = None,
    coefficients: Annotated[str | None, typer.Option("--coefficients", help="ALPHA,BETA,GAMMA.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="What the coefficients are normalised to.")] = None,
    published: Annotated[bool, typer.Option("--published", help="The paper's own table.")] = False,
    phi: Annotated[str | None, typer.Option("--phi", help="Exponents, such as 0.5,1,2.")] = None,
    growth: Annotated[str | None, typer.Option("--growth", help="Growths of compute, such as 1.5,3.")] = None,
    classes: Annotated[int | None, typer.Option("--classes", help="Outputs of the classifier.")] = None,
    max_params: MaxParams = None,
    max_activations: MaxActivations = None,
    max_memory: MaxMemory = None,
    weights: Weights = False,
    from_weights: FromWeights = None,
    naming: Naming = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default: RUN/family, RUN/family-ID or family.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a scaled family: configs, standalone networks and, on request, weights."""
    from scalesearch.cli import show
    from scalesearch.cli.progress import EmitDisplay
    from scalesearch.direct import FamilyRequest, asked_family

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
    family = asked_family(request, _outcome(folder) if folder else None)
    from scalesearch.emit import Start, write  # brings torch, which a refused request does without

    name = f"family-{candidate}" if candidate else "family"
    place = out or (folder / name if folder else Path(name))
    show.heading(family.evidence, family.base, as_json=as_json)
    with EmitDisplay(family, quiet=quiet, on_stderr=as_json) as display:
        manifest = write(
            family.members,
            family.rule,
            family.base,
            place,
            display.emitted,
            weights=weights,
            start=Start.read(from_weights) if from_weights else None,
            naming=naming,
        )
    show.family(manifest, place, as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a base file, for editors and validators."""
    import json

    from scalesearch.basefile import base_schema

    typer.echo(json.dumps(base_schema(), indent=1))


def _outcome(folder: Path) -> Outcome:
    from scalesearch.stored import read_outcome

    return read_outcome(folder)
