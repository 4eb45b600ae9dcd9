"""Which parameters and FLOPs of the EfficientNet paper's tables follow from the networks it describes?

Command:

    python studies/paper-tables/rebuild.py

Reads what the paper prints from printed.yaml, scales each base by the paper's rounding, counts it in closed form and
writes results/tables.csv (every digit) and results/tables.md (for people) beside this file. Takes a second.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from scalesearch.cost import count
from scalesearch.families import find_base
from scalesearch.scaling import Multipliers, scale

HERE = Path(__file__).parent

# The rule of `reproduces`, fixed before the comparison: parameters round to the printed digits, and MACs lie within
# this share of the printed FLOPs.
TOLERANCE = 0.05
TOLERANCE_IN_TABLE_3 = {"mobilenet_v1": 0.10, "mobilenet_v2": 0.10}
"""By base: their FLOPs are printed to one digit or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """A row of the paper, or another reading of it."""

    name: str
    base: str
    depth: float = 1.0
    width: float = 1.0
    resolution: float = 1.0
    side: int | None = None
    """Input side where it is printed [px]; otherwise `resolution` times the base's, to the nearest pixel."""
    head: str | None = None
    """How the head's channels follow, where not as the family's do."""
    assumed: bool = False
    """The paper prints no coefficients."""
    params: str | None = None
    """Parameters, as printed [millions]."""
    macs: str | None = None
    """FLOPs, as printed [billions]."""
    top1: str | None = None
    """Accuracy, as printed [%]."""
    why: str = ""
    """Why the row does not reproduce, as far as known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """A row with the network that was rebuilt for it."""

    table: str
    printed: Printed
    reading: str
    """What was read otherwise; empty for the row itself."""
    side: int
    """Input side of the network [px]."""
    params: int
    macs: int

    @property
    def difference(self) -> float | None:
        """Rebuilt over printed MACs, less one; None where nothing is printed."""
        return self.macs / 1e9 / float(self.printed.macs) - 1 if self.printed.macs else None

    @property
    def verdict(self) -> str:
        """`reproduces` by the rule above, or what differs by how much."""
        row, faults = self.printed, []
        if row.params is None and self.difference is None:
            return "not printed"
        if row.params is not None and to_digits_of(row.params, self.params / 1e6) != row.params:
            faults.append(f"parameters differ by {percent(self.params / 1e6 / float(row.params) - 1)}")
        allowed = TOLERANCE_IN_TABLE_3.get(row.base, TOLERANCE) if self.table == "Table 3" else TOLERANCE
        if self.difference is not None and abs(self.difference) > allowed:
            faults.append(f"MACs differ by {percent(self.difference)}")
        return "; ".join(faults) or "reproduces"


def to_digits_of(printed: str, value: float) -> str:
    """A value rounded to as many decimals as a printed number has."""
    return f"{value:.{len(printed.partition('.')[2])}f}"


def percent(share: float) -> str:
    """A signed share of one as text."""
    return f"{100 * share:+.1f} %".replace("-", "−")


def rebuild(table: str, row: Printed, reading: str = "") -> Rebuilt:
    """Scale the row's base by the paper's rounding and count it."""
    base = find_base(row.base)
    rounding = replace(base.family.rounding, head=row.head) if row.head else base.family.rounding
    resolution = row.side / base.network.resolution if row.side else row.resolution
    multipliers = Multipliers(depth=row.depth, width=row.width, resolution=resolution)
    network = scale(base.network, multipliers, rounding)
    cost = count(network)
    return Rebuilt(
        table=table, printed=row, reading=reading, side=network.resolution, params=cost.params, macs=cost.macs
    )


def rebuild_table(table: dict[str, Any]) -> Iterator[Rebuilt]:
    """Every row of a table, each followed by its other readings."""
    for values in table["rows"]:
        readings = values.pop("readings", [])
        row = Printed(**values)
        yield rebuild(table["name"], row)
        for changes in readings:
            reading = changes.pop("text")
            resized = {"side": None} if "resolution" in changes else {}
            yield rebuild(table["name"], replace(row, **resized, **changes, params=None, why=""), reading)


def cells(one: Rebuilt) -> dict[str, object]:
    """A row of tables.csv."""
    row = asdict(one.printed)
    named = {"table": one.table, "row": row["name"], "reading": one.reading, "base": row["base"]}
    coefficients = {key: row[key] for key in ("depth", "width")} | {"side": one.side, "assumed": row["assumed"]}
    return {
        **named,
        **coefficients,
        "params_printed_millions": row["params"],
        "params": one.params,
        "macs_printed_billions": row["macs"],
        "macs": one.macs,
        "macs_difference": "" if one.difference is None else f"{one.difference:.4f}",
        "verdict": one.verdict,
        "why": row["why"],
        "top1_printed": row["top1"],
    }


def line(*values: object) -> str:
    """A line of a Markdown table; nothing is a dash."""
    return f"| {' | '.join('–' if value is None else str(value) for value in values)} |"


def measures(one: Rebuilt) -> tuple[object, ...]:
    """The cells that rows and readings share: coefficients, then MACs printed, rebuilt and their difference."""
    row, difference = one.printed, one.difference
    marked = " *" if row.assumed else ""
    coefficients = (f"{row.depth:g}{marked}", f"{row.width:g}{marked}", f"{one.side}{marked}")
    return *coefficients, row.macs, f"{one.macs / 1e9:.3f}", None if difference is None else percent(difference)


def markdown(table: dict[str, Any], rebuilt: list[Rebuilt]) -> Iterator[str]:
    """A table for people: rows, reasons, other readings."""
    yield f"### {table['name']}: {table['title']}\n"
    yield f"Source of what is printed: {table['source']}.\n"
    yield line("row", "d", "w", "px", "MACs [G] printed", "rebuilt", "difference", "params [M] printed", "rebuilt",
               "verdict", "top-1 [%], the paper's")  # fmt: skip
    yield "|---" * 11 + "|"
    rows = [one for one in rebuilt if not one.reading]
    for one in rows:
        row = one.printed
        yield line(row.name, *measures(one), row.params, f"{one.params / 1e6:.2f}", one.verdict, row.top1)
    if any(one.printed.assumed for one in rows):
        yield "\n\\* assumed; the paper prints no coefficients for this row."
    reasons = [f"- {one.printed.name}: {one.verdict}. Why: {one.printed.why}" for one in rows if one.printed.why]
    if reasons:
        yield "\n" + "\n".join(reasons)
    others = [one for one in rebuilt if one.reading]
    if others:
        yield "\nOther readings of these rows:\n"
        yield line("row", "reading", "d", "w", "px", "MACs [G] printed", "rebuilt", "difference")
        yield "|---" * 8 + "|"
        yield from (line(one.printed.name, one.reading, *measures(one)) for one in others)


def write(folder: Path) -> None:
    """Write tables.csv and tables.md into a folder."""
    tables = yaml.safe_load((HERE / "printed.yaml").read_text(encoding="utf-8"))["tables"]
    rebuilt = {table["name"]: list(rebuild_table(table)) for table in tables}
    rows = [cells(one) for table in rebuilt.values() for one in table]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tables.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = "\n\n".join("\n".join(markdown(table, rebuilt[table["name"]])) for table in tables)
    (folder / "tables.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder to write to")
    write(parser.parse_args().out)
