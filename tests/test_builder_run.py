"""Searches from end to end whose base is a user's own: a builder, and a network in a YAML file."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
import yaml
from base_files import GOOD
from calling import Call

import scalesearch
from scalesearch.blueprint import Blueprint
from scalesearch.cli import _code
from scalesearch.emit.config import read_config
from scalesearch.emit.weights import weights_digest
from scalesearch.nets.architecture import build
from scalesearch.plan import lay_out, read_plan
from scalesearch.report.again import study_file

FilesOf = Callable[[Path], dict[str, str]]
TINY = "--budget 2x --preset quick --candidates 4 --seeds 1 --epochs 1 --images 256 --proxy-resolution 32 --step 0.2"
OPTIONS = f"{TINY} --policy grid".split()
BUILDER = "builders:changing"
FIT = f"{TINY} --policy fit --max-epochs-total 8".split()


def searched(base: str, options: list[str], folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert _code(["run", "--base", base, *options, "--out", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose base is a builder. Not to be changed."""
    return searched(BUILDER, OPTIONS, tmp_path_factory.mktemp("built") / "run")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose base is a file, and the file. Not to be changed."""
    place = tmp_path_factory.mktemp("written")
    (place / "my_net.yaml").write_text(GOOD)
    return searched(str(place / "my_net.yaml"), FIT, place / "run"), place / "my_net.yaml"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """The current folders of these tests do not stay in the path."""
    path = list(sys.path)
    yield
    sys.path[:] = path


def members(folder: Path) -> list[dict[str, Any]]:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["members"]
    return manifest["members"]


# ---- a builder


@pytest.mark.slow
def test_a_search_from_a_builder_ranks_its_networks_and_writes_the_family(built: Path, call: Call):
    ranking = call("rank", built, "--json").done
    assert ranking == json.loads((built / "ranking.json").read_text())
    assert len(ranking["candidates"]) == 4
    assert all(10 < row["mean"] <= 100 for row in ranking["candidates"])
    assert ranking["failed"] == []
    status = call("status", built, "--json").done
    assert (status["state"], status["done"], status["total"]) == ("finished", 5, 5)
    for row in members(built / "family"):
        assert row["realised_growth"] == pytest.approx(row["growth_asked"], rel=0.03)
        assert {"depth", "width", "resolution"} <= row.keys()
        assert "depths" not in row
    for command in ("rank", "status"):
        told = call(command, built)
        assert (told.code, told.err) == (0, "")


WALL = """
import sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "builders"):
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Wall())
from scalesearch.cli import main

main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["rank", "status"])
def test_a_finished_run_is_read_where_there_is_neither_torch_nor_the_builder(built: Path, command: str, call: Call):
    program = [sys.executable, "-c", WALL, command, str(built), "--json"]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == call(command, built, "--json").done


@pytest.mark.slow
def test_the_plan_of_a_builder_reads_back(built: Path):
    values = yaml.safe_load((built / "plan.yaml").read_text())
    assert values["base"]["builder"] == BUILDER
    plan = read_plan(built)
    assert plan.to_dict() == json.loads(json.dumps(plan.to_dict())) | {"recipe": plan.to_dict()["recipe"]}
    assert lay_out(plan) == lay_out(read_plan(built))


@pytest.mark.slow
def test_the_report_says_that_it_cannot_compute_a_builders_networks(built: Path):
    text = (built / "report.html").read_text()
    assert "is built by your own function, which this page cannot run" in text
    assert 'id="x-phi"' not in text


@pytest.mark.slow
def test_the_commands_of_a_report_name_the_builder_which_its_study_file_cannot(built: Path):
    text = (built / "report.html").read_text()
    assert f"scalesearch run --study study.yaml --base {BUILDER} --out " in text
    assert f" --base {BUILDER} --weights" in text
    assert "base" not in yaml.safe_load(study_file(read_plan(built)))


def test_the_same_command_again_trains_nothing(built: Path, call: Call, files_of: FilesOf, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(built, folder)
    before = files_of(folder)
    command = ["run", "--base", BUILDER, *OPTIONS, "--out", folder, "--quiet"]
    assert call(*command, "--json").done["ranking"] == json.loads((folder / "ranking.json").read_text())
    after = files_of(folder)
    assert {name for name in before if after[name] != before[name]} <= {"environment.json", "report.html"}


@pytest.fixture
def family(built: Path, call: Call, tmp_path: Path) -> Path:
    """What `emit RUN` writes."""
    told = call(
        "emit",
        built,
        "--base",
        BUILDER,
        "--growth",
        "1.4142,2.3,4",
        "--weights",
        "--out",
        tmp_path / "family",
        "--json",
    )
    assert told.done["rule"] == json.loads((built / "family" / "manifest.json").read_text())["rule"]
    return tmp_path / "family"


@pytest.mark.slow
def test_an_emitted_member_loads_as_it_was_built(family: Path, built: Path, tmp_path: Path):
    for row in members(family):
        place = family / row["name"]
        _, network = read_config(place / "config.yaml")
        assert isinstance(network, Blueprint)
        images = torch.rand(2, 3, network.resolution, network.resolution)
        made = build(network, seed=row["weights"]["seed"]).eval()
        loaded = scalesearch.load(place, builder=BUILDER).eval()
        assert torch.equal(loaded(images), made(images))
        (place / "model.safetensors").unlink()
        assert (
            weights_digest(scalesearch.load(place, builder=BUILDER)) == row["weights"]["sha256"] == weights_digest(made)
        )


@pytest.mark.slow
def test_an_emitted_file_is_a_program_beside_the_builder(family: Path, tmp_path: Path):
    row = members(family)[0]
    shutil.copy(builders.__file__, tmp_path / "builders.py")
    shutil.copy(family / row["name"] / "network.py", tmp_path / "network.py")
    done = subprocess.run([sys.executable, "network.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {"params": row["params"], "output": [1, 10]}


@pytest.mark.slow
def test_a_builder_that_was_changed_since_the_run_writes_no_family(
    built: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(builders.STEPS, "wider", 1)
    line = call(
        "emit", built, "--base", BUILDER, "--growth", "2.3", "--out", tmp_path / "family", "--quiet"
    ).err.splitlines()[-1]
    assert "builders:changing makes another network than it was counted as" in line


@pytest.mark.slow
def test_a_plan_and_a_scaled_network_of_a_builder_are_documents(built: Path, call: Call):
    plan = call("plan", "--base", BUILDER, *OPTIONS, "--json").done
    assert plan["digest"] == read_plan(built).digest
    assert plan["base"]["name"] == "builders.changing"
    assert sum(row["trained"] for row in plan["candidates"]) >= 4
    assert len({row["id"] for row in plan["candidates"]}) == len(plan["candidates"])
    for row in plan["candidates"]:
        assert row["proxy"]["growth"] == pytest.approx(2, rel=0.03) or row["off_budget"]
    scaled = call("scale", "--base", "builders:convnet", "--depth", 1.5, "--measure", "--rounding", "paper", "--json")
    assert scaled.done["measured"] == {"macs": scaled.done["macs"]}
    params = sum(weight.numel() for weight in builders.convnet(depth=1.5, width=1).parameters())
    assert scaled.done["params"] == params


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["plan", "--base", "builders:three_classes"], "makes 3 classes, the images have 10"),
        (["plan", "--base", "builders:broken"], "RuntimeError: no such thing as this network"),
        (["scale", "--base", "builders:broken"], "RuntimeError: no such thing as this network"),
        (["scale", "--base", "builders:bilinear"], "uses _trilinear, which multiplies"),
        (["scale", "--base", "builders:pair"], "gives tuple for one image"),
        (["scale", "--base", "builders:convnet", "--classes", 20], "makes 10 classes, not 20"),
        (["emit", "--base", "builders:broken", "--coefficients", "1.2,1.1,1.1"], "no such thing as this network"),
        (["emit", "--base", "builders:convnet", "--published"], "is not the baseline of a published table"),
        (["run", "--base", "no_such_module:build"], "ModuleNotFoundError"),
    ],
)
def test_a_builder_that_does_not_fit_is_refused_in_one_line(command: list[str], told: str, call: Call, tmp_path: Path):
    assert told in call(*command).refusal
    assert list(tmp_path.iterdir()) == []


# ---- a file


@pytest.mark.slow
def test_a_search_from_a_file_goes_on_with_the_same_file(
    written: tuple[Path, Path], call: Call, files_of: FilesOf, tmp_path: Path
):
    folder = tmp_path / "run"
    shutil.copytree(written[0], folder)
    before = files_of(folder)
    command = ["run", "--base", written[1], *FIT, "--out", folder, "--quiet"]
    found = call(*command, "--json").done
    assert found["ranking"] == json.loads((folder / "ranking.json").read_text())
    assert found["ranking"]["search"]["policy"] == "fit"
    assert call("status", folder, "--json").done["total"] <= 8
    assert {row["name"] for row in found["manifest"]["members"]} <= {f"mine-x{n}" for n in ("1.4", "2", "4", "8", "16")}
    after = files_of(folder)
    assert {name for name in before if after[name] != before[name]} <= {"environment.json", "report.html"}


@pytest.mark.slow
def test_a_file_that_was_changed_is_another_plan(written: tuple[Path, Path], call: Call, tmp_path: Path):
    changed = tmp_path / "my_net.yaml"
    changed.write_text(GOOD.replace("head: {width: 160}", "head: {width: 128}"))
    line = call("run", "--base", changed, *FIT, "--out", written[0], "--quiet").refusal
    assert "holds another plan" in line
    assert "160" in line
    assert "128" in line


@pytest.mark.slow
def test_the_plan_of_a_file_reads_back_without_the_file(written: tuple[Path, Path], call: Call, tmp_path: Path):
    plan = read_plan(written[0])
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan.to_dict(), sort_keys=False))
    assert read_plan(tmp_path) == plan
    assert plan.base.name == "mine"
    found = call("plan", "--base", written[1], *FIT, "--json").done
    assert found["digest"] == plan.digest
    assert len(lay_out(plan).candidates) == len(found["candidates"])


@pytest.mark.slow
def test_the_family_of_a_file_is_written_without_it(written: tuple[Path, Path], call: Call, tmp_path: Path):
    ranked = call("rank", written[0], "--json").done["candidates"]
    uniform = next(row["id"] for row in ranked if "dwr" in row["references"])
    told = call("emit", written[0], "--candidate", uniform, "--growth", "2,4", "--out", tmp_path / "family")
    assert told.code == 0, told.err
    for row in members(tmp_path / "family"):
        assert row["realised_growth"] == pytest.approx(row["growth_asked"], rel=0.03)
        assert weights_digest(scalesearch.load(tmp_path / "family" / row["name"])) == row["weights"]["sha256"]
