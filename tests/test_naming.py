"""Names of weights: torchvision's and timm's own models say what they are, and the logits say whether they fit."""

import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import SMALL
from safetensors.torch import save_file
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet, _gen_efficientnet
from torch import Tensor, nn
from torchvision import models

from scalesearch.emit.start import Start
from scalesearch.emit.weights import read_state
from scalesearch.errors import EmitError
from scalesearch.families import find_base
from scalesearch.nets.library_names import Library, norm_eps
from scalesearch.nets.naming import ours, recognise, theirs
from scalesearch.nets.network import build, shaped
from scalesearch.scaling import Multipliers, scale
from scalesearch.spec import Head, Network

CLASSES = 10
CLOSE = 1e-5
"""Largest difference of logits that are about 1."""


SIDES = (64, 75)
"""Sides of the images [px]."""


class Case(NamedTuple):
    """A model of a library, and the network of ours that is the same."""

    library: Library
    make: Callable[[], nn.Module]
    network: Network


def network_of(base: str) -> Network:
    return replace(find_base(base).network, num_classes=CLASSES, resolution=64)


def case(library: Library, model: str, base: str) -> Case:
    create = models.get_model if library == "torchvision" else timm.create_model
    return Case(library, partial(create, model, num_classes=CLASSES), network_of(base))


def scaled(base: str, multipliers: Multipliers, **changes: Any) -> Network:
    rounding = find_base(base).family.rounding
    return replace(scale(network_of(base), multipliers, replace(rounding, **changes)), resolution=64)


NAMES: tuple[tuple[Library, str, str], ...] = (
    *(("torchvision", f"efficientnet_b{n}", f"b{n}") for n in range(8)),
    *(("timm", f"efficientnet_b{n}", f"b{n}") for n in range(8)),
    *(("timm", f"tf_efficientnet_b{n}", f"tf_b{n}") for n in range(8)),
    *(("torchvision", f"resnet{n}", f"resnet{n}") for n in (18, 34, 50, 101, 152)),
    *(("timm", f"resnet{n}", f"resnet{n}") for n in (18, 34, 50, 101, 152)),
    ("torchvision", "mobilenet_v2", "mobilenet_v2"),
    ("timm", "mobilenetv2_100", "mobilenet_v2"),
    ("torchvision", "mobilenet_v3_large", "mobilenet_v3_large"),
    ("torchvision", "mobilenet_v3_small", "mobilenet_v3_small"),
    ("timm", "mobilenetv3_large_100", "mobilenet_v3_large"),
    ("timm", "mobilenetv3_small_100", "mobilenet_v3_small"),
    ("timm", "mobilenetv1_100", "mobilenet_v1"),
    ("torchvision", "mnasnet1_0", "mnasnet_b1"),
    ("timm", "mnasnet_100", "mnasnet_b1"),
    *(("timm", f"efficientnet_lite{n}", f"lite{n}") for n in range(3)),
)
SLOW = ("b5", "b6", "b7", "tf_b5", "tf_b6", "tf_b7", "resnet101", "resnet152")
SHIPPED = [
    pytest.param(case(*row), id=f"{row[0]}-{row[1]}", marks=[pytest.mark.slow] if row[2] in SLOW else [])
    for row in NAMES
]


def timm_of_equal_widths() -> nn.Module:
    """Rows that differ in nothing but that each begins with a stride."""
    rows = decode_arch_def([["ds_r1_k3_s1_e1_c16"], ["ir_r2_k3_s2_e6_c24"], ["ir_r1_k3_s2_e6_c24"]])
    return EfficientNet(rows, num_features=64, act_layer=nn.ReLU6, num_classes=CLASSES)


WIDE = Multipliers(width=1.4)
HALF = Multipliers(width=0.5)
SCALED = {
    "torchvision-mobilenet_v2-1.4": Case(
        "torchvision",
        partial(models.mobilenet_v2, width_mult=1.4, num_classes=CLASSES),
        scaled("mobilenet_v2", WIDE),
    ),
    "timm-mobilenetv2_120d": Case(
        "timm",
        partial(timm.create_model, "mobilenetv2_120d", num_classes=CLASSES),
        scaled("mobilenet_v2", Multipliers(width=1.2, depth=1.4), stem="fixed", head="fixed", fixed_depths="ends"),
    ),
    "timm-mobilenetv3_small_050": Case(
        "timm",
        partial(timm.create_model, "mobilenetv3_small_050", num_classes=CLASSES),
        replace(
            scaled("mobilenet_v3_small", HALF, stem="fixed"),
            head=replace(find_base("mobilenet_v3_small").network.head, width=288),
        ),
    ),
    "timm-efficientnet-0.7-deeper": Case(
        "timm",
        partial(
            _gen_efficientnet,
            "efficientnet_b0",
            channel_multiplier=0.7,
            depth_multiplier=1.5,
            num_classes=CLASSES,
        ),
        scaled("b0", Multipliers(width=0.7, depth=1.5)),
    ),
    "timm-efficientnet-0.05": Case(
        "timm",
        partial(_gen_efficientnet, "efficientnet_b0", channel_multiplier=0.05, num_classes=CLASSES),
        scaled("b0", Multipliers(width=0.05)),
    ),
    "torchvision-resnet-2-1-3-1": Case(
        "torchvision",
        partial(models.ResNet, models.resnet.Bottleneck, [2, 1, 3, 1], num_classes=CLASSES),
        replace(
            network_of("resnet50"),
            stages=tuple(
                replace(stage, depth=depth)
                for stage, depth in zip(network_of("resnet50").stages, (2, 1, 3, 1), strict=True)
            ),
        ),
    ),
    "timm-equal-widths": Case(
        "timm",
        timm_of_equal_widths,
        replace(
            network_of("mobilenet_v2"),
            stages=(
                *network_of("mobilenet_v2").stages[:2],
                replace(network_of("mobilenet_v2").stages[1], depth=1),
            ),
            head=Head(width=64),
        ),
    ),
    "torchvision-mnasnet-0.5": Case(
        "torchvision",
        partial(models.mnasnet0_5, num_classes=CLASSES),
        scaled("mnasnet_b1", HALF),
    ),
}
CASES = [*SHIPPED, *(pytest.param(one, id=name) for name, one in SCALED.items())]
QUICK = [
    pytest.param(case(*row), id=f"{row[0]}-{row[1]}")
    for row in NAMES
    if row[2] in ("b0", "tf_b0", "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v1")
]


def empty(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        model = make()
    return model.to_empty(device="cpu")


def made(make: Callable[[], nn.Module]) -> nn.Module:
    """A library's model with random weights and statistics of batch norms, and logits of about 1."""
    model, generator = empty(make), torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, 0, layer.weight[0].numel() ** -0.5, generator=generator)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, 0, 0.3, generator=generator)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # forward passes set the statistics to the mean of those of their images
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.3, generator=generator)
    with torch.no_grad():
        for side in SIDES:
            model.train()(torch.randn(8, 3, side, side, generator=generator))
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                spread = layer.running_var.sqrt()
                layer.running_mean += 0.2 * spread * torch.randn(spread.shape, generator=generator)
                layer.running_var.clamp_(min=0.01).mul_(0.8 + 0.6 * torch.rand(spread.shape, generator=generator))
    return model.eval()


def images(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))


@torch.no_grad()
def difference(one: nn.Module, other: nn.Module, side: int) -> float:
    """The largest difference of logits, once they are seen to be worth comparing."""
    logits, others = one.eval()(images(side)), other.eval()(images(side))
    assert logits.shape == others.shape == (2, CLASSES)
    assert 0.05 < logits.std() < 10
    assert (logits[0] - logits[1]).abs().max() > 0.01
    return float((logits - others).abs().max())


# ---- facts from outside


@pytest.mark.parametrize("one", CASES)
def test_the_library_and_we_compute_the_same_with_the_same_weights(one: Case):
    model = made(one.make)
    eps = {layer.eps for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert eps == {norm_eps(one.network, one.library)}
    module = shaped(replace(one.network, norm_eps=eps.pop()))
    state = model.state_dict()
    translated = ours(one.network, state)
    module.load_state_dict(translated, strict=True)
    assert max(difference(model, module, side) for side in SIDES) <= CLOSE
    back = theirs(one.network, module.state_dict(), one.library)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())
    fresh = empty(one.make)
    for name in back:
        state[name] = back[name]  # keeps the version that torchvision's MNASNet asks of a state dict
    fresh.load_state_dict(state, strict=True)
    assert difference(fresh, model, 64) == 0


def test_the_logits_tell_a_tensor_in_the_wrong_place_another_eps_and_another_padding():
    network, model = network_of("b0"), made(partial(models.efficientnet_b0, num_classes=CLASSES))
    right = ours(network, model.state_dict())
    a, b = (f"stages.6.0.branch.{n}.1.running_mean" for n in (0, 1))
    at_1e5 = replace(network, norm_eps=1e-5)
    wrong = ((at_1e5, right | {a: right[b], b: right[a]}), (network, right))
    for value, state in wrong:
        module = build(value)
        module.load_state_dict(state)
        assert difference(model, module, 64) > 3 * CLOSE
    same = build(replace(at_1e5, padding="same"))
    same.load_state_dict(dict(zip(same.state_dict(), right.values(), strict=True)))
    assert difference(model, same, 64) > 3 * CLOSE


@pytest.mark.parametrize("one", QUICK)
def test_our_names_come_back_through_theirs(one: Case):
    state = build(one.network, seed=3).state_dict()
    back = ours(one.network, theirs(one.network, state, one.library))
    assert list(back) == list(state)
    assert all(torch.equal(back[name], value) and back[name].dtype == value.dtype for name, value in state.items())


@pytest.mark.parametrize("one", QUICK)
def test_the_keys_tell_whose_names_they_are(one: Case):
    state = build(one.network).state_dict()
    assert recognise(one.network, state) == "scalesearch"
    same = one.network.stages[0].block in ("basic", "bottleneck")
    assert recognise(one.network, theirs(one.network, state, one.library)) == ("torchvision" if same else one.library)


def test_a_file_without_counters_of_batches_gets_them():
    network = network_of("resnet18")
    state = theirs(network, build(network).state_dict(), "torchvision")
    found = ours(network, {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")})
    build(network).load_state_dict(found)
    assert {int(value) for name, value in found.items() if name.endswith("num_batches_tracked")} == {0}


def test_another_number_of_classes_is_left_to_the_caller():
    network = network_of("b0")
    other = replace(network, num_classes=7)
    found = ours(network, theirs(other, build(other).state_dict(), "timm"))
    assert found["head.classify.weight"].shape == (7, 1280)
    assert found["head.classify.bias"].shape == (7,)


# ---- what does not fit


B0 = network_of("b0")


@pytest.fixture(scope="module")
def b0_state() -> dict[str, Tensor]:
    """The tensors of B0 under timm's names. Not to be changed."""
    return theirs(B0, build(B0).state_dict(), "timm")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"blocks.1.0.conv_pw.weight": None}, "blocks.1.0.conv_pw.weight is missing; give"),
        ({"aux.weight": torch.zeros(1)}, "aux.weight is left over: the network has no such tensor; give"),
        (
            {"bn2.bias": torch.zeros(7)},
            "bn2.bias is float32 (7,), the network needs float32 (1280,); give",
        ),
        (
            {"bn2.bias": torch.zeros(1280, dtype=torch.int64)},
            "bn2.bias is int64 (1280,), the network needs float32 (1280,); give",
        ),
        (
            {"classifier.weight": torch.zeros(10, 3)},
            "classifier.weight is float32 (10, 3), the network needs float32 (10, 1280); give",
        ),
        (
            {"classifier.bias": torch.zeros(11)},
            "classifier.bias is float32 (11,), the network needs float32 (10,); give",
        ),
        (
            {"classifier.bias": torch.tensor(1.0)},
            "classifier.bias is float32 (), the network needs float32 (10,); give",
        ),
        (
            {"classifier.weight": torch.tensor(1.0)},
            "classifier.weight is float32 (), the network needs float32 (10, 1280); give",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(b0_state: dict[str, Tensor], changes: dict[str, Tensor | None], said: str):
    state = {name: value for name, value in (b0_state | changes).items() if value is not None}
    with pytest.raises(EmitError) as caught:
        ours(B0, state)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("base", ["b1", "b2", "resnet18", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v1"])
def test_weights_of_another_network_are_refused(b0_state: dict[str, Tensor], base: str):
    with pytest.raises(EmitError, match="as scalesearch, torchvision or timm save them"):
        ours(network_of(base), b0_state)
    with pytest.raises(EmitError, match="as scalesearch, torchvision or timm save them"):
        theirs(network_of(base), build(B0).state_dict(), "timm")


@pytest.mark.parametrize("state", [{}, {"weight": torch.zeros(1)}, {"": torch.zeros(1)}], ids=repr)
def test_names_of_nobody_are_refused(state: dict[str, Tensor]):
    with pytest.raises(EmitError, match="is no name in such a network"):
        ours(B0, state)


@pytest.mark.parametrize("base", ["tf_b0", "lite0", "mobilenet_v1"])
def test_torchvision_has_no_such_network(base: str):
    network = network_of(base)
    with pytest.raises(EmitError, match="torchvision has no network of these blocks and this head"):
        theirs(network, build(network).state_dict(), "torchvision")


def test_timm_has_no_network_of_mixed_blocks():
    stages = (SMALL.stages[0], replace(network_of("resnet18").stages[0], depth=1))
    network = replace(SMALL, stages=stages)
    with pytest.raises(EmitError, match="timm has no network"):
        theirs(network, build(network).state_dict(), "timm")


# ---- files


STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], value) for name, value in other.items())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".PTH"])
@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE, "optimizer": {"state": {}}},
        {"model_state": STATE},
        {"state_dict_ema": STATE},
        {f"module.{name}": value for name, value in STATE.items()},
        {"state_dict": {f"module.{name}": value for name, value in STATE.items()}},
    ],
    ids=lambda content: next(iter(content)),
)
def test_a_state_dict_is_found_in_what_torch_saved(tmp_path: Path, suffix: str, content: object):
    torch.save(content, tmp_path / f"a{suffix}")
    assert equal(read_state(tmp_path / f"a{suffix}"), STATE)


def test_safetensors_and_the_old_format_of_torch_are_read(tmp_path: Path):
    save_file(STATE, tmp_path / "a.safetensors")
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert equal(read_state(tmp_path / "a.safetensors"), STATE)
    assert equal(read_state(tmp_path / "old.pth"), STATE)


def refused(path: Path) -> str:
    with pytest.raises(EmitError) as caught:
        read_state(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert caught.value.mend
    assert "\n" not in said
    return said


class Malicious:
    """A pickle of it runs a command in whoever loads it carelessly."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path):
    told = tmp_path / "it ran"
    content = {"weight": Malicious(f"touch '{told}'")}
    torch.save(content, tmp_path / "a.pth")
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.bin").write_bytes(pickle.dumps(content))
    for name in ("a.pth", "old.pt", "plain.bin"):
        assert "more than tensors" in refused(tmp_path / name)
    assert not told.exists()
    pickle.loads((tmp_path / "plain.bin").read_bytes())
    assert told.exists()


def test_a_file_that_is_none_is_refused(tmp_path: Path):
    for name in ("a.safetensors", "a.pth"):
        assert "no such file" in refused(tmp_path / name)
        (tmp_path / name).mkdir()
        assert "no such file" in refused(tmp_path / name)
    (tmp_path / "a.onnx").write_bytes(b"")
    assert "not a weights file" in refused(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"state_dict": {}},
        {"state_dict": 1},
        {"model": STATE, "state_dict": STATE},
        {"weight": 1.0},
        {1: torch.zeros(1)},
        [torch.zeros(1)],
        torch.zeros(1),
        nn.Linear(2, 2),
        {"weight": torch.zeros(2, 2).to_sparse()},
        {"weight": torch.zeros(2, device="meta")},
    ],
    ids=lambda content: str(content)[:40],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "a.pth")
    refused(tmp_path / "a.pth")


def broken(content: bytes) -> st.SearchStrategy[bytes]:
    """A file cut short, overwritten somewhere, or something else."""
    place = st.integers(0, len(content) - 1)
    cut = place.map(lambda end: content[:end])
    garbled = st.tuples(place, st.binary(min_size=1, max_size=8)).map(
        lambda pair: content[: pair[0]] + pair[1] + content[pair[0] + len(pair[1]) :]
    )
    return st.one_of(cut, garbled, st.binary(max_size=64))


def saved(folder: Path, suffix: str) -> bytes:
    path = folder / f"whole{suffix}"
    if suffix == ".safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=suffix == ".pth")
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, suffix: str, data: st.DataObject):
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(data.draw(broken(saved(tmp_path, suffix))))
    try:
        assert all(isinstance(value, Tensor) for value in read_state(path).values())
    except EmitError:
        refused(path)


# ---- from a file into a module


def parts(module: nn.Module, name: str) -> Iterator[Tensor]:
    return (value for key, value in module.state_dict().items() if key.startswith(name))


def begun(path: Path, network: Network, module: nn.Module) -> list[str]:
    """Names of the tensors that keep their own values."""
    told = Start.read(path).load(network, module)
    assert told is not None
    return told["fresh"]


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_module_starts_from_a_file(tmp_path: Path, library: Library):
    source = build(B0, seed=5)
    torch.save(theirs(B0, source.state_dict(), library), tmp_path / "a.pth")
    module = build(B0, seed=6)
    assert begun(tmp_path / "a.pth", B0, module) == []
    assert equal(module.state_dict(), source.state_dict())


def test_a_classifier_of_other_classes_stays_fresh(tmp_path: Path):
    source = build(replace(B0, num_classes=3), seed=5)
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    module, fresh = build(B0, seed=6), build(B0, seed=6)
    assert begun(tmp_path / "a.safetensors", B0, module) == ["head.classify.bias", "head.classify.weight"]
    for name, other in (("stem", source), ("stages", source), ("head.widen", source), ("head.classify", fresh)):
        assert all(torch.equal(a, b) for a, b in zip(parts(module, name), parts(other, name), strict=True))


def test_a_module_of_another_shape_is_left_alone(tmp_path: Path, b0_state: dict[str, Tensor]):
    save_file(b0_state, tmp_path / "a.safetensors")
    wide = scaled("b0", WIDE)
    module = build(wide, seed=6)
    start = Start.read(tmp_path / "a.safetensors")
    assert "conv_stem.weight is float32 (32, 3, 3, 3), the network" in start.fault(wide)
    assert start.load(wide, module) is None
    assert equal(module.state_dict(), build(wide, seed=6).state_dict())
