"""What people type, and what they point at: every option with every odd value, every path with every odd place."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from base_files import GOOD
from calling import Call
from judging import FULL, Harness, judge
from safetensors.torch import save_file

from scalesearch.request import Request, resolve
from scalesearch.runfolder import write_plan

VALUES = (
    *(
        "nan",
        "inf",
        "-inf",
        "-0",
        "0",
        "-1",
        "1",
        "1e400",
        "-1e400",
        "1e-400",
        "9" * 30,
        "9" * 5_000,
        "2x",
        "0x",
        "-2x",
    ),
    *(
        "",
        " ",
        "x",
        "\x1b[31mred",
        "two\nlines",
        "[red]b[/red]",
        "猫",
        "x" * 5_000,
        "--",
        "-",
        "../../x",
        "~",
        "/",
        ".",
    ),
    *(
        "1,2",
        "1,1,1",
        "nan,nan,nan",
        "1e308,1e308,1e308",
        ",,",
        "1,,2",
        "1;2",
        "16G@64",
        "16G@0",
        "@",
        "1e3M",
        "٣",
        "¼",
    ),
    *("b0", "b99", "os:system", "nowhere:build", "nowhere.yaml", "a.b.c:d.e", ":", "a:", ":b", "torchvision:", "None"),
    *(
        "torchvision:../../x",
        "torchvision:MNIST",
        "sqlite:///x",
        "postgresql://u:secret@nowhere/x",
        "file:///etc/passwd",
    ),
)
"""What is given to every option."""
TEXTS = "--base --budget --rounding --data --preset --policy --max-params --max-activations --max-memory --data-root"
NUMBERS = (
    "--step --tolerance --margin --max-epochs-total --confirm --check-phi --candidates --seeds --epochs --images"
    " --threads --together --proxy-resolution"
)
PLAN = ("plan", "--step", "0.2", "--tolerance", "0.2")
SCALE = ("scale", "--base", "b0")
EMIT = ("emit", "--base", "net.yaml", "--coefficients", "1,1,1.4", "--growth", "1.9", "--quiet", "--out", "family")
GIVEN = ("emit", "--base", "net.yaml", "--coefficients", "1.2,1.1,1.1", "--max-params", "1")
"""Reaches no member, so that it writes nothing."""
RUN = ("run", "--preset", "quick", "--step", "0.2", "--tolerance", "0.2", "--quiet")
ON_RAY = (*RUN, "--engine", "ray")
OPTIONS: dict[tuple[str, ...], str] = {
    PLAN: f"{TEXTS} {NUMBERS}",
    SCALE: "--base --depth --width --resolution --rounding --budget --phi --classes",
    GIVEN: "--base --coefficients --budget --phi --growth --classes --max-memory --candidate --naming",
    RUN: "--storage --cache --out --log --max-hours --engine --address --checkpoints --cpus-per-trial --gpus-per-trial",
    ON_RAY: "--address --checkpoints --cpus-per-trial --gpus-per-trial",
}


def naming(command: tuple[str, ...], option: str, value: str) -> tuple[str, ...]:
    """What a refusal of a value has to have one of: the option, its key at the beginning, or the place it points at."""
    key = option.removeprefix("--")
    starts = [key, key.replace("-", "_")]
    if option in ("--base", "--data", "--cache", "--out"):
        places = (value, str(Path(value)), os.path.abspath(value), os.path.expanduser(value))
        starts += [place[:200] for place in places if place]
    texts = {"--base": [f"unknown base {value[:40]!r}"[:-1]], "--data": ["the dataset's name"]}.get(option, [])
    if command is GIVEN:
        texts.append("no member can be reached")  # the value is taken
    return (option, *texts, *(f"scalesearch: {start}" for start in starts))


@pytest.fixture
def harness(call: Call, tmp_path: Path) -> Harness:
    (tmp_path / "net.yaml").write_text(GOOD)
    return Harness(call, tmp_path)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a run end well where it would begin to train, or join a cluster."""

    def end(*_: object, **__: object) -> None:
        raise typer.Exit

    monkeypatch.setattr("scalesearch.engines.local_slots", end)
    monkeypatch.setattr("scalesearch.engine.connecting._connect", end)


@pytest.mark.parametrize("command", OPTIONS, ids=lambda command: " ".join((command[0], *command[8:])))
def test_every_option_takes_or_refuses_whatever_is_typed(
    command: tuple[str, ...], untrained: None, harness: Harness, record_property: Callable[[str, object], None]
):
    every = [(option, value) for option in OPTIONS[command].split() for value in VALUES]
    asked = every if FULL else every[:: 13 if command is PLAN else 7]
    found = [
        (f"{option} {value!r}"[:80], harness.met(naming(command, option, value), *command, option, value))
        for option, value in asked
    ]
    judge(found, record_property, len(asked))


PLACES: dict[str, Callable[[Path], Any]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "empty": Path.touch,
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "under-a-file": lambda path: path.touch(),
    "missing": lambda path: None,
}
POINTING = (
    ("status", "{}"),
    ("rank", "{}"),
    ("emit", "{}"),
    ("plan", "--study", "{}"),
    ("plan", "--data", "{}"),
    ("scale", "--base", "{}.yaml"),
    (*EMIT, "--from-weights", "{}.pth"),
    (*EMIT, "--from-weights", "{}.safetensors"),
    ("run", "--quiet", "--study", "{}"),
    ("run", "--quiet", "--data", "{}.npz"),
)


@pytest.mark.parametrize("command", POINTING, ids=lambda command: "".join(command[:1] + command[-2:]))
def test_every_path_may_lead_anywhere(command: tuple[str, ...], harness: Harness, tmp_path: Path):
    for name, make in PLACES.items():
        path = tmp_path / command[-1].format(name)
        make(path)
        text = f"{path.name}/below" if name == "under-a-file" else path.name
        assert harness.met(path.name, *command[:-1], text) == "", name
        assert harness.call(*command[:-1], text).code == 2, name


def test_a_path_that_no_disk_could_hold_is_named(harness: Harness):
    name = "x" * 5_000
    for command in POINTING:
        text = command[-1].format(name)
        assert harness.met(text[:300], *command[:-1], text) == "", command
        assert harness.call(*command[:-1], text).code == 2


SAME = ("--budget", "0.5x", "--step", "0.2", "--policy", "grid", "--quiet", "--out")
MEETING = (("status",), ("rank",), ("emit",), ("report",), ("repair",), ("run", *SAME))


@pytest.mark.parametrize("name", ["plan.yaml", "study.db", "journal.jsonl", "scan.json", ".lock"])
@pytest.mark.parametrize("command", MEETING, ids=lambda command: command[0])
def test_a_run_folder_of_odd_places_is_refused_or_read(
    command: tuple[str, ...], name: str, untrained: None, harness: Harness, tmp_path: Path
):
    plan, _ = resolve(Request(budget="0.5x", step=0.2, policy="grid"))
    for place in ("pipe", "folder", "loop", "device"):
        folder = tmp_path / f"run-{place}"
        for part in ("checkpoints", "logs"):
            (folder / part).mkdir(parents=True)
        write_plan(folder, plan)
        for part in (".lock", "journal.jsonl"):
            (folder / part).touch()
        (folder / name).unlink(missing_ok=True)
        PLACES[place](folder / name)
        assert harness.met(folder.name, *command, folder.name) == "", place


# ---- weights


class Gadget:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("ran", "w")


def archive_of_code(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"cos\nsystem\n(S'touch ran'\ntR.")
        archive.writestr("archive/version", "3")


WEIGHTS: dict[str, Callable[[Path], Any]] = {
    "a gadget": lambda path: torch.save(Gadget(), path),
    "a gadget among tensors": lambda path: torch.save({"a": torch.zeros(2), "b": Gadget()}, path),
    "a gadget of the old format": lambda path: torch.save(Gadget(), path, _use_new_zipfile_serialization=False),
    "an archive of code": archive_of_code,
    "a module": lambda path: torch.save(torch.nn.Linear(2, 2), path),
    "a number": lambda path: torch.save(3, path),
    "nothing": lambda path: torch.save({}, path),
    "numbers by name": lambda path: torch.save({"a": 1}, path),
    "tensors without names": lambda path: torch.save({1: torch.zeros(2)}, path),
    "a list": lambda path: torch.save([torch.zeros(2)], path),
    "nan": lambda path: torch.save({"a": torch.tensor([float("nan")])}, path),
    "sparse": lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path),
    "without memory": lambda path: torch.save({"a": torch.empty(3, device="meta")}, path),
    "deep": lambda path: torch.save({"state_dict": {"state_dict": {}}}, path),
    "two dicts": lambda path: torch.save({"model": {"a": torch.zeros(1)}, "state_dict": {"a": torch.zeros(1)}}, path),
    "a pickle": lambda path: path.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR."),
    "safetensors inside": lambda path: save_file({"a": torch.zeros(1)}, path),
    "zeros": lambda path: path.write_bytes(bytes(1_000)),
    "a long header": lambda path: path.write_bytes((2**63 - 1).to_bytes(8, "little") + b"{}"),
    "another network's": lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_none_are_refused_and_run_nothing(name: str, suffix: str, harness: Harness, tmp_path: Path):
    path = tmp_path / f"w{suffix}"
    WEIGHTS[name](path)
    assert harness.met(path.name, *EMIT, "--from-weights", path.name) == ""
    assert not (tmp_path / "ran").exists()


# ---- as people start it


@pytest.mark.slow
def test_a_real_process_says_one_line_and_no_more(tmp_path: Path):
    (tmp_path / "net.yaml").write_text(GOOD)
    torch.save(Gadget(), tmp_path / "w.pth")
    (tmp_path / "study.yaml").write_text("a: &a [x, x]\nb: &b [*a, *a]\n" * 9)
    for command in (
        ("plan", "--study", "study.yaml"),
        ("plan", "--data", "nowhere\n\x1b[31m"),
        ("status", "/proc/self"),
        (*EMIT, "--from-weights", "w.pth"),
        ("run", "--base", "os:system"),
        ("scale", "--base", "b0", "--depth", "nan"),
    ):
        told = subprocess.run([sys.executable, "-m", "scalesearch", *command], cwd=tmp_path, capture_output=True)
        assert (told.returncode, told.stderr.count(b"\n")) == (2, 1), told.stderr
        assert b"\x1b" not in told.stderr
