"""Malformed inputs of every kind, each through the real command: done, or refused in one line that names the place.

Seeds are fixed. SCALESEARCH_FAULTS=full spoils more than ten thousand; without it a few hundred that are spread alike.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from base_files import GOOD
from calling import Call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judging import FULL, Harness, judge
from safetensors.torch import save_file
from spoiling import VALUES, places, replaced, spoiled, without

from scalesearch.request import Request, resolve
from scalesearch.runfolder import write_plan

STUDY = {
    "base": "b0", "budget": "0.5x", "preset": "quick", "policy": "fit", "candidates": 4, "seeds": 2, "epochs": 3,
    "images": 512, "margin": 0.2, "step": 0.1, "tolerance": 0.1, "proxy_resolution": 16, "max_params": "20M",
    "max_memory": "16G@64", "confirm": 1, "check_phi": 2.0, "threads": 1, "together": 1, "max_epochs_total": 500,
    "recipe": {"learning_rate": 0.01, "schedule": {"knots": [0, 0.2, 1], "values": [0, 1, 0]}, "flip": False},
}  # fmt: skip


@pytest.fixture
def harness(call: Call, tmp_path: Path) -> Harness:
    return Harness(call, tmp_path)


# ---- files that users write and files that lie in a run folder, spoilt in their bytes


@dataclass(frozen=True)
class Kind:
    """A kind of file: a valid one, where it lies, and a command that reads it."""

    name: str
    content: Callable[[pytest.FixtureRequest], bytes]
    command: tuple[str, ...]
    few: int
    many: int
    around: Callable[[pytest.FixtureRequest, Path], None] = lambda request, folder: None
    """Lays what has to lie beside it."""


def plan_text(_: pytest.FixtureRequest) -> bytes:
    folder = Path("made")
    folder.mkdir(exist_ok=True)
    write_plan(folder, resolve(Request(budget="0.5x", step=0.2, policy="grid", seeds=2))[0])
    return (folder / "plan.yaml").read_bytes()


def tiny(request: pytest.FixtureRequest) -> bytes:
    return request.getfixturevalue("tiny_npz").read_bytes()


def base(folder: Path) -> None:
    (folder / "net.yaml").write_text(GOOD)


def laid_run(request: pytest.FixtureRequest, folder: Path) -> None:
    """What `rank` and `status` read of a finished run."""
    whole, _ = request.getfixturevalue("finished")
    (folder / "run").mkdir()
    for path in whole.iterdir():
        if path.is_file():
            shutil.copy(path, folder / "run")


def of_run(name: str) -> Callable[[pytest.FixtureRequest], bytes]:
    return lambda request: (request.getfixturevalue("finished")[0] / name).read_bytes()


def member_config(request: pytest.FixtureRequest) -> bytes:
    return next((request.getfixturevalue("finished")[0] / "family").glob("*/config.yaml")).read_bytes()


EMIT = ("emit", "--base", "net.yaml", "--coefficients", "1,1,1.4", "--growth", "1.9", "--quiet", "--out", "family")


def tensors() -> dict[str, torch.Tensor]:
    return {"features.0.weight": torch.arange(8.0), "classifier.bias": torch.zeros(2, 3)}


def safetensors(_: pytest.FixtureRequest) -> bytes:
    save_file(tensors(), "made.safetensors")
    return Path("made.safetensors").read_bytes()


def pth(_: pytest.FixtureRequest) -> bytes:
    torch.save(tensors(), "made.pth")
    return Path("made.pth").read_bytes()


KINDS = (
    Kind("study.yaml", lambda _: yaml.safe_dump(STUDY).encode(), ("plan", "--study", "study.yaml"), 30, 1500),
    Kind("net.yaml", lambda _: GOOD.encode(), ("scale", "--base", "net.yaml"), 40, 1500),
    Kind("plan.yaml", plan_text, ("status", "run"), 30, 1500),
    Kind("tiny.npz", tiny, ("plan", "--data", "tiny.npz", "--step", "0.2"), 30, 1200),
    Kind("w.safetensors", safetensors, (*EMIT, "--from-weights", "w.safetensors"), 30, 1000,
         lambda _, folder: base(folder)),
    Kind("w.pth", pth, (*EMIT, "--from-weights", "w.pth"), 30, 1000, lambda _, folder: base(folder)),
)  # fmt: skip
STORED = (
    Kind("config.yaml", member_config, ("scale", "--base", "config.yaml"), 10, 600),
    Kind("plan.yaml", of_run("plan.yaml"), ("rank", "run"), 10, 400, laid_run),
    Kind("scan.json", of_run("scan.json"), ("rank", "run"), 5, 100, laid_run),
    Kind("journal.jsonl", of_run("journal.jsonl"), ("status", "run"), 20, 800, laid_run),
    Kind("journal.jsonl", of_run("journal.jsonl"), ("rank", "run"), 5, 200, laid_run),
    Kind("study.db", of_run("study.db"), ("repair", "run"), 3, 100, laid_run),
    Kind("trials.csv", of_run("trials.csv"), ("repair", "run"), 12, 100, laid_run),
    Kind("environment.json", of_run("environment.json"), ("report", "run"), 5, 60, laid_run),
    Kind("family/manifest.json", of_run("family/manifest.json"), ("report", "run"), 10, 300, laid_run),
    Kind("scan.json", of_run("scan.json"), ("report", "run"), 3, 60, laid_run),
)


def spoil(kind: Kind, harness: Harness, request: pytest.FixtureRequest, record: Callable[[str, object], None]) -> None:
    kind.around(request, harness.folder)
    valid = kind.content(request)
    named = f"run/{kind.name}" if "run" in kind.command[1:2] else kind.name
    place = harness.folder / named
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(valid)
    assert harness.met(named, *kind.command) == "", "the valid file"
    count = kind.many if FULL else kind.few
    found = []
    for seed in range(count):
        place.write_bytes(spoiled(valid, seed))
        found.append((f"seed {seed}", harness.met(named, *kind.command)))
        shutil.rmtree(harness.folder / "family", ignore_errors=True)
    judge(found, record, count)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_file_of_spoilt_bytes_is_refused_in_one_line_or_does_no_harm(
    kind: Kind, harness: Harness, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
):
    spoil(kind, harness, request, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("kind", STORED, ids=lambda kind: f"{kind.name}-{kind.command[0]}")
def test_a_spoilt_file_of_a_run_is_refused_in_one_line_or_does_no_harm(
    kind: Kind, harness: Harness, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
):
    spoil(kind, harness, request, record_property)


# ---- the same files with a value of another kind in them

ANY = st.recursive(
    st.sampled_from(VALUES) | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


class Steady(yaml.SafeDumper):
    """Writes what YAML has no place for as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def written(values: Any) -> bytes:
    return yaml.dump(values, Dumper=Steady, sort_keys=False).encode("utf-8", "replace")


STRUCTURES: dict[str, tuple[Callable[[pytest.FixtureRequest], Any], tuple[str, ...], int, int]] = {
    "study.yaml": (lambda _: STUDY, ("plan", "--study", "study.yaml"), 30, 700),
    "net.yaml": (lambda _: yaml.safe_load(GOOD), ("scale", "--base", "net.yaml"), 40, 700),
    "run/plan.yaml": (lambda request: yaml.safe_load(plan_text(request)), ("status", "run"), 60, 1000),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_value_of_another_kind_is_refused_with_its_key_or_does_no_harm(
    name: str, harness: Harness, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
):
    valid, command, few, many = STRUCTURES[name]
    values = valid(request)
    ways = list(places(values))
    place = harness.folder / name
    place.parent.mkdir(exist_ok=True)
    found: list[tuple[str, str]] = []

    @settings(max_examples=many if FULL else few, derandomize=True, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.sampled_from(ways), st.none() | ANY.map(lambda value: [value]))
    def spoilt(way: tuple[Any, ...], value: list[Any] | None) -> None:
        changed = without(values, way) if value is None else replaced(values, way, value[0])
        place.write_bytes(written(changed))
        found.append((f"{way} = {value}"[:200], harness.met(name, *command)))

    spoilt()
    judge(found, record_property, len(found))
