"""The documents keep up with the program: commands in them parse, studies in them resolve to what was recorded."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer
import yaml

from scalesearch.cli.commands import app
from scalesearch.plan import Plan
from scalesearch.request import read_request, resolve

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "cli.py", "studies/efficientnet-b0-quick/README.md")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WRITTEN = r"(?:scalesearch|python cli\.py) ((?:[a-z]+)(?: [^\n`#|·]*)?)"
STUDY = ROOT / "studies" / "efficientnet-b0-quick"


def written_commands() -> list[tuple[str, str]]:
    """Every `scalesearch ...` of the documents, with the document it stands in."""
    found = []
    for name in DOCUMENTS:
        text = re.sub(r"\s*\\\n\s*", " ", (ROOT / name).read_text(encoding="utf-8"))  # lines that go on are one
        found += [(name, line) for line in re.findall(WRITTEN, text)]
    return [(name, line.strip()) for name, line in found if line.split()[0] in COMMANDS]


def test_the_readme_shows_every_command() -> None:
    shown = {line.split()[0] for name, line in written_commands() if name == "README.md"}
    assert shown == set(COMMANDS)


@pytest.mark.parametrize(("document", "line"), written_commands())
def test_a_written_command_has_only_options_that_exist(document: str, line: str) -> None:
    verb, *words = shlex.split(line.split("  ")[0])
    known = {option for parameter in COMMANDS[verb].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known | {"--help"}, document


def test_the_recorded_quick_study_is_of_the_plan_that_its_file_resolves_to() -> None:
    recorded = yaml.safe_load((STUDY / "results" / "plan.yaml").read_text(encoding="utf-8"))
    plan, _ = resolve(read_request(STUDY / "study.yaml"))
    assert plan == replace(Plan.from_dict(recorded), pace=None)  # measured by the run


def test_the_readme_of_the_quick_study_quotes_its_recorded_ranking() -> None:
    ranking = json.loads((STUDY / "results" / "ranking.json").read_text(encoding="utf-8"))
    text = (STUDY / "README.md").read_text(encoding="utf-8")
    assert ranking["verdict"] in " ".join(text.split())
    for sentence in ranking["findings"]:
        assert sentence in " ".join(text.replace("> - ", "").split())
    for row in (row for row in ranking["candidates"] if row["seeds"]):
        assert f"| {row['id']} | {row['rank']} | {row['estimate']:.2f} | {row['low']:.2f} – {row['high']:.2f} |" in text
