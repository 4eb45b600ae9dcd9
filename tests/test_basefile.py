"""A user's own network from a YAML file: the good reads back, the bad is told in one error, and nothing hangs."""

import contextlib
import copy
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from base_files import BEYOND, FIELDS, GOOD, STAGES, STEM, TEXTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import B0, NETWORKS, SMALL, networks

from scalesearch.basefile import HISTORY, MOST_FAULTS, base_schema, read_base
from scalesearch.cli import _code
from scalesearch.cost import count
from scalesearch.direct import FamilyRequest, asked_family
from scalesearch.emit.config import config, config_text
from scalesearch.errors import PlanError
from scalesearch.families import find_base
from scalesearch.members import Member
from scalesearch.scaling import Rounding
from scalesearch.spec import Head, Network, Stage, Stem
from scalesearch.yamlfile import read_mapping


def refusal(path: Path) -> PlanError:
    """The one error of a file, which names it, in one line that can be read."""
    with pytest.raises(PlanError) as caught:
        read_base(path)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert "\n" not in told
    assert len(told) < 30_000
    for jargon in ("while parsing", "while scanning", "tag:yaml.org", "Traceback", "<unicode string>", "block mapping"):
        assert jargon not in told
    return caught.value


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "my_net.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def short(case: Any) -> str:
    return repr(case)[:40]


# ---- files that are refused


@pytest.mark.timeout(5)
@pytest.mark.parametrize(("old", "new", "told"), FIELDS, ids=short)
def test_a_fault_is_told_with_its_key_and_refused_by_the_json_schema_too(tmp_path: Path, old: str, new: str, told: str):
    path = written(tmp_path, GOOD.replace(old, new, 1))
    error = refusal(path)
    assert f"{path}: {told}" in str(error)
    assert not validator().is_valid(read_mapping(path))


@pytest.mark.timeout(5)
@pytest.mark.parametrize(("old", "new", "told"), BEYOND, ids=short)
def test_a_fault_that_no_json_schema_sees_is_told_with_its_key(tmp_path: Path, old: str, new: str, told: str):
    path = written(tmp_path, GOOD.replace(old, new, 1))
    assert [fault.startswith(f"{path}: {told}") for fault in refusal(path).faults] == [True]


@pytest.mark.timeout(5)
@pytest.mark.parametrize(("content", "told"), TEXTS, ids=short)
def test_a_file_that_is_no_base_file_is_refused_at_once(tmp_path: Path, content: str | bytes, told: str):
    assert told in str(refusal(written(tmp_path, content)))


def test_what_is_no_file_is_refused(tmp_path: Path):
    assert "a folder" in str(refusal(tmp_path))
    assert "there is no such file" in str(refusal(tmp_path / "missing.yaml"))
    assert "there is no such file" in str(refusal(tmp_path / "nu\0l.yaml"))
    assert "name too long" in str(refusal(tmp_path / ("n" * 300))).lower()
    assert "not a plain file" in str(refusal(Path("/dev/zero")))


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path):
    text = (
        GOOD.replace(STEM, "stem: {kernel: 4}")
        .replace("depth: 1,", "depth: 0, colour: 1,")
        .replace("groups: 4", "groups: 5")
    )
    text = text.replace("resolution: 32", "resolution: big").replace("name: mine", "name: a/b\nschema: 9\nstages: 1")
    path = written(tmp_path, text)
    told = [fault.removeprefix(f"{path}: ").split(";")[0] for fault in refusal(path).faults]
    assert sorted(told) == [
        "name = 'a/b'",
        "network.resolution = 'big'",
        "network.stages[0].colour is not a key",
        "network.stages[0].depth = 0",
        "network.stages[2].groups = 5",
        "network.stem.kernel = 4",
        "network.stem.width is missing",
        "schema = 9",
        "stages stands outside `network`",
    ]


def test_very_many_faults_are_cut_short(tmp_path: Path):
    path = written(tmp_path, GOOD.replace(STAGES, "  stages:\n" + "  - {}\n" * 200))
    faults = refusal(path).faults
    assert len(faults) == MOST_FAULTS + 1
    assert faults[-1] == f"{path}: {200 * 3 - MOST_FAULTS} more faults"


# ---- files that are read


def test_a_base_file_is_a_base_of_its_own_family(tmp_path: Path):
    base = read_base(written(tmp_path, GOOD))
    assert (base.name, base.family.name) == ("mine", "own")
    assert base.family.networks == {"mine": base.network}
    assert base.family.rounding == Rounding(divisor=4)
    assert base.network == Network(
        stem=Stem(width=16),
        stages=(
            Stage(block="mbconv", depth=1, width=16),
            Stage(block="mbconv", depth=2, width=24, stride=2, expansion=4, se_ratio=0.25),
            Stage(block="bottleneck", depth=2, width=48, expansion=0.5, groups=4),
        ),
        head=Head(width=160),
        resolution=32,
        num_classes=10,
    )


def test_what_may_be_left_out_has_its_default(tmp_path: Path):
    stages = "[{block: basic, depth: 1, width: 8}]"
    text = f"network: {{stem: {{width: 8}}, stages: {stages}, head: {{}}, resolution: 32, num_classes: 2}}"
    base = read_base(written(tmp_path, text))
    assert (base.name, base.family.rounding) == ("my_net", Rounding())
    assert base.network == Network(
        stem=Stem(width=8), stages=(Stage(block="basic", depth=1, width=8),), head=Head(), resolution=32, num_classes=2
    )


def test_every_field_may_be_given(tmp_path: Path):
    network = replace(
        B0, norm_eps=1e-3, drop_path=0.2, stages=tuple(replace(one, activation="relu") for one in B0.stages)
    )
    rounding = Rounding(divisor=16, floor=0.95, stem="fixed", head="widened", fixed_depths="ends")
    values = {"schema": 1, "name": "a.b-c_9", "network": network.to_dict(), "rounding": asdict(rounding)}
    base = read_base(written(tmp_path, yaml.safe_dump(values | dict.fromkeys(HISTORY, "anything"))))
    assert (base.name, base.network, base.family.rounding) == ("a.b-c_9", network, rounding)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my net (2).yaml", "my-net-2"),
        ("größe.yaml", "gr-e"),
        (".yaml", "yaml"),
        ("…", "own"),
        ("n" * 200 + ".yaml", "n" * 64),
        ("-x.yaml", "x"),
    ],
)
def test_a_file_without_a_name_has_that_of_its_own_made_safe(tmp_path: Path, file: str, name: str):
    path = tmp_path / file
    path.write_text(GOOD.replace("name: mine\n", ""))
    assert read_base(path).name == name


def test_stages_may_be_shared_by_anchors(tmp_path: Path):
    rows = "  stages:\n  - &s {block: basic, depth: 1, width: 8}\n  - *s\n  - {<<: *s, stride: 2, width: 16}\n"
    stage = Stage(block="basic", depth=1, width=8)
    found = read_base(written(tmp_path, GOOD.replace(STAGES, rows))).network
    assert found.stages == (stage, stage, replace(stage, stride=2, width=16))


def test_an_exponent_needs_no_point(tmp_path: Path):
    found = read_base(written(tmp_path, GOOD.replace("num_classes: 10", "num_classes: 10\n  norm_eps: 1e-3"))).network
    assert found.norm_eps == 0.001


@given(network=networks())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_legal_network_reads_back_from_yaml_as_itself(tmp_path: Path, network: Network):
    path = written(tmp_path, yaml.safe_dump({"network": network.to_dict()}))
    assert read_base(path).network == network
    assert validator().is_valid(read_mapping(path))


JUNK: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.integers(0, 4)
    | st.floats()
    | st.sampled_from(
        [10**400, -(10**400), [], {}, [[]], {"width": 8}, {"": None}, "mbconv", "basic", "silu", "1e-3", "~"]
    )
    | st.text(max_size=12)
    | st.dates()
)


def leaves(values: Any) -> list[tuple[Any, Any]]:
    """Each mapping or list with each key or index of it, all levels."""
    rows = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [found for key, value in rows for found in [(values, key), *leaves(value)]]


@given(data=st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_junk_in_any_place_is_read_as_a_legal_network_or_refused(tmp_path: Path, data: st.DataObject):
    values: dict[str, Any] = {"name": "mine", "network": copy.deepcopy(SMALL.to_dict()), "rounding": asdict(Rounding())}
    place, key = data.draw(st.sampled_from(leaves(values)))
    place[key] = data.draw(JUNK)
    path = written(tmp_path, yaml.dump(values, Dumper=yaml.SafeDumper))
    with contextlib.suppress(PlanError):
        network = read_base(path).network
        assert Network.from_dict(network.to_dict()) == network
        assert count(network).macs > 0
        assert validator().is_valid(read_mapping(path))


@given(content=st.binary(max_size=200) | st.text("ab:-[]{}&*!|>'\"%#,?~<\t\n 0123.", max_size=60).map(str.encode))
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_bring_anything_but_the_one_error(tmp_path: Path, content: bytes):
    refusal(written(tmp_path, content))


# ---- what `emit` writes, and the JSON Schema


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(base_schema())


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config.yaml as `emit` writes it."""
    family = asked_family(FamilyRequest(base="b0", coefficients="1.2,1.1,1.15", growth="1.5"), None)
    (member,) = family.members
    path = tmp_path_factory.mktemp("emitted") / "config.yaml"
    path.write_text(config_text(config(member, family.rule, "b0", weights={"seed": 0, "sha256": "0" * 64})))
    return path


def test_an_emitted_config_is_a_base_file(emitted: Path):
    values = read_mapping(emitted)
    assert values == yaml.safe_load(emitted.read_text())
    base = read_base(emitted)
    assert base.name == "b0-x1.5" == values["name"]
    assert base.network.digest == values["digest"]
    assert count(base.network).macs == values["macs"]
    assert validator().is_valid(values)


def test_every_key_of_an_emitted_config_is_known(emitted: Path):
    assert set(read_mapping(emitted)) == {"schema", "name", "rounding", "network", *HISTORY}


@pytest.mark.parametrize("base", ["lite0", "mobilenet_v2", "mnasnet_b1", "b0"])
def test_an_emitted_config_scales_by_the_rounding_of_its_family(base: str, tmp_path: Path):
    family = asked_family(FamilyRequest(base=base, coefficients="1.2,1.1,1.15", growth="1.5"), None)
    (member,) = family.members
    assert isinstance(member, Member)
    path = tmp_path / "config.yaml"
    path.write_text(config_text(config(member, family.rule, base, weights={"seed": 0, "sha256": "0" * 64})))
    assert read_base(path).family.rounding == find_base(base).family.rounding


def test_the_config_of_a_builders_network_asks_for_the_builder(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text("network: {builder: 'nets:build', depth: 1.0, width: 1.0, resolution: 224}")
    with pytest.raises(PlanError, match="give the builder itself"):
        read_base(path)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_of_the_tables_satisfy_the_schema(name: str):
    values = json.loads(json.dumps({"name": name, "network": NETWORKS[name].to_dict()}))
    validator().validate(values)


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(base_schema())
    found = base_schema()
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert found["title"]
    assert found["description"]
    assert found["additionalProperties"] is False
    assert base_schema() == found
    assert not any(isinstance(value, float) and not math.isfinite(value) for _, value in flat(found))


def flat(values: Any) -> list[tuple[Any, Any]]:
    return [(key, place[key]) for place, key in leaves(values)]


def test_the_command_prints_the_schema(capsys: pytest.CaptureFixture[str]):
    assert _code(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(base_schema()))
