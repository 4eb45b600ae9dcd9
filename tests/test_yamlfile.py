"""Plain values as YAML 1.2 has them, the same as PyYAML's wherever PyYAML wrote them; faults are in test_basefile."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalesearch.errors import PlanError
from scalesearch.yamlfile import MOST_VALUES, read_mapping


def value(folder: Path, text: str) -> Any:
    """What stands behind a key."""
    path = folder / "file.yaml"
    path.write_bytes(f"key: {text}\n".encode())
    return read_mapping(path)["key"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        ("1E+3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.25", -0.25),
        ("1e400", math.inf),
        ("-.inf", -math.inf),
        (".Inf", math.inf),
        ("32", 32),
        ("+32", 32),
        ("-7", -7),
        ("0", 0),
        ("1" * 900, int("1" * 900)),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ('"1e-3"', "1e-3"),
        ("'32'", "32"),
        ("|\n 32", "32\n"),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("2024-01-31", "2024-01-31"),
        ("2024-13-45", "2024-13-45"),
        ("no", "no"),
        ("on", "on"),
        ("inf", "inf"),
        (".", "."),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ("größe 😀", "größe 😀"),
        ("[1, [a, {}], []]", [1, ["a", {}], []]),
        ("[&a {b: 1}, *a]", [{"b": 1}, {"b": 1}]),
        ("[&a {b: 1, c: 2}, {<<: *a, c: 3}]", [{"b": 1, "c": 2}, {"b": 1, "c": 3}]),
        ("[&a {b: 1}, &c {b: 2, d: 4}, {<<: [*a, *c]}]", [{"b": 1}, {"b": 2, "d": 4}, {"b": 1, "d": 4}]),
        ("[&a 1, &a 2, *a]", [1, 2, 2]),
    ],
)
def test_a_value_means_what_it_looks_like(tmp_path: Path, text: str, meant: object):
    found = value(tmp_path, text)
    assert (found, type(found)) == (meant, type(meant))


def test_not_a_number_is_one_of_the_numbers(tmp_path: Path):
    assert math.isnan(value(tmp_path, ".NaN"))
    assert math.isnan(value(tmp_path, ".nan"))


def test_a_mark_of_byte_order_and_carriage_returns_are_no_part_of_the_text(tmp_path: Path):
    path = tmp_path / "file.yaml"
    path.write_bytes("\ufeffa: 1\r\nb: x\r\n".encode())
    assert read_mapping(path) == {"a": 1, "b": "x"}


def test_aliases_count_as_what_they_stand_for(tmp_path: Path):
    assert value(tmp_path, f"[&a [1, 2], {', '.join(['*a'] * 1000)}]") == [[1, 2]] * 1001
    with pytest.raises(PlanError, match="more than 20,000 values"):
        value(tmp_path, f"[&a [1, 2], {', '.join(['*a'] * (MOST_VALUES // 3))}]")


LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x85\u2028\u2029")  # breaks of lines to PyYAML
WORDS = st.text(LETTERS, max_size=8).filter(lambda text: not _is_exponent(text))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(WORDS.filter(lambda key: key != "<<"), inner, max_size=4)
    ),
    max_leaves=12,
)


def _is_exponent(text: str) -> bool:
    """Whether PyYAML leaves a text without quotes that looks like a number, such as `1e5`."""
    try:
        return math.isfinite(float(text)) and yaml.safe_dump(text).startswith(text)
    except ValueError:
        return False


@given(values=st.dictionaries(WORDS.filter(lambda key: key != "<<"), PLAIN, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_pyyaml_writes_reads_back_as_it_was(tmp_path: Path, values: dict[str, Any]):
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    assert read_mapping(path) == values
