"""The documentation site: it builds without a warning and without the web, and every command that it shows works."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import typer
import yaml
from calling import Call
from PIL import Image

import scalesearch
from scalesearch.cli.commands import app

ROOT = Path(__file__).parents[1]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
FENCE = re.compile(r"^```(?P<kind>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(rf"`(scalesearch (?:{'|'.join(COMMANDS)}) [^`…\n]+)`")
SAID = {"PATH": "photos", "FILE.npz": "mine.npz", "RUN": "runs/first", "runs/.../": "runs/first/"}
"""What stands in a page for a place of the reader's, and the place of ours."""
QUICK = (
    "--preset quick --policy grid --candidates 2 --seeds 1 --epochs 1 --images 256 --threads 1 --together 1"
    " --proxy-resolution 8"
)
SMALL = "--budget 0.5x"
OWN = "--candidates 5 --proxy-resolution 20"
"""For networks whose single dimensions miss the budget."""
LIGHT, LIGHTER = ("--max-params 21M --max-activations 30M", "--max-params 7M")
"""Members up to B3, whatever the rule, and up to B1 or B2."""


class Block(NamedTuple):
    """What a page shows to be written, run or typed."""

    page: str
    kind: str
    """`` (a terminal), `python`, or what is not run."""
    title: str | None
    """Name of the file that it is the content of."""
    text: str


def pages() -> list[str]:
    """In the order of the site, the README last."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    names = [name for entry in settings["nav"] for value in entry.values() for name in _flat(value)]
    return [*(f"docs/{name}" for name in names if (ROOT / "docs" / name).is_file()), "README.md"]


def _flat(value: str | list[dict[str, str]]) -> list[str]:
    return [value] if isinstance(value, str) else [name for entry in value for name in entry.values()]


def blocks() -> Iterator[Block]:
    """Those of every page, the commands in its sentences and tables behind them."""
    for page in pages():
        text = (ROOT / page).read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            yield Block(page, found["kind"], found["title"], found["text"])
        yield from (Block(page, "", None, line) for line in INLINE.findall(FENCE.sub("", text)))


def commands(block: Block) -> list[str]:
    """The lines of a terminal that call the program, without comments."""
    lines = (line.partition("  #")[0].strip() for line in block.text.splitlines())
    return [line for line in lines if line.startswith("scalesearch ")]


def with_places(text: str) -> str:
    for said, meant in SAID.items():
        text = re.sub(rf"(?<![\w-]){re.escape(said)}(?![\w-])" if said[-1] != "/" else re.escape(said), meant, text)
    return text


def in_seconds(command: str) -> list[str]:
    """The words of a command, with options at its end that make it short: later ones win."""
    words = [word for word in shlex.split(with_places(command))[1:] if word != "--open"]  # no browser
    if words[0] == "run":
        words += [] if {"--out", "--data"} & set(words) or "b0" not in words else ["--out", "runs/first"]
        words += QUICK.split() + (LIGHT if "runs/first" in words else SMALL).split()
        words += ["--data", "photos"] if "--confirm" in words else []  # which have a small test part
        words += OWN.split() if "my_net.yaml" in words or "mynets:build" in words else []
        words += ["--data", "mine.npz"] if "--download" in words else []  # tests do without the web
    return [*words, *LIGHTER.split()] if words[0] == "emit" else words


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the photos that the pages speak of; on one core, so that a run starts one worker."""
    noise = np.random.default_rng(0)
    for part, count in {"train": 140, "val": 12, "test": 12}.items():
        for name in ("cats", "dogs"):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = noise.integers(0, 256, (12, 12, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / part / name / f"{index}.png")
    monkeypatch.syspath_prepend(tmp_path)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield tmp_path
    os.sched_setaffinity(0, cores)
    sys.modules.pop("mynets", None)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's choice of cores")
def test_every_command_and_every_example_of_the_pages_works_as_written(call: Call, place: Path) -> None:
    failed: list[tuple[str, str, str]] = []
    done: list[list[str]] = []
    for block in blocks():
        if block.title:
            (place / block.title).write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            exec(compile(with_places(block.text), block.page, "exec"), {})
        for command in commands(block) if not block.kind else ():
            words = in_seconds(command)
            told = call(*words) if words not in done else None
            done.append(words)
            if told and told.code:
                failed.append((block.page, command, told.err))
    assert failed == []


def test_commands_that_need_a_cluster_or_a_server_are_shell_that_parses_with_options_that_exist() -> None:
    shown: list[str] = []
    for block in blocks():
        if block.kind == "sh":
            checked = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
            assert checked.stderr == ""
            lines = re.sub(r"(?m)(^|\s)#.*$", "", block.text.replace("\\\n", " "))
            for name, options in re.findall(r"\bscalesearch (\w+) (.*)", lines):
                COMMANDS[name].make_context(name, shlex.split(options))
                shown.append(name)
    assert shown.count("run") >= 8


def test_the_pages_and_the_readme_show_every_command() -> None:
    shown = [shlex.split(line)[1] for block in blocks() if not block.kind for line in commands(block)]
    assert set(shown) == set(COMMANDS)


# ---- the site as it is built


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does it, where no request can leave the machine."""
    place = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", place],
        cwd=ROOT,
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return place


def test_no_page_of_the_site_asks_the_web_for_anything(site: Path) -> None:
    asked = re.compile(r"<(?:script|img|iframe)[^>]+src=\"?https?:[^>]+>|<link[^>]+href=\"?https?:[^>]+>|@import[^;]+;")
    texts = [path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))]
    assert len(texts) >= len(pages())
    assert [found for text in texts for found in asked.findall(text)] == []


def test_the_reference_of_commands_has_every_command_and_option(site: Path) -> None:
    text = (site / "commands.html").read_text(encoding="utf-8")
    parameters = [parameter for one in COMMANDS.values() for parameter in one.params]
    options = {option for one in parameters for option in one.opts if option.startswith("-")}
    assert {name for name in COMMANDS if f'id="{name}"' not in text} == set()
    assert {option for option in options if f"<code>{option}</code>" not in text} == set()


def test_the_reference_of_python_has_every_public_name_of_the_package(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    public = {name for name, value in vars(scalesearch).items() if getattr(value, "__module__", "") == "scalesearch"}
    assert public
    assert {name for name in public if f'id="scalesearch.{name}"' not in text} == set()
