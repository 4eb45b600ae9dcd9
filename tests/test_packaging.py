"""The wheel holds the package, its data and its licence, and puts nothing else into site-packages."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_is_pure_python(wheel: Path):
    assert wheel.name.endswith("-py3-none-any.whl")


def test_only_the_package_and_its_metadata_land_in_site_packages(names: set[str]):
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"scalesearch"}
    assert len(tops) == 2
    assert "cli.py" not in names


def test_every_module_and_the_type_marker_are_inside(names: set[str]):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "scalesearch").rglob("*.py")}
    assert len(modules) > 10
    assert modules <= names
    assert "scalesearch/py.typed" in names


def test_package_data_is_inside_byte_for_byte(wheel: Path, names: set[str]):
    data = [path for path in (ROOT / "scalesearch" / "data").rglob("*") if path.is_file()]
    with zipfile.ZipFile(wheel) as archive:
        for path in data:
            assert archive.read(path.relative_to(ROOT).as_posix()) == path.read_bytes()
    assert not [name for name in names if "__pycache__" in name]


def test_the_licence_and_the_entry_point_are_in_the_metadata(wheel: Path, names: set[str]):
    (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
    with zipfile.ZipFile(wheel) as archive:
        licence = archive.read(f"{info}/licenses/LICENSE").decode()
        metadata = archive.read(f"{info}/METADATA").decode()
        entries = archive.read(f"{info}/entry_points.txt").decode()
    assert licence == (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "License-Expression: Apache-2.0" in metadata
    assert "scalesearch = scalesearch.cli:main" in entries
