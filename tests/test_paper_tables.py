"""The study of the paper's tables: its files are what its script writes, and say what was found independently."""

import csv
import filecmp
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from scalesearch.families import find_base
from scalesearch.nets.network import assemble

STUDY = Path(__file__).parents[1] / "studies" / "paper-tables"
RESULTS = STUDY / "results"


def rows(reading: str = "") -> dict[tuple[str, str], dict[str, str]]:
    """Rows of tables.csv by table and name; those of one reading."""
    with (RESULTS / "tables.csv").open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["reading"] == reading]
    return {(row["table"], row["row"]): row for row in found}


def gmacs(row: dict[str, str], digits: int) -> str:
    return f"{int(row['macs']) / 1e9:.{digits}f}"


def test_running_the_script_gives_the_committed_files_to_the_byte(tmp_path: Path) -> None:
    subprocess.run([sys.executable, STUDY / "rebuild.py", "--out", tmp_path], check=True, timeout=120)
    names = sorted(path.name for path in RESULTS.iterdir())
    assert names == ["tables.csv", "tables.md"]
    assert filecmp.cmpfiles(RESULTS, tmp_path, names, shallow=False) == (names, [], [])


def test_the_readme_holds_the_tables() -> None:
    assert (RESULTS / "tables.md").read_text(encoding="utf-8") in (STUDY / "README.md").read_text(encoding="utf-8")


# GMACs rebuilt with another counter, one that equals fvcore and pycls to the unit
@pytest.mark.parametrize(
    ("table", "name", "expected"),
    [
        ("Table 2", "B0", "0.386"), ("Table 2", "B1", "0.687"), ("Table 2", "B2", "0.994"), ("Table 2", "B3", "1.827"),
        ("Table 2", "B4", "4.394"), ("Table 2", "B5", "10.27"), ("Table 2", "B6", "19.07"), ("Table 2", "B7", "37.75"),
        ("Table 3", "MobileNetV1", "0.569"), ("Table 3", "MobileNetV1 w=2", "2.216"),
        ("Table 3", "MobileNetV1 r=2", "2.272"), ("Table 3", "MobileNetV1 compound", "2.520"),
        ("Table 3", "MobileNetV2", "0.301"), ("Table 3", "MobileNetV2 d=4", "1.220"),
        ("Table 3", "MobileNetV2 w=2", "1.137"), ("Table 3", "MobileNetV2 r=2", "1.199"),
        ("Table 3", "MobileNetV2 compound", "1.470"), ("Table 3", "ResNet-50", "4.089"),
        ("Table 3", "ResNet-50 d=4", "14.57"), ("Table 3", "ResNet-50 w=2", "16.12"),
        ("Table 3", "ResNet-50 r=2", "16.35"), ("Table 3", "ResNet-50 compound", "16.34"),
        ("Table 7", "B0", "0.386"), ("Table 7", "B0 d=4", "1.575"), ("Table 7", "B0 w=2", "1.450"),
        ("Table 7", "B0 r=2", "1.538"), ("Table 7", "B0 compound", "1.827"),
    ],
)  # fmt: skip
def test_a_row_costs_what_others_rebuilt(table: str, name: str, expected: str) -> None:
    assert gmacs(rows()[table, name], len(expected.partition(".")[2])) == expected


@pytest.mark.parametrize(
    ("reading", "table", "name", "expected"),
    [
        ("at 288 px", "Table 3", "MobileNetV1 compound", "2.243"),
        ("at 1.3 · 224 px, to the nearest pixel", "Table 3", "MobileNetV1 compound", "2.470"),
        ("at 288 px", "Table 3", "MobileNetV2 compound", "1.284"),
        ("with a head of 1280 channels", "Table 3", "MobileNetV2 w=2", "1.096"),
        ("at 304 px", "Table 3", "ResNet-50 compound", "16.433"),
        ("at 1.3 · 224 px, to the nearest pixel", "Table 7", "B0 compound", "1.800"),
        ("d=4.5", "Table 7", "B0 d=4", "1.831"),
        ("w=2.2", "Table 7", "B0 w=2", "1.755"),
        ("cut to a whole pixel", "Figure 3", "r=1.7", "1.125"),
        ("cut to a whole pixel", "Figure 3", "r=2.2", "1.918"),
    ],
)
def test_another_reading_costs_what_others_rebuilt(reading: str, table: str, name: str, expected: str) -> None:
    assert gmacs(rows(reading)[table, name], 3) == expected


def test_the_sweeps_of_figure_3_cost_what_others_rebuilt() -> None:
    found = {name: gmacs(row, 3) for (table, name), row in rows().items() if table == "Figure 3"}
    assert found == {
        "w=1.0": "0.386", "w=1.4": "0.744", "w=1.8": "1.176", "w=2.6": "2.391", "w=3.8": "5.060", "w=5.0": "8.712",
        "d=1.0": "0.386", "d=2.0": "0.782", "d=3.0": "1.179", "d=4.0": "1.575", "d=6.0": "2.368", "d=8.0": "3.161",
        "r=1.0": "0.386", "r=1.3": "0.718", "r=1.5": "0.893", "r=1.7": "1.129", "r=1.9": "1.458", "r=2.2": "1.923",
        "r=2.5": "2.447",
    }  # fmt: skip


def test_what_does_not_reproduce_is_what_others_found_and_the_rest_does() -> None:
    odd = {name: row["verdict"] for name, row in rows().items() if row["verdict"] not in ("reproduces", "not printed")}
    assert odd == {
        ("Table 2", "B2"): "parameters differ by −1.0 %",
        ("Table 3", "MobileNetV2 compound"): "MACs differ by +13.0 %",
        ("Table 3", "ResNet-50 d=4"): "MACs differ by −10.1 %",
        ("Table 3", "ResNet-50 w=2"): "MACs differ by +9.6 %",
        ("Table 7", "B0 d=4"): "MACs differ by −12.5 %",
        ("Table 7", "B0 w=2"): "MACs differ by −19.4 %",
        ("Table 7", "B0 r=2"): "MACs differ by −19.1 %",
    }
    assert all(row["why"] for name, row in rows().items() if name in odd)
    assert {table for (table, _), row in rows().items() if row["verdict"] == "not printed"} == {"Figure 3"}


@pytest.mark.parametrize(("name", "other"), [("ResNet-50 d=4", "ResNet-50 w=2"), ("ResNet-50 w=2", "ResNet-50 d=4")])
def test_the_cells_of_resnet_50_fit_once_they_are_swapped(name: str, other: str) -> None:
    table = rows()
    swapped = float(table["Table 3", other]["macs_printed_billions"])
    assert int(table["Table 3", name]["macs"]) / 1e9 == pytest.approx(swapped, rel=0.01)


def test_only_rows_whose_coefficients_the_paper_does_not_print_are_marked_as_assumed() -> None:
    assumed = {name for name, row in rows().items() if row["assumed"] == "True"}
    assert assumed == {("Table 3", "MobileNetV2 compound"), ("Table 3", "ResNet-50 compound")}


def test_running_statistics_do_not_explain_the_printed_parameters_of_b2() -> None:
    # B2 with them would print as 9.2, but B1 as 7.9 and B7 as 67, not 7.8 and 66
    with_statistics = {}
    for name in ("b1", "b2", "b7"):
        with torch.device("meta"):
            module = assemble(find_base(name).network)
        running = (buffer.numel() for key, buffer in module.named_buffers() if "running" in key)
        with_statistics[name] = sum(weight.numel() for weight in module.parameters()) + sum(running)
    assert {name: round(number / 1e6, 2) for name, number in with_statistics.items()} == {
        "b1": 7.86,
        "b2": 9.18,
        "b7": 66.66,
    }


def test_what_is_printed_is_what_the_paper_prints() -> None:
    # arXiv:1905.11946v5, Tables 2, 3 and 7: FLOPs [billions] and top-1 [%]; parameters [millions] in Table 2 alone
    tables = yaml.safe_load((STUDY / "printed.yaml").read_text(encoding="utf-8"))["tables"]
    found = {
        table["name"]: [(row["macs"], row["top1"]) for row in table["rows"]]
        for table in tables
        if "Table" in table["name"]
    }
    params = [[row.get("params") for row in table["rows"]] for table in tables]
    assert params[0] == ["5.3", "7.8", "9.2", "12", "19", "30", "43", "66", "26", "60"]
    assert not any(value for rest in params[1:] for value in rest)
    assert found == {
        "Table 2": [
            ("0.39", "77.1"), ("0.70", "79.1"), ("1.0", "80.1"), ("1.8", "81.6"), ("4.2", "82.9"), ("9.9", "83.6"),
            ("19", "84.0"), ("37", "84.3"), ("4.1", "76.0"), ("11", "77.8"),
        ],
        "Table 3": [
            ("0.6", "70.6"), ("2.2", "74.2"), ("2.2", "72.7"), ("2.3", "75.6"),
            ("0.3", "72.0"), ("1.2", "76.8"), ("1.1", "76.4"), ("1.2", "74.8"), ("1.3", "77.4"),
            ("4.1", "76.0"), ("16.2", "78.1"), ("14.7", "77.7"), ("16.4", "77.5"), ("16.7", "78.8"),
        ],
        "Table 7": [("0.4", "77.3"), ("1.8", "79.0"), ("1.8", "78.9"), ("1.9", "79.1"), ("1.8", "81.1")],
    }  # fmt: skip
