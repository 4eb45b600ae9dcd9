"""The commands. Heavy imports stand inside the bodies: `plan` but of a builder, `status`, `--help` import no torch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from scalesearch.cli.asked import asked_cluster, asked_request, resolved
from scalesearch.cli.console import console
from scalesearch.cli.counting import Counting
from scalesearch.cli.direct import emit, scale
from scalesearch.cli.flags import Command, Group, told_version
from scalesearch.cli.options import (
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
    Download,
    EngineOption,
    Epochs,
    GpusPerTrial,
    Images,
    Json,
    Live,
    Log,
    Margin,
    MaxActivations,
    MaxEpochs,
    MaxHours,
    MaxMemory,
    MaxParams,
    OutFolder,
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
)
from scalesearch.cli.reporting import report, reported

app = typer.Typer(
    name="scalesearch",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compound-scaling search for ConvNets: candidates of equal compute, honest rankings, built families.",
)


command = partial(app.command, cls=Command)


@app.callback()
def _globals(
    traceback: Annotated[bool, typer.Option("--traceback", help="Show the traceback of a failure.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=told_version, is_eager=True)
    ] = False,
) -> None:
    """Compound-scaling search for ConvNets: candidates of equal compute, honest rankings, built families."""


@command()
def run(
    base: BaseName = None,
    budget: Budget = None,
    rounding: Rounding = None,
    step: Step = None,
    tolerance: Tolerance = None,
    data: Data = None,
    data_root: DataRoot = None,
    download: Download = False,
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
    out: OutFolder = None,
    live: Live = False,
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


@command()
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


command()(scale)


@command()
def rank(folder: RunFolder, as_json: Json = False) -> None:
    """Rank the trials of a run so far."""
    from scalesearch.cli import plots, show

    show.rank(plots.outcome(folder), as_json=as_json)


@command()
def status(folder: RunFolder, as_json: Json = False) -> None:
    """Tell how far a run is."""
    from scalesearch.cli import plots
    from scalesearch.stored import read_run

    plots.status(read_run(folder), as_json=as_json)


command()(report)


@command()
def repair(folder: RunFolder, storage: StorageUrl = None, as_json: Json = False) -> None:
    """Bring the Optuna study of a run to its journal; what is damaged is kept aside."""
    from scalesearch.cli import show
    from scalesearch.repair import repair as mend

    told = console(stderr=True, is_optional=True).print
    show.repaired(folder, mend(folder, storage, told), as_json=as_json)


command()(emit)


@command()
def schema() -> None:
    """Print the JSON Schema of a base file, for editors and validators."""
    import json

    from scalesearch.basefile import base_schema

    typer.echo(json.dumps(base_schema(), indent=1))
