"""`emit --from-weights` and `--naming`: members that start from files of torchvision, timm, ours, and builders."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import builders
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision import models

import scalesearch
from scalesearch.cli import _code
from scalesearch.emit.weights import weights_digest
from scalesearch.families import find_base
from scalesearch.nets.library_names import norm_eps
from scalesearch.nets.network import build

SMALLER = ("emit", "--base", "b0", "--coefficients", "1,1,0.7071", "--growth", "0.5")
"""A family of one member: B0 at 152 px, so that its tensors keep their shapes."""
CLASSIFIER = ["head.classify.bias", "head.classify.weight"]


class Told(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def members(self) -> list[dict[str, Any]]:
        assert self.code == 0, self.err
        return json.loads(self.out)["members"]

    @property
    def refusal(self) -> str:
        [line] = [line for line in self.err.splitlines() if line.startswith("scalesearch: ")]
        assert "; " in line
        assert "Traceback" not in self.err
        return line


Call = Callable[..., Told]


@pytest.fixture
def emit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """The command in this process, in an empty folder; writes the folder `family`."""
    monkeypatch.chdir(tmp_path)

    def told(*arguments: object) -> Told:
        capsys.readouterr()
        code = _code([str(one) for one in (*arguments, "--json")])
        return Told(code, *capsys.readouterr())

    return told


def unlike_fresh(module: nn.Module) -> nn.Module:
    """Weights and statistics as after a training: none is a constant, and logits are about 1."""
    draw = torch.Generator().manual_seed(7)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low, high in (
                (layer.weight, 0.5, 1.5),
                (layer.bias, -0.3, 0.3),
                (layer.running_mean, -0.2, 0.2),
                (layer.running_var, 0.5, 1.5),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high, generator=draw)
    return module.eval()


class Trained(NamedTuple):
    file: Path
    module: nn.Module

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A file of torchvision's B0."""
    torch.manual_seed(0)
    module = unlike_fresh(models.efficientnet_b0())
    file = tmp_path_factory.mktemp("weights") / "theirs.pth"
    torch.save(module.state_dict(), file)
    return Trained(file, module)


def config(name: str) -> dict[str, Any]:
    return yaml.safe_load((Path("family") / name / "config.yaml").read_text())


def gap(one: nn.Module, other: nn.Module, side: int) -> float:
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = one.eval()(images), other.eval()(images)
    assert theirs.abs().max() > 0.01
    return float((ours - theirs).abs().max())


# ---- weights of a library


def test_a_member_of_the_files_shape_starts_from_it_and_gives_its_logits(trained: Trained, emit: Call):
    [row] = emit(*SMALLER, "--from-weights", trained.file).members
    assert row["weights"]["start"] == {
        "file": "theirs.pth",
        "sha256": trained.digest,
        "names": "torchvision",
        "fresh": [],
    }
    assert row["files"] == [f"{row['name']}/{name}" for name in ("config.yaml", "network.py", "model.safetensors")]
    assert row["realised_growth"] == pytest.approx(0.5, rel=0.03)
    loaded = scalesearch.load(Path("family") / row["name"])
    assert weights_digest(loaded) == row["weights"]["sha256"]
    assert gap(loaded, trained.module, 96) <= 1e-5
    assert row["resolution"] == 152
    network = find_base("b0").network
    theirs, ours = norm_eps(network, "torchvision"), network.norm_eps
    epsilons = {layer.eps for layer in trained.module.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert epsilons == {theirs} != {ours}  # no file of weights holds it
    assert config(row["name"])["network"]["norm_eps"] == theirs
    assert config(row["name"])["digest"] == row["digest"]


def test_another_number_of_classes_keeps_the_classifier_fresh(trained: Trained, emit: Call):
    [row] = emit(*SMALLER, "--from-weights", trained.file, "--classes", 10).members
    assert row["weights"]["start"]["fresh"] == CLASSIFIER
    assert config(row["name"])["weights"]["start"]["fresh"] == CLASSIFIER
    state = scalesearch.load(Path("family") / row["name"]).state_dict()
    assert state["head.classify.weight"].shape == (10, 1280)
    whole = trained.module.state_dict()
    assert torch.equal(state["stem.0.weight"], whole["features.0.0.weight"])
    assert not torch.equal(state["head.classify.weight"], whole["classifier.1.weight"][:10])


@pytest.mark.slow
def test_members_of_other_shapes_start_untrained_and_say_so(trained: Trained, emit: Call):
    rows = {
        row["name"]: row for row in emit("emit", "--base", "b0", "--published", "--from-weights", trained.file).members
    }
    assert sorted(rows) == [f"B{k}" for k in range(8)]
    assert rows["B0"]["weights"]["start"]["sha256"] == trained.digest
    assert rows["B0"]["digest"] != find_base("b0").network.digest  # of another epsilon
    assert gap(scalesearch.load("family/B0"), trained.module, 64) <= 1e-5
    for name in sorted(rows)[1:]:
        assert rows[name]["weights"]["start"] is None
        assert f"{name}/model.safetensors" not in rows[name]["files"]
        assert config(name)["network"]["norm_eps"] == find_base(name.lower()).network.norm_eps


def test_a_member_of_another_shape_in_the_same_family_starts_untrained(trained: Trained, emit: Call):
    thinner = ("emit", "--base", "b0", "--coefficients", "1,0.7071,1", "--growth", "1.0,0.5")
    near, far = emit(*thinner, "--from-weights", trained.file).members
    assert near["weights"]["start"]["file"] == "theirs.pth"
    assert far["weights"]["start"] is None
    assert far["files"] == [f"{far['name']}/config.yaml", f"{far['name']}/network.py"]
    assert config(far["name"])["weights"]["start"] is None


def test_a_written_file_of_ours_is_a_start_too(trained: Trained, emit: Call, tmp_path: Path):
    [row] = emit(*SMALLER, "--from-weights", trained.file).members
    kept = tmp_path / "ours.safetensors"
    os.rename(Path("family") / row["name"] / "model.safetensors", kept)
    [again] = emit(*SMALLER, "--from-weights", kept).members
    assert again["weights"]["sha256"] == row["weights"]["sha256"]
    assert again["digest"] == row["digest"]  # the epsilon of the library came along
    assert gap(scalesearch.load(Path("family") / again["name"]), trained.module, 96) <= 1e-5


# ---- refusals


def test_a_file_that_fits_no_member_is_refused_and_nothing_is_written(emit: Call, tmp_path: Path):
    torch.save(models.efficientnet_b1().state_dict(), "b1.pth")
    told = emit(*SMALLER, "--from-weights", "b1.pth")
    assert told.code == 2
    assert "no member has the shape of b1.pth: b0-x0.5: " in told.refusal
    assert {path.name for path in tmp_path.iterdir()} == {"b1.pth"}


def test_a_file_that_fits_no_member_leaves_an_earlier_family_alone(
    emit: Call, files_of: Callable[[Path], dict[str, str]]
):
    [row] = emit(*SMALLER).members
    assert config(row["name"])["network"]["norm_eps"] == find_base("b0").network.norm_eps
    before = files_of(Path("family"))
    save_file({"some.weight": torch.ones(3)}, "other.safetensors")
    assert emit(*SMALLER, "--from-weights", "other.safetensors").code == 2
    assert files_of(Path("family")) == before


class Trap:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch sprung",)


@pytest.mark.parametrize("with_tensors", [True, False])
def test_code_in_a_file_is_refused_and_does_not_run(emit: Call, tmp_path: Path, with_tensors: bool):
    torch.save({"features.0.0.weight": torch.ones(3), "x": Trap()} if with_tensors else Trap(), "trap.pth")
    told = emit(*SMALLER, "--from-weights", "trap.pth")
    assert told.code != 0
    assert "trap.pth: damaged, or it holds more than tensors" in told.refusal
    assert {path.name for path in tmp_path.iterdir()} == {"trap.pth"}


@pytest.mark.parametrize(
    ("name", "told"), [("missing.pth", "no such file"), ("notes.txt", "not a weights file"), ("empty.pth", "damaged")]
)
def test_a_file_that_is_none_of_weights_is_refused(emit: Call, tmp_path: Path, name: str, told: str):
    if name != "missing.pth":
        (tmp_path / name).write_text("")
    found = emit(*SMALLER, "--from-weights", name)
    assert found.code == 2
    assert told in found.refusal
    assert not (tmp_path / "family").exists()


# ---- names of a library


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_written_weights_load_into_the_librarys_own_model(trained: Trained, emit: Call, library: str):
    [row] = emit(*SMALLER, "--from-weights", trained.file, "--naming", library).members
    assert row["weights"]["naming"] == library
    state = load_file(Path("family") / row["name"] / "model.safetensors")
    model = timm.create_model("efficientnet_b0") if library == "timm" else models.efficientnet_b0()
    model.load_state_dict(state, strict=True)
    assert weights_digest(scalesearch.load(Path("family") / row["name"])) == row["weights"]["sha256"]
    if library == "torchvision":
        assert gap(model, trained.module, 64) == 0


def test_initial_weights_can_have_names_of_a_library_too(emit: Call):
    [row] = emit(*SMALLER, "--weights", "--naming", "timm").members
    model = timm.create_model("efficientnet_b0")
    model.load_state_dict(load_file(Path("family") / row["name"] / "model.safetensors"), strict=True)
    own = build(find_base("b0").network, seed=row["weights"]["seed"])
    assert row["weights"]["sha256"] == weights_digest(own)
    assert row["weights"]["start"] is None
    assert torch.equal(model.conv_stem.weight, own.state_dict()["stem.0.weight"])


@pytest.mark.parametrize(
    ("base", "library", "told"),
    [("mobilenet_v1", "torchvision", "torchvision has no network"), ("builders:convnet", "timm", "has no timm names")],
)
def test_names_that_the_library_has_not_are_refused_before_anything_is_written(
    emit: Call, tmp_path: Path, base: str, library: str, told: str
):
    asked = ("emit", "--base", base, "--coefficients", "1,1,1.4142", "--growth", "2.25")
    found = emit(*asked, "--weights", "--naming", library)
    assert found.code == 2
    assert told in found.refusal
    assert list(tmp_path.iterdir()) == []


# ---- a builder's own


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_builders_network_starts_from_its_own_state(emit: Call, suffix: str):
    module = unlike_fresh(builders.convnet(depth=1, width=1))
    state: dict[str, Tensor] = module.state_dict()
    file = f"mine.{suffix}"
    torch.save({"state_dict": state}, file) if suffix == "pth" else save_file(state, file)
    asked = ("emit", "--base", "builders:convnet", "--coefficients", "1,1,1.5")
    near, far = emit(*asked, "--growth", "2.25,1.5", "--from-weights", file).members
    assert near["weights"]["start"] == {
        "file": file,
        "sha256": Trained(Path(file), module).digest,
        "names": "scalesearch",
        "fresh": [],
    }
    loaded = scalesearch.load(Path("family") / near["name"], builder="builders:convnet")
    assert gap(loaded, module, 96) == 0
    assert weights_digest(loaded) == near["weights"]["sha256"] == weights_digest(module)
    assert far["weights"]["start"]["file"] == file


def test_parameters_that_are_not_trained_do_not_count(emit: Call):
    [row] = emit("emit", "--base", "builders:frozen", "--coefficients", "1,1,1.5", "--growth", "2.25").members
    module = builders.convnet(depth=1, width=1)
    first = sum(weight.numel() for weight in module.get_submodule("0").parameters())
    assert row["params"] == sum(weight.numel() for weight in module.parameters()) - first


def test_another_builders_state_is_refused(emit: Call, tmp_path: Path):
    torch.save(builders.convnet(depth=2, width=1).state_dict(), "deeper.pth")
    asked = ("emit", "--base", "builders:convnet", "--coefficients", "1,1,1.5", "--growth", "2.25")
    found = emit(*asked, "--from-weights", "deeper.pth")
    assert found.code == 2
    assert "no member has the shape of deeper.pth" in found.refusal
    assert not (tmp_path / "family").exists()
