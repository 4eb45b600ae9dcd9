"""The benchmark of counting runs from end to end, finds no difference, and says so where the requirement is missed.

How fast the machine is at the moment decides nothing here: seconds are not facts of the code.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "counting.py"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("counting", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "counting", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_benchmark_finds_both_counts_equal_on_three_networks(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--networks", "3", "--repetitions", "2", "--out", tmp_path / "timings.json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    recorded = json.loads((tmp_path / "timings.json").read_text())
    assert [one["base"] for one in recorded["results"]] == ["b0", "resnet50"]
    for one in recorded["results"]:
        assert (one["networks"], one["mismatches"], len(one["timings"])) == (3, 0, 2)
        assert f"| {one['base']} | 3 |" in ended.stdout
    assert ended.returncode == ("NOT MET" in ended.stdout)
    assert ("requirement met" in ended.stdout) == (ended.returncode == 0)
    assert "pass 2 of 2: fvcore on 3 of 3" in ended.stderr


@pytest.mark.parametrize(
    ("seconds", "mismatches", "said"),
    [
        (1.0, 0, []),
        (0.999, 0, ["NOT MET: b0: the closed form is 999 times as fast as fvcore, not 1,000"]),
        (1.0, 2, ["NOT MET: b0: 2 of 200 networks are counted differently"]),
    ],
)
def test_what_misses_the_requirement_is_named(
    counting: ModuleType, seconds: float, mismatches: int, said: list[str]
) -> None:
    # the sum of building (0.25 s) and tracing counts, over a closed form of a thousandth of a second
    timing = counting.Timing(closed_form=2**-10, build=0.25, trace=seconds * 1000 / 1024 - 0.25)
    result = counting.Result(base="b0", networks=200, mismatches=mismatches, timings=(timing,))
    assert list(counting.shortfalls(result)) == said


def test_the_networks_are_distinct_around_both_budgets_and_the_same_every_time(counting: ModuleType) -> None:
    networks = counting.candidates("b0", 50)
    assert networks == counting.candidates("b0", 50)
    assert len(set(networks)) == 50
    base = counting.count(counting.find_base("b0").network).macs
    growths = [counting.count(network).macs / base for network in networks]
    assert all(min(abs(growth / 2 - 1), abs(growth / 4 - 1)) <= 0.03 for growth in growths)
    assert 20 <= sum(growth > 3 for growth in growths) <= 30


def test_the_readme_quotes_the_recorded_run(counting: ModuleType) -> None:
    recorded = json.loads((SCRIPT.parent / "results" / "counting.json").read_text(encoding="utf-8"))
    results = [
        counting.Result(**{**one, "timings": tuple(counting.Timing(**timing) for timing in one["timings"])})
        for one in recorded.pop("results")
    ]
    assert [(one.base, one.networks) for one in results] == [("b0", 200), ("resnet50", 200)]
    assert not [fault for one in results for fault in counting.shortfalls(one)]
    assert counting.table(results, recorded) in (SCRIPT.parent / "README.md").read_text(encoding="utf-8")
