"""Bases that only a builder can make: counted two ways, projected onto equal compute, laid out again without torch."""

import hashlib
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import builders
import pytest
import torch
import yaml

from scalesearch.bases import BuilderBase, find, halvings_to_fit
from scalesearch.blueprint import Blueprint, Counted, architecture
from scalesearch.builder import Built, Counts
from scalesearch.cost import count
from scalesearch.emit import write
from scalesearch.errors import CostMismatchError, PlanError, ScaleSearchError, ScalingError, SpecError
from scalesearch.levelling import REACH, TOLERANCE, Scaled
from scalesearch.limits import Limits
from scalesearch.members import Member, Rule, members
from scalesearch.nets.architecture import build, measure
from scalesearch.nets.builder import build_blueprint, count_built, native_side
from scalesearch.nets.measure import FlopCountAnalysis, measure_blueprint
from scalesearch.plan import Layout, Plan, lay_out, read_plan
from scalesearch.request import Request, resolve
from scalesearch.scaling import Multipliers

SIDE, PLACES = 64, 64
"""Of the base [px], and patches of 8 px in it."""


@cache
def counts(name: str) -> Counts:
    """Remembers what it has counted, so that tests share it."""
    return Counts(builder=f"builders:{name}")


def base(name: str) -> Built:
    return Built(counts=counts(name), width=1.0, resolution=SIDE, resolution_step=4)


def counted(name: str, depth: float = 1.0, width: float = 1.0, side: int = SIDE) -> Counted:
    return count_built(f"builders:{name}", depth, width, side)


def refused(kind: type[ScaleSearchError], what: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        what()
    assert "\n" not in str(caught.value)
    assert caught.value.mend
    return str(caught.value)


# ---- counting


@pytest.mark.parametrize(("depth", "width", "side"), [(1, 1, 32), (2, 1, 32), (1, 1.5, 33), (0.5, 0.75, 20)])
def test_counts_are_those_of_the_closed_form(depth: float, width: float, side: int):
    found = counted("own", depth, width, side)
    exact = count(builders.own_value(depth=depth, width=width, resolution=side))
    assert (found.conv, found.linear) == (exact.conv, exact.linear)
    assert (found.params, found.activations) == (exact.params, exact.activations)
    assert found.cost.macs == exact.macs
    assert (found.num_classes, found.fault) == (10, "")


def mlp(features: int) -> int:
    return 4 * features**2 * PLACES


PATCHES = 3 * 8 * 8 * PLACES
"""Multiply-adds of the patches for each feature."""
BY_HAND = {
    "convnet": None,
    "own": None,
    "drawn": None,
    "vit": PATCHES * 96 + 3 * (4 * 96**2 * PLACES + 2 * PLACES**2 * 96 + mlp(96)) + 10 * 96,
    "multihead": PATCHES * 24 + 2 * (4 * 24**2 * PLACES + 2 * PLACES**2 * 24 + mlp(24)) + 10 * 24,
    "biased": PATCHES * 24 + 2 * (24**2 * PLACES + 2 * PLACES**2 * 24 + mlp(24)) + 10 * 24,
    "same": 32**2 * 9 * (3 * 48 + 3 * 48 * 48 // 4 + 48 * 96) + 10 * 96,
}
"""Multiply-adds by the layers' shapes; None where another test has an exact number."""


@pytest.mark.parametrize("name", builders.GOOD)
@pytest.mark.parametrize("depth", [1.0, 1.5])
def test_torch_on_no_data_and_fvcore_on_an_image_count_the_same(name: str, depth: float):
    found = base(name).counts(depth, 1.0, SIDE)
    one = blueprint(name, found)
    assert measure(one, found.cost) == found.cost
    assert found.params == sum(weight.numel() for weight in build(one).parameters())
    if depth == 1 and BY_HAND[name]:
        assert found.cost.macs == BY_HAND[name]


def blueprint(name: str, one: Counted) -> Blueprint:
    return Blueprint(
        builder=f"builders:{name}",
        depth=one.depth,
        width=one.width,
        resolution=one.resolution,
        num_classes=one.num_classes,
        shapes=one.shapes,
    )


def test_fvcore_alone_counts_convolutions_that_pad_to_the_same_side_as_nothing():
    found, image = counted("same"), torch.zeros(1, 3, SIDE, SIDE)
    analysis = FlopCountAnalysis(builders.same(depth=1, width=1).eval(), image).unsupported_ops_warnings(False)
    with torch.no_grad():
        alone = analysis.by_operator()["conv"]
    assert alone == 32**2 * 9 * 3 * 48  # of the first one
    assert found.conv == BY_HAND["same"] - 960


def test_measuring_restores_the_mode_of_the_module_and_torchs_fused_attention():
    one = base("multihead")
    for training in (True, False):
        module = build_blueprint(one.network, seed=0).train(training)
        measure_blueprint(one.network, one.cost, module)
        assert module.training is training
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("off", [1, -1])
def test_counts_that_differ_between_the_two_ways_are_refused(off: int):
    one = base("convnet")
    wrong = replace(one.cost, conv=one.cost.conv + off)
    with pytest.raises(CostMismatchError) as caught:
        measure_blueprint(one.network, wrong)
    assert (caught.value.quantity, caught.value.counted) == ("macs", wrong.macs)
    assert caught.value.measured == one.cost.macs
    assert "builders:convnet(depth=1, width=1, resolution=64)" in str(caught.value)


# ---- refusals


@pytest.mark.parametrize(
    ("name", "operator"),
    [("bilinear", "_trilinear"), ("vector", "mv"), ("distances", "_cdist_forward"), ("recurrent", "LSTM")],
)
def test_an_operator_that_multiplies_and_cannot_be_counted_is_named(name: str, operator: str):
    line = refused(ScalingError, lambda: counted(name))
    assert f"builders:{name} uses {operator}, which multiplies" in line


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("pair", "builders:pair gives tuple for one image"),
        ("feature_map", "builders:feature_map gives (1, 8, 64, 64) for one image"),
        ("nothing", "builders:nothing returns a NoneType"),
        ("lazy", "builders:lazy has lazy layers"),
        ("nobody", "--base builders:nobody: AttributeError"),
        ("A_NUMBER", "--base builders:A_NUMBER is not callable"),
        ("other_names", "--base builders:other_names takes no depth, width, resolution"),
        ("NotAModule", "takes no depth, width, resolution"),
    ],
)
def test_what_makes_no_classifier_of_images_is_refused_with_its_fault(name: str, told: str):
    text = f"builders:{name}"
    assert told in refused(SpecError, lambda: find(text).full())


@pytest.mark.parametrize("place", ["no_such_module", "tests.no_such_module"])
def test_a_module_that_cannot_be_imported_is_refused(place: str):
    assert f"--base {place}:build: ModuleNotFoundError" in refused(SpecError, lambda: find(f"{place}:build"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, and nothing that stays of it in this process."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_builder_is_found_in_the_current_folder(here: Path):
    (here / "mine").mkdir()
    (here / "mine" / "nets.py").write_text("from builders import convnet\nclass All:\n    build = convnet\n")
    assert find("mine.nets:All.build").full().cost == base("convnet").cost


@pytest.mark.parametrize("content", ["def build(:", "raise OSError('no\\ndata')", "import no_such_module"])
def test_a_module_that_fails_while_it_is_imported_is_refused_in_one_line(here: Path, content: str):
    (here / "failing.py").write_text(content)
    assert "--base failing:build: " in refused(SpecError, lambda: find("failing:build"))


def test_a_builder_that_fails_at_its_base_is_refused_with_what_it_said():
    told = "builders:broken: RuntimeError: no such thing as this network"
    assert counted("broken").reason == told
    for ask in (lambda: find("builders:broken").full(), lambda: base("broken").cost):
        assert told in refused(ScalingError, ask)


def test_classes_are_those_of_the_builder():
    threes = find("builders:three_classes")
    assert threes.full(3).network.num_classes == 3
    assert "makes 3 classes, not 10" in refused(ScalingError, lambda: threes.full(10))
    assert "makes 3 classes, the images have 10" in refused(ScalingError, lambda: threes.small(32, 10, 0))
    assert threes.small(32, 2, 1).network.width == 0.5


def test_the_side_of_the_base_is_the_builders_default():
    assert native_side("builders:own") == 32
    assert native_side("builders:other_side") == 224


# ---- a blueprint


@pytest.mark.parametrize("name", builders.GOOD)
def test_a_seed_gives_the_same_weights_again_and_another_one_others(name: str):
    one = base(name).network
    state = torch.random.get_rng_state()
    first, again, other = (build(one, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert name == "own" or not all(torch.equal(first[key], other[key]) for key in first)  # it has its own seed
    assert build(one).training


def test_a_blueprint_reads_back_and_faults_are_told_with_their_key():
    one = base("convnet").network
    assert architecture(one.to_dict()) == one
    for key, value in {"builder": "no colon", "depth": 0, "resolution": 1.5, "shapes": 3, "extra": 1}.items():
        assert key in refused(SpecError, lambda key=key, value=value: architecture(one.to_dict() | {key: value}))


def test_a_builder_that_was_changed_is_refused_when_it_is_built(monkeypatch: pytest.MonkeyPatch):
    one = base("changing")
    assert measure(one.network, one.cost).macs == base("convnet").cost.macs
    monkeypatch.setitem(builders.STEPS, "wider", 1)
    told = "builders:changing makes another network than it was counted as"
    assert told in refused(SpecError, lambda: build(one.network))
    assert told in refused(SpecError, lambda: measure(one.network, one.cost))


def test_a_count_as_text_reads_back():
    for one in (counted("convnet", 1.05, 1.01), counted("broken"), counted("vit", side=65)):
        assert Counted.from_text(one.text) == one


# ---- projection

POINTS = {
    2.0: [(2, 1, 1), (1, 2**0.5, 1), (1, 1, 2**0.5), (1.2, 1.1, 1.17), (1.4, 1.1, 1.08), (1.1, 1.3, 1.04)],
    0.5: [(0.5, 1, 1), (1, 0.5**0.5, 1), (1, 1, 0.5**0.5), (0.8, 0.9, 0.88), (0.9, 0.8, 0.93)],
}
ASKED = [("convnet", 2.0), ("convnet", 0.5), ("vit", 0.5), ("same", 0.5)]


def projected(name: str, growth: float) -> tuple[Built, list[tuple[Multipliers, Scaled]]]:
    start = base(name)
    points = [Multipliers(depth=d, width=w, resolution=r) for d, w, r in POINTS[growth]]
    found = start.project(points, growth)
    assert len(found) == len(points)
    return start, [(point, one) for point, one in zip(points, found, strict=True) if one is not None]


@pytest.mark.parametrize(("name", "growth"), ASKED)
def test_a_projected_network_costs_the_growth_by_a_recount_and_is_near_its_point(name: str, growth: float):
    start, found = projected(name, growth)
    assert found
    for point, one in found:
        made = one.network
        assert isinstance(made, Blueprint)
        again = counted(name, made.depth, made.width, made.resolution)
        assert (again.cost, again.shapes) == (one.cost, made.shapes)
        assert one.growth == again.cost.macs / start.cost.macs
        assert abs(one.growth / growth - 1) <= TOLERANCE
        at = one.effective
        ratios = (at.depth / point.depth, (at.width / point.width) ** 2, (at.resolution / point.resolution) ** 2)
        assert one.distance == pytest.approx(math.hypot(*map(math.log, (*ratios, one.growth / growth))))
        assert one.distance <= REACH
        assert all(value >= 1 if growth > 1 else value <= 1 for value in (at.depth, at.width, at.resolution))


def test_the_effective_depth_is_the_growth_of_compute_that_the_depth_brings_alone():
    start, found = projected("convnet", 2.0)
    for _, one in found:
        alone = counted("convnet", depth=one.network.depth)
        assert one.effective.depth == alone.cost.macs / start.cost.macs
        assert one.effective.resolution == one.network.resolution / SIDE
        low, high = counted("convnet", width=one.effective.width), counted("convnet", width=one.network.width)
        assert low.shapes == high.shapes


def test_depths_that_build_the_same_network_are_one():
    start, deeper = base("same"), counted("same", 1.05)  # of three layers any more makes four
    assert deeper.shapes == counted("same", 1.33).shapes != counted("same", 1.35).shapes
    alone = deeper.cost.macs / start.cost.macs
    points = [Multipliers(depth=alone * off, resolution=(2 / alone) ** 0.5) for off in (0.98, 1.0, 1.02)]
    found = [one.network for one in start.project(points, 2.0) if one is not None]
    assert [one.outline["depth"] for one in found] == [1.05] * 3
    assert len({one.built for one in found}) == 1


@pytest.mark.parametrize(("name", "growth"), ASKED)
def test_one_dimension_alone_moves_nothing_else(name: str, growth: float):
    start = base(name)
    own = start.network
    for dimension in ("depth", "width", "resolution"):
        one = start.alone(dimension, growth)
        moved = {key for key, value in one.network.outline.items() if value != own.outline[key]}
        assert moved == {dimension}
        assert {key for key in ("depth", "width", "resolution") if getattr(one.effective, key) != 1} == {dimension}
        assert one.growth != 1
        assert one.growth == one.cost.macs / start.cost.macs
        assert (one.growth > 1) == (growth > 1)


def test_sides_and_widths_that_the_builder_refuses_are_passed_over():
    assert "no multiple of the patch" in counted("vit", side=68).reason
    _, found = projected("vit", 0.5)
    assert found
    assert {one.network.resolution % 8 for _, one in found} == {0}
    start = base("no_narrow")
    assert "no multiple of 8" in counted("no_narrow", width=1.25).reason
    narrow = [one for one in start.project([Multipliers(width=1.41), Multipliers(width=1.2)], 2.0) if one is not None]
    assert all(builders.channels(16, one.network.width) % 8 == 0 for one in narrow)
    assert start.alone("width", 2.0).growth > 1


def test_the_papers_rounding_is_the_builders():
    start = base("vit")
    made = start.rounded(Multipliers(depth=1.2, width=1.1, resolution=1.25))
    assert made.network.outline == {"depth": 1.2, "width": 1.1, "resolution": 80}
    assert made.growth > 2
    assert "65" in refused(ScalingError, lambda: start.rounded(Multipliers(resolution=65 / 64)))


def test_a_proxy_side_is_one_that_the_builder_makes():
    for native in (28, 33, 50):
        side = find("builders:vit").proxy_side(native, 2.0)
        assert side >= native
        assert not counted("vit", side=side).fault


def test_members_of_a_rule_cost_what_they_are_named_for():
    start = find("builders:convnet")
    rule = Rule.of((0.4, 0.3, 0.3), 2.0, "given")
    found = members(rule, start, {"three": 3.0, "four": 4.0}, classes=None, limits=Limits())
    assert [one.scaled.growth for one in found if isinstance(one, Member)] == pytest.approx([3, 4], rel=TOLERANCE)


# ---- plans


Resolved = tuple[Plan, Layout]


@pytest.fixture(scope="module")
def resolved() -> Resolved:
    """A plan with a builder, and what it comes to."""
    options = {"preset": "quick", "candidates": 3, "seeds": 1, "epochs": 1, "images": 256}
    return resolve(Request(base="builders:same", budget="2x", step=0.1, **options))


def test_candidates_are_distinct_networks_of_equal_compute(resolved: Resolved):
    plan, layout = resolved
    built = [one.scaled.network.built for one in layout.candidates]
    assert len(set(built)) == len(built) >= 5
    assert any(len(one.points) > 1 for one in layout.candidates)
    for one in layout.candidates:
        for scaled, start in ((one.scaled, plan.scalable), (one.proxy, plan.proxy_base)):
            made = scaled.network
            again = counted("same", made.depth, made.width, made.resolution).cost
            assert again == scaled.cost
            off = abs(again.macs / start.cost.macs / plan.space.budget - 1)
            assert off <= TOLERANCE or one.off_budget
    assert all(one.references for one in layout.candidates if one.off_budget)


ALONE = """
import hashlib, sys
from pathlib import Path

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "builders"):
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Wall())
from scalesearch.plan import lay_out, read_plan

plan = read_plan(Path(sys.argv[1]))
print(plan.digest, hashlib.sha256(repr(lay_out(plan)).encode()).hexdigest())
"""


def test_a_written_plan_is_laid_out_again_where_there_is_neither_torch_nor_the_builder(
    resolved: Resolved, tmp_path: Path
):
    plan, layout = resolved
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan.to_dict(), sort_keys=False, allow_unicode=True))
    assert read_plan(tmp_path) == plan
    assert lay_out(read_plan(tmp_path)) == layout
    command = [sys.executable, "-c", ALONE, str(tmp_path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert printed == [plan.digest, hashlib.sha256(repr(layout).encode()).hexdigest()]


def test_the_wall_of_that_test_holds_and_a_count_that_is_missing_needs_torch(resolved: Resolved, tmp_path: Path):
    plan, _ = resolved
    assert isinstance(plan.base, BuilderBase)
    counts = plan.base.counts
    less = replace(plan, base=replace(plan.base, counts=replace(counts, table=counts.table[::2], _known={})))
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(less.to_dict(), sort_keys=False, allow_unicode=True))
    done = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode != 0
    assert "a file's builder is not run" in done.stderr


def test_every_network_is_counted_once_and_told():
    heard: list[str] = []
    one = Counts(builder="builders:same", told=heard.append)
    assert [one(1.0, 1.0, SIDE), one(1.0, 1.0, SIDE), one(1.1, 1.0, SIDE)][0] == counted("same")
    assert [text.endswith(f": {n} networks") for n, text in enumerate(heard, start=1)] == [True, True]
    assert [row.depth for row in one.settled().table] == [1.0, 1.1]


# ---- what a plan and a family must bear


def test_a_fault_with_changing_words_is_the_same_plan():
    bases = [BuilderBase(counts=Counts(builder="builders:addressed"), resolution=64) for _ in range(2)]
    told = [base.counts(1.0, 1.3, 64).reason for base in bases]
    assert told[0] != told[1]
    assert bases[0].settled() == bases[1].settled()
    assert bases[0].settled().to_plan() == bases[1].settled().to_plan()
    assert Counted.from_text(bases[0].settled().counts.table[0].text) == bases[0].counts(1.0, 1.3, 64)


def test_a_base_that_does_not_narrow_is_taken_as_it_is():
    assert halvings_to_fit(find("builders:rigid"), 64, 10, 1_000) == 0


def test_a_matrix_that_is_inverted_is_refused():
    with pytest.raises(ScalingError, match="linalg_inv"):
        count_built("builders:solving", 1.0, 1.0, 64)


def test_a_builder_that_ends_the_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "quits.py").write_text("raise SystemExit(5)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="SystemExit"):
        find("quits:build")


def test_tied_weights_and_random_draws_are_emitted(tmp_path: Path):
    counts = count_built("builders:tied", 1.0, 1.0, 64)
    network = Blueprint(builder="builders:tied", depth=1, width=1, resolution=64, num_classes=10, shapes=counts.shapes)
    scaled = Scaled(network=network, effective=Multipliers(), cost=counts.cost, growth=1.0)
    member = Member(name="tied", phi=None, growth_asked=None, scaled=scaled)
    manifest = write([member], None, "tied", tmp_path, lambda _: None, weights=True)
    assert manifest["members"][0]["params"] == counts.params


def test_a_damaged_table_of_counts_is_a_damaged_plan():
    with pytest.raises(PlanError, match="not a plan"):
        Plan.from_dict({"base": {"builder": "builders:convnet", "resolution": 64, "counted": ["1.0 x"]}})
