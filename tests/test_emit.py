"""Emission: every written file reads back, the source needs torch alone, and what differs is caught."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from base_files import GOOD
from calling import Call
from networks import B0, EFFICIENTNET, MOBILENET_V1, MOBILENET_V2, NETWORKS, RESNET50, SMALL
from safetensors.torch import load_file, save_file
from torch import nn

import scalesearch
from scalesearch.bases import find
from scalesearch.cost import count
from scalesearch.direct import FamilyRequest, asked_family
from scalesearch.emit.config import read_config
from scalesearch.emit.source import source
from scalesearch.emit.start import Start
from scalesearch.emit.weights import weights_digest
from scalesearch.emit.write import _compare_config, _compare_source, _outputs, write
from scalesearch.errors import CostMismatchError, EmitError, PlanError, ScaleSearchError, SpecError
from scalesearch.levelling import Scaled
from scalesearch.limits import Limits
from scalesearch.members import Member, Unreached, members
from scalesearch.nets.measure import measure
from scalesearch.nets.network import build
from scalesearch.scaling import Multipliers
from scalesearch.spec import Head, Network, Stage, Stem

EVERY_BLOCK = Network(
    stem=Stem(width=8, kernel=5, stride=2, pool=2),
    stages=(
        Stage(block="mbconv", depth=2, width=8, expansion=1.7, kernel=5, stride=1, se_ratio=0.25),
        Stage(block="separable", depth=2, width=12, stride=2),
        Stage(block="basic", depth=2, width=12, stride=1),
        Stage(block="bottleneck", depth=2, width=16, stride=2, expansion=0.25),
    ),
    head=Head(width=24, dropout=0.3),
    resolution=49,
    num_classes=7,
    activation="relu6",
    norm_eps=1e-3,
    norm_momentum=0.01,
    drop_path=0.2,
)
"""All four blocks, a stem pool, an odd side, dropout and stochastic depth."""
VALUES = {
    "every-block": EVERY_BLOCK,
    "small": SMALL,
    "no-head": replace(EVERY_BLOCK, head=Head(), activation="silu", drop_path=0.0),
    "resnet18": replace(NETWORKS["resnet18"], resolution=64),
    "resnet50": replace(RESNET50, resolution=64),
    "mobilenet-v1": replace(MOBILENET_V1, resolution=64),
    "mobilenet-v2": replace(MOBILENET_V2, resolution=64),
    "b0": replace(B0, resolution=64),
}
Emitted = tuple[Path, dict[str, Any]]


def member(name: str, network: Network) -> Member:
    scaled = Scaled(network=network, effective=Multipliers(), cost=count(network), growth=1.0)
    return Member(name=name, phi=None, growth_asked=None, scaled=scaled)


def emitted(folder: Path, *found: Member | Unreached, weights: bool = False, seed: int = 0) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    write(found, None, "b0", folder, rows.append, weights=weights, seed=seed)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["members"] == rows
    return manifest


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    """All values, written with their weights. Not to be changed."""
    folder = tmp_path_factory.mktemp("emit") / "family"
    return folder, emitted(folder, *(member(name, value) for name, value in VALUES.items()), weights=True, seed=3)


def row(family: Emitted, name: str) -> dict[str, Any]:
    return next(one for one in family[1]["members"] if one["name"] == name)


# ---- what is written


@pytest.mark.parametrize("name", VALUES)
def test_a_config_reads_back_as_its_network(family: Emitted, name: str):
    values, network = read_config(family[0] / name / "config.yaml")
    assert network == VALUES[name]
    assert values["digest"] == network.digest == row(family, name)["digest"]
    cost = count(network)
    found = row(family, name)
    assert (found["macs"], found["params"], found["activations"]) == (cost.macs, cost.params, cost.activations)
    assert (found["depths"], found["widths"]) == (list(network.depths), list(network.widths))
    assert (found["resolution"], found["dropout"]) == (network.resolution, network.head.dropout)
    assert found["files"] == [f"{name}/{file}" for file in ("config.yaml", "network.py", "model.safetensors")]


ALONE = """
import runpy, sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("scalesearch", "torchvision", "fvcore", "optuna", "safetensors", "yaml"):
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Wall())
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="__main__")
assert not [name for name in sys.modules if name.split(".")[0] in ("scalesearch", "torchvision", "fvcore")]
"""


def test_each_network_file_runs_where_there_is_torch_alone(family: Emitted, tmp_path: Path):
    paths = []
    for name in VALUES:
        paths.append(tmp_path / f"{name}.py")
        shutil.copy(family[0] / name / "network.py", paths[-1])
    command = [sys.executable, "-I", "-c", ALONE, *map(str, paths)]
    printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    found = [json.loads(line) for line in printed.splitlines()]
    expected = [
        {"params": row(family, name)["params"], "output": [1, value.num_classes]} for name, value in VALUES.items()
    ]
    assert found == expected


def test_the_wall_of_that_test_holds(tmp_path: Path):
    (tmp_path / "one.py").write_text("import scalesearch\n")
    command = [sys.executable, "-I", "-c", ALONE, str(tmp_path / "one.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "not installed here" in done.stderr


def imported(path: Path) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    return names


@pytest.mark.parametrize("name", VALUES)
def test_the_source_has_the_names_the_weights_and_the_outputs_of_the_built_network(family: Emitted, name: str):
    names = imported(family[0] / name / "network.py")
    other, ours = names["network"](), build(VALUES[name], seed=11)
    assert list(other.state_dict()) == list(ours.state_dict())
    names["initialise"](other, 11)
    assert weights_digest(other) == weights_digest(ours)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_outputs(other, images), _outputs(ours, images))
    torch.manual_seed(0)
    trained = other.train()(images)
    torch.manual_seed(0)
    assert torch.equal(trained, ours.train()(images))  # dropout and stochastic depth too


def test_the_source_holds_only_the_blocks_that_it_needs(family: Emitted):
    text = (family[0] / "mobilenet-v1" / "network.py").read_text()
    assert "def separable" in text
    assert "def mbconv" not in text
    assert "SqueezeExcite" not in text


# ---- load


@pytest.mark.parametrize("name", ["every-block", "b0"])
@pytest.mark.parametrize("with_weights", [True, False])
def test_load_gives_the_module_of_the_manifest(family: Emitted, name: str, with_weights: bool, tmp_path: Path):
    place = tmp_path / name
    shutil.copytree(family[0] / name, place)
    if not with_weights:
        (place / "model.safetensors").unlink()
    for path in (place, str(place / "config.yaml")):
        assert weights_digest(scalesearch.load(path)) == row(family, name)["weights"]["sha256"]
    assert row(family, name)["weights"]["seed"] == 3


def test_load_takes_the_stored_weights_before_the_seed(family: Emitted, tmp_path: Path):
    place = tmp_path / "small"
    shutil.copytree(family[0] / "small", place)
    trained = build(SMALL, seed=99)
    save_file(trained.state_dict(), place / "model.safetensors")
    assert weights_digest(scalesearch.load(place)) == weights_digest(trained)


def test_stored_weights_are_the_initial_ones_to_the_bit(family: Emitted):
    stored = load_file(family[0] / "small" / "model.safetensors")
    built = build(SMALL, seed=3).state_dict()
    assert stored.keys() == built.keys()
    assert all(torch.equal(stored[name], value) for name, value in built.items())


def harmed(family: Emitted, tmp_path: Path) -> Path:
    place = tmp_path / "small"
    shutil.copytree(family[0] / "small", place)
    return place


def refused(place: Path, kind: type[ScaleSearchError]) -> str:
    with pytest.raises(kind) as caught:
        scalesearch.load(place)
    assert "\n" not in str(caught.value)
    assert str(place) in str(caught.value)
    assert caught.value.mend
    return str(caught.value)


HARMS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[:-1],
    "zeros": lambda content: content[:-999] + bytes(999),
    "flipped": lambda content: content[:-99] + bytes([content[-99] ^ 1]) + content[-98:],
    "another epsilon": lambda content: content.replace(b'"norm_eps":"1e-05"', b'"norm_eps":"1e-03"'),
    "another name": lambda content: content.replace(b"head.classify", b"head.classifi"),
    "garbage": lambda content: b"\xff" * 999,
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("harm", HARMS)
def test_damaged_weights_are_no_start(family: Emitted, tmp_path: Path, harm: str):
    file = harmed(family, tmp_path) / "model.safetensors"
    content = file.read_bytes()
    assert Start.read(file).epsilon == SMALL.norm_eps
    file.write_bytes(HARMS[harm](content))
    assert file.read_bytes() != content
    with pytest.raises(PlanError, match=r"model\.safetensors: damaged, "):
        Start.read(file)


@pytest.mark.parametrize("harm", [*HARMS, "another network"])
def test_damaged_weights_are_refused_in_one_line(family: Emitted, tmp_path: Path, harm: str):
    place = harmed(family, tmp_path)
    file = place / "model.safetensors"
    content = file.read_bytes()
    if harm == "another network":
        shutil.copy(family[0] / "b0" / "model.safetensors", file)
    else:
        file.write_bytes(HARMS[harm](content))
    assert "model.safetensors" in refused(place, EmitError)


@pytest.mark.parametrize("content", ["[1, 2", "\0", "a: b: c"], ids=repr)
def test_a_config_that_is_no_yaml_is_refused_in_one_line(family: Emitted, tmp_path: Path, content: str):
    place = harmed(family, tmp_path)
    (place / "config.yaml").write_text(content)
    refused(place, EmitError)


@pytest.mark.parametrize("key", ["stages", "resolution", "stem"])
def test_a_config_without_its_network_is_refused_in_one_line(family: Emitted, tmp_path: Path, key: str):
    place = harmed(family, tmp_path)
    values = yaml.safe_load((place / "config.yaml").read_text())
    for broken in (values | {"network": {k: v for k, v in values["network"].items() if k != key}}, {"name": "x"}):
        (place / "config.yaml").write_text(yaml.safe_dump(broken))
        refused(place, SpecError)
    (place / "config.yaml").write_text("[1]")
    refused(place, EmitError)


@pytest.mark.parametrize("weights", [{"seed": "three"}, {"seed": None}, 3, [1]], ids=str)
def test_a_config_with_a_seed_that_is_none_is_refused_in_one_line(family: Emitted, tmp_path: Path, weights: object):
    place = harmed(family, tmp_path)
    values = yaml.safe_load((place / "config.yaml").read_text())
    (place / "config.yaml").write_text(yaml.safe_dump(values | {"weights": weights}))
    refused(place, EmitError)


def test_a_folder_without_a_member_is_refused(tmp_path: Path):
    refused(tmp_path, EmitError)


# ---- what differs is caught


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stride=2", "stride=1"),
        ("nn.MaxPool2d(3, pool, padding", "nn.AvgPool2d(3, pool, padding"),
        ("nn.Sigmoid", "nn.Tanh"),
        ("out = self.shortcut(x) + out", "out = out"),
        ("kernel=5", "kernel=3"),
        ('"activation": "relu6"', '"activation": "relu"'),
        ('"norm": (0.001, 0.01)', '"norm": (1e-05, 0.01)'),
    ],
)
def test_a_source_with_one_word_changed_is_caught(tmp_path: Path, old: str, new: str):
    text = source("every-block", EVERY_BLOCK, "a network of this test.")
    assert old in text
    module = build(EVERY_BLOCK, seed=0)
    for name, written in (("whole", text), ("changed", text.replace(old, new, 1))):
        path = tmp_path / name / "network.py"
        path.parent.mkdir()
        path.write_text(written)
    _compare_source(tmp_path / "whole" / "network.py", member("every-block", EVERY_BLOCK), module)
    with pytest.raises(EmitError) as caught:
        _compare_source(tmp_path / "changed" / "network.py", member("every-block", EVERY_BLOCK), module)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "changed" / "network.py") in str(caught.value)


def test_a_config_of_another_network_is_caught(family: Emitted):
    with pytest.raises(EmitError, match="does not read back as every-block"):
        _compare_config(family[0] / "small" / "config.yaml", member("every-block", EVERY_BLOCK))


@pytest.mark.parametrize(("stage", "part"), [(0, "stages.0"), (2, "stages.2"), (None, "stem")])
def test_counts_that_differ_raise_and_name_the_first_part_that_does(stage: int | None, part: str):
    module = build(SMALL)
    place: nn.Module = module.stem if stage is None else module.stages[stage]
    owner = next(one for one in place.modules() if any(isinstance(inner, nn.Conv2d) for inner in one.children()))
    name, conv = next((name, one) for name, one in owner.named_children() if isinstance(one, nn.Conv2d))
    side = conv.kernel_size[0] + 2
    wider = nn.Conv2d(conv.in_channels, conv.out_channels, side, conv.stride, side // 2, groups=conv.groups, bias=False)
    setattr(owner, name, wider)
    with pytest.raises(CostMismatchError) as caught:
        measure(SMALL, module)
    assert caught.value.part == part
    assert caught.value.measured > caught.value.counted
    assert measure(SMALL) == count(SMALL)


# ---- families


def test_the_published_family_costs_what_the_closed_form_says(tmp_path: Path):
    found = asked_family(FamilyRequest(base="b0", published=True), None)
    assert [one.name for one in found.members] == [f"B{k}" for k in range(8)]
    small = [one for one in found.members if isinstance(one, Member) and one.name in ("B0", "B1")]
    manifest = emitted(tmp_path / "family", *small)
    assert (manifest["evidence"], manifest["rule"]) == ("published", None)
    for one in manifest["members"]:
        network = EFFICIENTNET.member(one["name"].lower())
        cost = count(network)
        assert (one["macs"], one["params"], one["activations"]) == (cost.macs, cost.params, cost.activations)
        assert read_config(tmp_path / "family" / one["name"] / "config.yaml")[1] == network
    assert manifest["members"][0]["macs"] == 385_814_752


def test_members_that_cannot_be_reached_are_listed_with_their_reason(tmp_path: Path):
    missing = Unreached(name="X", growth_asked=9.0, reason="no network within 3 % of 9x")
    manifest = emitted(tmp_path / "family", missing, member("small", SMALL))
    assert manifest["unreached"] == [{"name": "X", "growth_asked": 9.0, "reason": "no network within 3 % of 9x"}]
    assert [one["name"] for one in manifest["members"]] == ["small"]


@pytest.mark.parametrize(
    ("base", "budget", "names"),
    [
        ("b0", 2.0, [f"B{k}" for k in range(1, 8)]),
        ("b0", 1.5, [f"B{k}" for k in range(1, 8)]),
        ("b1", 2.0, ["b1-x1.4", "b1-x2", "b1-x4", "b1-x8", "b1-x16"]),
        ("b0", 0.5, ["b0-x0.7", "b0-x0.5", "b0-x0.25"]),
    ],
)
def test_members_are_named_by_the_growth_that_they_are_asked_for(base: str, budget: float, names: list[str]):
    assert list(find(base).growths(budget)) == names


def test_each_member_of_a_rule_costs_what_it_is_named_for():
    text = "1.2,1.1,1.15"
    family = asked_family(FamilyRequest(base="b0", coefficients=text, budget="2x", growth="1.5,3", classes=10), None)
    assert family.rule is not None
    assert family.rule.coefficients.nominal == pytest.approx(2.0)
    assert [one.name for one in family.members] == ["b0-x1.5", "b0-x3"]
    for one in family.members:
        assert isinstance(one, Member)
        assert one.scaled.growth == pytest.approx(one.growth_asked, rel=0.03)
        assert one.network.num_classes == 10
        assert one.phi is not None
        assert 2.0**one.phi == pytest.approx(one.growth_asked)
    by_phi = asked_family(FamilyRequest(base="b0", coefficients=text, budget="2x", phi="1"), None)
    default = members(family.rule, find("b0"), {"two": 2.0}, classes=None, limits=Limits())
    assert [one.network for one in by_phi.members if isinstance(one, Member)] == [
        one.network for one in default if isinstance(one, Member)
    ]


# ---- a second family in the same folder


def test_a_second_family_leaves_nothing_of_the_first(tmp_path: Path):
    emitted(tmp_path, member("old", EVERY_BLOCK), member("kept", EVERY_BLOCK), weights=True)
    (tmp_path / "old" / "notes.txt").write_text("mine")
    emitted(tmp_path, member("kept", EVERY_BLOCK), weights=False)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        "manifest.json",
        "kept/config.yaml",
        "kept/network.py",
        "old/notes.txt",
    }
    scalesearch.load(tmp_path / "kept")


@pytest.mark.parametrize("before", [True, False], ids=["over ours", "of their own"])
@pytest.mark.parametrize(("weights", "name"), [(True, "mine"), (False, "mine"), (True, "other"), (False, "other")])
def test_weights_that_somebody_trained_are_neither_removed_nor_written_over(
    before: bool, weights: bool, name: str, tmp_path: Path, files_of: Callable[[Path], dict[str, str]]
):
    emitted(tmp_path, member("mine", SMALL), weights=before)
    file = tmp_path / "mine" / "model.safetensors"
    save_file(build(SMALL, seed=99).state_dict(), file)
    trained, found = file.read_bytes(), files_of(tmp_path)
    if weights and name == "mine":
        said = "mine/model.safetensors holds other weights than were written there; move it away"
        with pytest.raises(PlanError, match=said):
            emitted(tmp_path, member(name, SMALL), weights=weights)
        assert files_of(tmp_path) == found
    else:
        emitted(tmp_path, member(name, SMALL), weights=weights)
    assert file.read_bytes() == trained


def test_a_manifest_that_names_files_elsewhere_removes_none_of_them(tmp_path: Path):
    outside = tmp_path / "config.yaml"
    outside.write_text("mine")
    folder = tmp_path / "family"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"members": [{"files": ["../config.yaml", str(outside)]}]}))
    emitted(folder, member("new", EVERY_BLOCK))
    assert outside.read_text() == "mine"


FOREIGN = {
    "manifest.json": ('[{"src": "icon.png"}]', '{"name": "an app", "icons": []}', "// not yet JSON", '{"a":'),
    "mine/config.yaml": ("learning_rate: 0.1\n", "schema: 1\nusers: []\n", "\x00\x00schema"),
    "mine/network.py": (
        "import torch\n",
        '"""mine: my own network."""\n',
        '"""Written by scalesearch; needs torch alone."""',
    ),
}
"""Files of others under names of ours."""


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in FOREIGN.items() for text in texts])
def test_files_of_others_are_not_written_over(
    name: str, text: str, tmp_path: Path, files_of: Callable[[Path], dict[str, str]]
):
    (tmp_path / "mine").mkdir()
    (tmp_path / name).write_text(text)
    before = files_of(tmp_path)
    with pytest.raises(PlanError, match=f"{name} (is no manifest|was not written by scalesearch).*; move it away"):
        emitted(tmp_path, member("mine", SMALL))
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("asked", ["mine", "other"])
@pytest.mark.parametrize("name", ["config.yaml", "network.py", "model.safetensors"])
def test_a_folder_in_the_place_of_a_members_file_is_refused_before_anything_goes(
    name: str, asked: str, tmp_path: Path, files_of: Callable[[Path], dict[str, str]]
):
    emitted(tmp_path, member("mine", SMALL), weights=True)
    (tmp_path / "mine" / name).unlink()
    (tmp_path / "mine" / name).mkdir()
    before = files_of(tmp_path)
    with pytest.raises(PlanError, match=f"mine/{name} is a folder; move it away"):
        emitted(tmp_path, member(asked, SMALL), weights=True)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("name", FOREIGN)
def test_what_a_loss_of_power_leaves_of_a_family_is_written_again(
    name: str, tmp_path: Path, files_of: Callable[[Path], dict[str, str]]
):
    emitted(tmp_path, member("mine", SMALL))
    before, content = files_of(tmp_path), (tmp_path / name).read_bytes()
    for end in (0, 6, len(content) - 5):
        for zeros in (0, len(content) - end):
            if not name.startswith("manifest"):
                (tmp_path / "manifest.json").unlink()
            (tmp_path / name).write_bytes(content[:end] + bytes(zeros))
            emitted(tmp_path, member("mine", SMALL))
            assert files_of(tmp_path) == before


KILLED = """
import os, signal, sys

import scalesearch.emit
from scalesearch.cli import main

for name in ("config.yaml", "network.py", "model.safetensors", "manifest.json"):
    if (child := os.fork()) == 0:

        def watch(event, arguments):
            # killed as it is about to give a file its name
            if event == "os.rename" and str(arguments[1]).endswith(name):
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        main(sys.argv[1:])
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    print(*[file for _, _, files in os.walk("family") for file in files if file.startswith(".")], flush=True)
"""


def test_what_a_killed_emission_leaves_half_written_goes_with_the_next(call: Call, tmp_path: Path):
    (tmp_path / "net.yaml").write_text(GOOD)
    command = ["emit", "--base", "net.yaml", "--coefficients", "1,1,1.4", "--growth", "1.9", "--weights", "--quiet"]
    killed = [sys.executable, "-c", KILLED, *command, "--out", "family"]
    told = subprocess.run(killed, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    left = (r"config\.yaml", r"network\.py", r"model\.safetensors", r"manifest\.json")
    for name, line in zip(left, told.splitlines(), strict=True):
        assert re.fullmatch(rf"\.{name}\.[0-9a-f]{{8}}", line)
    (tmp_path / "family" / ".env.20240101").write_text("mine")
    assert call(*command, "--out", "family").code == 0
    assert [path.name for path in (tmp_path / "family").rglob(".*")] == [".env.20240101"]


def test_a_file_that_the_manifest_names_is_written_anew_whatever_it_holds(tmp_path: Path):
    emitted(tmp_path, member("mine", SMALL))
    (tmp_path / "mine" / "network.py").write_text("import torch\n")
    emitted(tmp_path, member("mine", SMALL))
    assert "Written by scalesearch" in (tmp_path / "mine" / "network.py").read_text()


def test_the_folders_of_a_family_are_brought_to_the_disk(tmp_path: Path, settled: list[int]):
    emitted(tmp_path / "new" / "family", member("mine", SMALL))
    places = tmp_path, tmp_path / "new", tmp_path / "new" / "family", tmp_path / "new" / "family" / "mine"
    assert {place.stat().st_ino for place in places} <= {*settled}


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="cannot be written"):
        emitted(tmp_path / "file" / "family", member("new", EVERY_BLOCK))
