"""Options and arguments that several commands take."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from scalesearch.presets import PolicyName, PresetName
from scalesearch.space import Policy


def named(text: str) -> str:
    """What is typed; nothing is empty but a variable that is not set."""
    if not text:
        raise typer.BadParameter("it is empty")
    return text


def named_path(text: str) -> Path:
    """A path as it is typed; an empty one would be the current folder."""
    return Path(named(text))


a_path = {"parser": named_path, "metavar": "PATH"}
a_text = {"parser": named, "metavar": "TEXT"}


scaled = partial(typer.Option, rich_help_panel="What is scaled")
search = partial(typer.Option, rich_help_panel="Search")
training = partial(typer.Option, rich_help_panel="Training")
place = partial(typer.Option, rich_help_panel="Where it runs")
output = partial(typer.Option, rich_help_panel="Output")

MOST_HOURS = 1e6
"""More than a century: who means no end leaves the option out."""
BASES = "b0 … l2, lite0 … 4, resnet18 … 152, mobilenet_v1 … v3_large, mnasnet_b1, FILE.yaml or package.module:function"
BaseName = Annotated[str | None, scaled("--base", help=f"Network to scale; default b0. {BASES}.")]
Budget = Annotated[str | None, scaled("--budget", help="Growth (2x, 0.5x) or multiply-adds (800M, 1.2G); default 2x.")]
Rounding = Annotated[
    Policy | None, scaled("--rounding", help="level (default): equal compute; paper: the paper's way.")
]
Json = Annotated[bool, output("--json", help="One JSON document on stdout, all text on stderr.")]
Quiet = Annotated[bool, output("--quiet", help="No progress.")]
Step = Annotated[float | None, scaled("--step", help="Step of the grid.")]
Tolerance = Annotated[float | None, scaled("--tolerance", help="Of the constraint alpha·beta²·gamma² = budget.")]
Data = Annotated[
    str | None, training("--data", help="ImageFolder, FILE.npz or torchvision:NAME; default: Fashion-MNIST subset.")
]
DataRoot = Annotated[Path | None, training("--data-root", **a_path, help="Folder of torchvision datasets.")]
Download = Annotated[bool, training("--download", help="Let torchvision fetch the dataset.")]
PresetOption = Annotated[PresetName | None, search("--preset", help="Default: standard with a GPU, else quick.")]
ProxyResolution = Annotated[int | None, training("--proxy-resolution", help="Of the proxy base, in pixels.")]
Trained = Annotated[int | None, search("--candidates", help="Distinct proxies in the search, references first.")]
Seeds = Annotated[
    int | None, training("--seeds", help="Trainings of each proxy: under grid, in the confirmation, of the base.")
]
Epochs = Annotated[int | None, training("--epochs", help="Full length of a training.")]
PolicyOption = Annotated[
    PolicyName | None,
    search("--policy", help="fit (default): full trainings where they tell most; race: rungs; grid: all."),
]
Margin = Annotated[float | None, search("--margin", help="Points of accuracy that do not matter; default 0.1.")]
MaxEpochs = Annotated[int | None, search("--max-epochs-total", help="Epochs of all trainings of the search together.")]
MaxHours = Annotated[
    float | None,
    search("--max-hours", min=0.0, max=MOST_HOURS, help="Stop then; the result depends on the machine's pace."),
]
Confirm = Annotated[
    int | None, search("--confirm", help="Leading candidates to train again with new seeds, for the test part.")
]
CheckPhi = Annotated[
    float | None, search("--check-phi", help="Exponent at which the leading shares are ranked again, such as 2.")
]
Images = Annotated[int | None, training("--images", help="Training images, the same for all.")]
Threads = Annotated[int | None, place("--threads", help="CPU threads of a training; default: as measured.")]
Together = Annotated[
    int | None, place("--together", help="Seeds of a proxy trained as one network; default: as measured.")
]
Cache = Annotated[
    Path | None,
    place("--cache", **a_path, help="Folder of decoded images that runs share; default: in the run folder."),
]
StorageUrl = Annotated[
    str | None,
    place("--storage", **a_text, help="PostgreSQL URL of the Optuna study; default: study.db in the run folder."),
]
EngineOption = Annotated[
    Literal["local", "ray"] | None, place("--engine", help="local (default): this machine; ray: a Ray cluster.")
]
Address = Annotated[
    str | None, place("--address", help="Ray cluster: auto, HOST:PORT or ray://HOST:PORT; default: one here.")
]
CpusPerTrial = Annotated[int | None, place("--cpus-per-trial", help="On Ray; default: the trial's threads.")]
GpusPerTrial = Annotated[
    float | None, place("--gpus-per-trial", help="On Ray: 8, 1, 0.25 or 0; default: 1 where nodes have GPUs.")
]
Checkpoints = Annotated[
    str | None,
    place(
        "--checkpoints", help="On Ray: URL of a folder that all nodes reach, such as s3://…; default: the run folder."
    ),
]
OutFolder = Annotated[Path | None, output("--out", **a_path, help="Run folder; default: runs/<named after the plan>.")]
Live = Annotated[bool, output("--live", help="Write report.html again after every decision, and when interrupted.")]
Log = Annotated[
    Literal["tensorboard"] | None, output("--log", help="tensorboard: curves of each trial, in the run folder.")
]
StudyFile = Annotated[Path | None, search("--study", **a_path, help="study.yaml; options on the command line win.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", parser=named_path, help="A run folder.")]
RunOfRule = Annotated[
    Path | None, typer.Argument(metavar="[RUN]", parser=named_path, help="A run folder, for its rule.")
]
MaxParams = Annotated[str | None, scaled("--max-params", help="Most parameters of a network, such as 20M.")]
MaxActivations = Annotated[str | None, scaled("--max-activations", help="Most activations, such as 30M.")]
MaxMemory = Annotated[str | None, scaled("--max-memory", help="Most bytes of a training step, with its batch: 16G@64.")]
Weights = Annotated[bool, output("--weights", help="Write the initial (untrained) weights too.")]
FromWeights = Annotated[
    Path | None,
    output("--from-weights", help="Trained weights (ours, torchvision's, timm's) for members of their shape."),
]
Naming = Annotated[Literal["torchvision", "timm"] | None, output("--naming", help="Whose names written weights have.")]
