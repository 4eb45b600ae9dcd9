"""The program as a process: one document on stdout, nothing heavy where nothing is trained, exit codes."""

import json
import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

HEAVY = ("torch", "torchvision", "fvcore", "optuna", "sqlalchemy", "pandas", "scipy", "numpy", "PIL")


def ran(*arguments: str, cwd: Path, **given: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "error", **given}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=environment)


def heavy_after(*arguments: str, cwd: Path) -> set[str]:
    """The heavy libraries that a command has loaded when it ends, in a fresh interpreter."""
    code = (
        "import sys\nfrom scalesearch.cli import main\n"
        f"try:\n    main({list(arguments)!r})\n"
        f"except SystemExit as end:\n    assert end.code == 0, end.code\n"
        f"print('loaded:', *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)"
    )
    done = ran("-c", code, cwd=cwd)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("loaded:")]
    return set(line.split()[1:])


def test_a_plan_is_one_document_on_stdout_and_exit_code_0(tmp_path: Path):
    done = ran("-m", "scalesearch", "plan", "--base", "b0", "--budget", "2x", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["nominal_points"] == 108


def test_an_output_without_greek_letters_has_question_marks(tmp_path: Path):
    done = ran("-m", "scalesearch", "plan", "--candidates", "4", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the paper's rule for B0 is ? 1.2 ? 1.1 ? 1.15" in done.stdout


def test_a_current_folder_that_is_gone_is_named(tmp_path: Path):
    (tmp_path / "gone").mkdir()
    script = f'cd gone; rmdir ../gone; exec "{sys.executable}" -m scalesearch scale --base b0'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "scalesearch: the current folder is gone; cd to one that exists\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("scale", "--base", "b0", "--json"), 1),
        (("scale", "--base", "b0"), 1),
        (("plan", "--json"), 1),
        (("--help",), 1),
        (("status", "nothing", "--json"), 2),
    ],
)
def test_an_output_that_finds_no_room_is_a_line_on_stderr(arguments: tuple[str, ...], code: int, tmp_path: Path):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "scalesearch", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert done.returncode == code
    [line] = done.stderr.splitlines()
    assert line.startswith("scalesearch: ")
    assert "; " in line
    assert ("the output cannot be written: No space left on device" in line) == (code == 1)


def test_a_family_beyond_the_largest_file_allowed_is_one_line_and_leaves_no_half(tmp_path: Path):
    command = [sys.executable, "-m", "scalesearch", "emit", "--base", "b0", "--published", "--out", "family"]
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, preexec_fn=limit)
    assert done.returncode == 2, done.stderr
    fault = "family/B0/network.py cannot be written: File too large"
    assert done.stderr == f"scalesearch: {fault}; make room on its disk, or lift its limit\n"
    assert [path.name for path in (tmp_path / "family").rglob("*") if path.is_file()] == ["config.yaml"]  # a whole one


@pytest.mark.parametrize("errors", [subprocess.PIPE, subprocess.STDOUT], ids=["alone", "with its errors"])
@pytest.mark.parametrize(
    "arguments",
    [("plan",), ("plan", "--json"), ("--help",), ("scale", "--base", "b0"), ("status", "nothing", "--json")],
)
def test_an_output_that_nobody_reads_ends_in_silence(arguments: tuple[str, ...], errors: int, tmp_path: Path):
    command = [sys.executable, "-m", "scalesearch", *arguments]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=errors, text=True, cwd=tmp_path, check=False)
    os.close(writer)
    is_refused = "nothing" in arguments
    assert done.returncode == (2 if is_refused else 141)
    assert (done.stderr or "").count("\n") == (is_refused and errors == subprocess.PIPE)


def test_an_error_is_one_line_on_stderr_and_exit_code_2(tmp_path: Path):
    done = ran("-m", "scalesearch", "plan", "--budget", "1x", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["kind"] == "SpaceError"
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("plan", "--json"), ("plan",), ("--help",), ("run", "--help"), ("scale", "--base", "b0", "--json")],
    ids=" ".join,
)
def test_what_trains_nothing_loads_no_torch_pandas_or_scipy(arguments: tuple[str, ...], tmp_path: Path):
    assert heavy_after(*arguments, cwd=tmp_path) & {"torch", "pandas", "scipy", "optuna"} == set()


def test_measuring_loads_torch():
    # the counterpart: the probe above sees what is loaded
    assert {"torch", "fvcore"} <= heavy_after("scale", "--base", "b0", "--measure", cwd=Path.cwd())


def modules_after(code: str, cwd: Path) -> int:
    """How many modules a fresh interpreter holds when it ends."""
    told = "import atexit, sys; atexit.register(lambda: print('modules:', len(sys.modules), file=sys.stderr))\n"
    done = ran("-c", told + code, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.rpartition("modules:")[2])


def test_a_plan_imports_at_most_a_third_of_what_torch_does(tmp_path: Path):
    plan = "from scalesearch.cli import main\nmain(['plan', '--base', 'b0', '--budget', '2x', '--json'])"
    assert modules_after(plan, tmp_path) <= modules_after("import torch", tmp_path) / 3


def test_python_looks_for_no_garbage_when_the_program_has_ended():
    # among the objects of torch and its like that takes seconds, behind the last line of a program
    code = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count()))
from scalesearch.cli import main
main(["--version"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) > 1000
