"""The house rules of docs/design.md, section 2, read from the source: floors, doors, circles, sizes, names.

The tables are the law in a form that runs; a new module or a new library is a new row in them.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "scalesearch"

# A module imports from its own floor or from lower ones. The longest name that fits a module counts.
FLOORS = {
    "errors": 1,
    "files": 1,
    "storage": 1,
    "stopping": 1,
    "declared": 1,
    "yamlfile": 1,
    "jsonfile": 1,
    "typed": 1,
    "spec": 2,
    "recipe": 2,
    "kernels": 2,  # know tensors alone
    "dataset": 2,  # what proxy.data opens and a plan describes
    "scaling": 3,
    "levelling": 3,
    "depths": 3,
    "cost": 3,
    "presets": 3,
    "blueprint": 3,
    "proxy": 3,
    "nets": 3,
    "nets.blocks": 3,
    "nets.network": 4,
    "nets.measure": 4,
    "nets.builder": 4,
    "nets.fused": 4,
    "nets.lean": 4,
    "nets.stacked": 4,
    "nets.architecture": 4,
    "nets.library_names": 4,
    "nets.naming": 4,
    "families": 4,
    "basefile": 4,
    "space": 4,
    "candidates": 4,
    "proxy_base": 4,
    "scalable": 4,
    "staged": 4,
    "builder": 4,
    "builder_base": 4,
    "bases": 4,
    "limits": 4,
    "plan": 5,
    "pace": 5,
    "request": 5,
    "trials": 5,
    "members": 5,
    "engine": 5,
    "samples": 6,
    "means": 6,
    "tukey": 6,
    "basis": 6,
    "surface": 6,
    "optimum": 6,
    "ranking": 6,
    "verdict": 6,
    "policies": 6,
    "travel": 6,
    "terrain": 6,
    "agenda": 6,
    "fidelity": 6,
    "outcome": 6,
    "findings": 6,
    "journal": 6,
    "story": 6,
    "decision": 6,
    "study": 6,
    "mirror": 6,
    "prepared": 6,
    "runfiles": 6,
    "runfolder": 6,
    "engines": 6,
    "search": 6,
    "emit": 7,
    "documents": 7,
    "tables": 7,
    "direct": 7,
    "stored": 7,
    "repair": 7,
    "report": 7,
    "boards": 7,
    "run": 7,
    "cli": 8,
    "__main__": 8,
    "": 8,  # scalesearch/__init__.py: its own children do not import from it
}

# Each library outside the standard one, and the only modules that may import it, even inside a function. An import
# under TYPE_CHECKING loads nothing and needs no door.
DOORS = {
    "torch": ("nets", "proxy", "emit", "engine", "kernels"),
    "tensorboard": ("boards",),
    "triton": ("kernels",),
    "torchvision": ("proxy.data",),
    "fvcore": ("nets.measure",),
    "safetensors": ("proxy.checkpoint", "emit"),
    "optuna": ("study",),
    "filelock": ("runfolder", "prepared"),
    "pandas": ("tables",),
    "scipy": ("means", "surface", "tukey"),
    "numpy": (
        *("means", "tukey", "basis", "surface", "optimum", "ranking", "policies", "fidelity"),
        *(
            "nets.builder",
            "engine.probe",
            "engine.cluster",
            "dataset.archives",
            "proxy.data",
            "proxy.images",
            "proxy.scan",
        ),
        *("proxy.choice", "proxy.pixels", "proxy.decoding"),
    ),
    "PIL": ("dataset.faults", "dataset.folders", "proxy.data", "proxy.pixels", "proxy.decoding"),
    "fsspec": ("engine.afar",),
    "ray": ("engine.cluster", "engine.seats", "engine.head", "engine.connecting"),
    "pydantic": ("request",),
    "yaml": ("yamlfile", "emit", "runfolder", "report.page", "report.again"),
    "jinja2": ("report.page",),
    "markupsafe": ("report.page",),
    "plotly": ("report.page",),
    "typer": ("cli",),
    "rich": ("cli",),
}

# What importing a module may load of the heavy libraries; every module outside torch's door is tried, and one that
# no row holds loads none (the longest row counts). The rest is imported inside functions.
HEAVY = ("torch", "torchvision", "fvcore", "optuna", "pandas", "scipy", "numpy", "PIL", "typer", "rich")
LOADS = {
    "means": ("numpy",),
    "tukey": ("numpy",),
    "basis": ("numpy",),
    "surface": ("numpy",),
    "optimum": ("numpy",),
    "ranking": ("numpy",),
    "verdict": ("numpy",),
    "policies": ("numpy",),
    "agenda": ("numpy",),
    "fidelity": ("numpy",),
    "outcome": ("numpy",),
    "findings": ("numpy",),
    "terrain": ("numpy",),
    "search": ("numpy",),
    "engines": ("numpy",),
    "study": ("optuna", "pandas", "numpy"),
    "stored": ("numpy",),
    "repair": ("optuna", "pandas", "numpy"),
    "report": ("numpy",),
    "tables": ("pandas", "numpy"),
    "prepared": ("numpy", "PIL"),
    "cli": ("typer",),
    "cli.progress": ("typer", "rich"),
    "__main__": ("typer",),
    "run": HEAVY,  # the job itself; the command line imports it inside a function
}

# Distributions whose name is not that of their module, and what comes with another one.
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "triton": "torch", "markupsafe": "jinja2"}

REFUSED_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "base", "misc"}
LONGEST_FILE = 320
LONGEST_FUNCTION = 60


class Import(NamedTuple):
    module: str
    """Dotted name; `from a import b` gives `a.b`, which may be a module or a name in one."""
    line: int


def imports(source: str, *, typing: bool = True) -> Iterator[Import]:
    """Every import of a source, also inside functions and, with `typing`, under TYPE_CHECKING."""
    tree = ast.parse(source)
    skipped = [] if typing else [node for node in ast.walk(tree) if is_typing_only(node)]
    unseen = {inner for node in skipped for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from (Import(f"{prefix}.{alias.name}", node.lineno) for alias in node.names)


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def dotted(path: Path) -> str:
    """`nets.blocks` for scalesearch/nets/blocks.py, `nets` for its package, the empty name for scalesearch itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def inside(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def row_of(name: str, table: Iterable[str]) -> str | None:
    """The longest name in a table that is the module or a package around it; None where there is none."""
    rows = [row for row in table if name == row or (row and name.startswith(f"{row}."))]
    return max(rows, key=len, default=None)


def floor(name: str) -> int | None:
    row = row_of(name, FLOORS)
    return None if row is None else FLOORS[row]


def target(imported: str) -> str:
    """The module of the package that an import reaches; `cost.count` is in `cost`."""
    name = imported.removeprefix("scalesearch").removeprefix(".")
    while name and name not in FILES:
        name = name.rpartition(".")[0]
    return name


def house(name: str) -> list[tuple[str, int]]:
    """(module, line) of every import inside the package."""
    found = (one for one in imports(FILES[name].read_text()) if one.module.split(".")[0] == "scalesearch")
    return [(target(one.module), one.line) for one in found]


def upward(name: str, reached: str) -> bool:
    above, own = floor(reached), floor(name)
    return above is None or own is None or above > own


def foreign(source: str) -> list[tuple[str, int]]:
    """(library, line) of every import from outside the package and the standard library."""
    roots = ((one.module.split(".")[0], one.line) for one in imports(source, typing=False))
    return [(root, line) for root, line in roots if root != "scalesearch" and root not in sys.stdlib_module_names]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


# ---- the walk itself sees what it must


def test_the_walk_sees_imports_in_functions_and_under_type_checking():
    source = "import a.b\ndef f():\n    from c import d\nif TYPE_CHECKING:\n    from .e import g\n"
    assert sorted(imports(source)) == [Import(".e.g", 5), Import("a.b", 1), Import("c.d", 3)]
    assert sorted(imports(source, typing=False)) == [Import("a.b", 1), Import("c.d", 3)]


def test_the_walk_finds_the_modules_that_the_house_began_with():
    assert set(FILES) >= {"", "errors", "spec", "scaling", "levelling", "cost", "families", "nets.blocks"}
    assert target("scalesearch.cost.count") == "cost"
    assert target("scalesearch.nets.blocks") == "nets.blocks"
    assert target("scalesearch.families.FAMILIES") == "families"


def test_an_upward_import_is_one_to_a_higher_or_unknown_floor():
    assert upward("cost", "families")
    assert upward("spec", "utils")
    assert upward("nets.blocks", "nets.network")
    assert not upward("families", "cost")
    assert not upward("nets.measure", "nets.network")
    assert not upward("space", "families")


def test_a_library_without_a_door_is_foreign():
    assert foreign("import os\nimport torch.nn\nfrom scalesearch import cost\nfrom yaml import load") == [
        ("torch", 2),
        ("yaml", 4),
    ]


# ---- floors and doors


@pytest.mark.parametrize("name", FILES)
def test_every_module_has_a_floor(name: str):
    assert floor(name) is not None, f"scalesearch/{name}: not in FLOORS; give it a row here and in docs/design.md"


def test_the_design_names_every_module():
    layout = (ROOT / "docs" / "design.md").read_text().partition("\n## 2.")[2].partition("\n## 3.")[0]
    listed = set(re.findall(r"\w+\.py\b", layout))
    own = {path.name for name, path in FILES.items() if not (inside(name, ("families",)) or path.stem.startswith("__"))}
    assert own - listed == set()


@pytest.mark.parametrize("name", FILES)
def test_no_module_imports_upward(name: str):
    faults = [f"line {line}: {reached or '__init__'}" for reached, line in house(name) if upward(name, reached)]
    assert not faults, f"scalesearch.{name} (floor {floor(name)}) imports from above: {faults}"


def test_no_module_takes_part_in_a_circle():
    left = {name: {reached for reached, _ in house(name)} for name in FILES}
    while free := {name for name, reached in left.items() if not reached & set(left)}:
        left = {name: reached for name, reached in left.items() if name not in free}
    assert not left, f"circles among {sorted(left)}"


@pytest.mark.parametrize("name", FILES)
def test_each_library_comes_in_by_its_door(name: str):
    faults = [f"line {n}: {lib}" for lib, n in foreign(FILES[name].read_text()) if not inside(name, DOORS.get(lib, ()))]
    assert not faults, f"scalesearch.{name} imports past the doors: {faults}"


def test_each_imported_library_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = [*project["dependencies"], *(row for extra in project["optional-dependencies"].values() for row in extra)]
    declared = {row.split(">")[0].split("[")[0].strip().lower() for row in rows}
    used = {library for path in FILES.values() for library, _ in foreign(path.read_text())}
    assert {DISTRIBUTIONS.get(library, library).lower() for library in used} <= declared


def test_no_import_is_relative():
    assert [
        name for name, path in FILES.items() if any(one.module[0] == "." for one in imports(path.read_text()))
    ] == []


# ---- what an import loads


def loaded(*modules: str) -> dict[str, set[str]]:
    """By module, in their order, the heavy libraries that one fresh interpreter holds after importing it too."""
    code = (
        "import importlib, json, sys\n"
        "def held(module):\n"
        "    importlib.import_module(module)\n"
        f"    return [name for name in {HEAVY!r} if name in sys.modules]\n"
        f"print(json.dumps({{module: held(module) for module in {modules!r}}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    return {module: set(found) for module, found in json.loads(done.stdout).items()}


def test_a_heavy_library_is_seen_when_it_is_loaded():
    found = loaded("json", "numpy")
    assert found["json"] == set()
    assert "numpy" in found["numpy"]


def allowed(name: str) -> tuple[str, ...]:
    """The heavy libraries that importing a module may load."""
    row = row_of(name, LOADS)
    return LOADS[row] if row else ()


LIGHT = [name for name in FILES if not inside(name, DOORS["torch"])]
ALLOWED = {" ".join(allowed(name)) or "none": allowed(name) for name in LIGHT if allowed(name) != HEAVY}


@pytest.mark.parametrize("libraries", ALLOWED.values(), ids=list(ALLOWED))
def test_importing_a_module_loads_no_more_than_its_row_says(libraries: tuple[str, ...]):
    """Modules of equal rows share an interpreter: what all of them hold together, none of them exceeds alone."""
    names = [name for name in LIGHT if allowed(name) == libraries]
    found = loaded(*(f"scalesearch.{name}".rstrip(".") for name in names))
    assert {name: held - set(libraries) for name, held in found.items() if held - set(libraries)} == {}


# ---- names, sizes, manners


def test_no_file_or_folder_has_a_name_that_says_nothing():
    names = {part for path in PACKAGE.rglob("*") for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not names & REFUSED_NAMES


@pytest.mark.parametrize("path", [*FILES.values(), *sorted(PACKAGE.rglob("*.js"))], ids=lambda path: path.name)
def test_no_file_is_longer_than_a_reader_holds(path: Path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("name", FILES)
def test_no_function_is_longer_than_a_screen(name: str):
    lengths = {one.name: one.end_lineno - one.lineno + 1 for one in functions(TREES[name]) if one.end_lineno}
    assert {one: length for one, length in lengths.items() if length > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize("name", FILES)
def test_everything_public_says_what_it_is(name: str):
    tree = TREES[name]
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []
    assert ast.get_docstring(tree), f"scalesearch.{name} has no docstring"


@pytest.mark.parametrize("name", [name for name in FILES if not inside(name, ("cli",))])
def test_the_library_never_prints_and_never_exits(name: str):
    calls = [ast.unparse(node.func) for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
    assert [call for call in calls if call in ("print", "sys.exit", "exit", "quit")] == []
