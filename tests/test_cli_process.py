"""The program as a process: one document on stdout, nothing heavy where nothing is trained, exit codes."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "torchvision", "fvcore", "optuna", "sqlalchemy", "pandas", "scipy", "numpy", "PIL")


def ran(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "error", **variables}
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


def processor_time(*arguments: str, cwd: Path, **variables: str) -> float:
    """Processor time of a process [s]: what a quiet machine's clock would show, on a busy one too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ran(*arguments, cwd=cwd, **variables).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_plan_takes_at_most_a_quarter_of_importing_torch(tmp_path: Path):
    plan, torch = ("-m", "scalesearch", "plan", "--base", "b0", "--budget", "2x", "--json"), ("-c", "import torch")
    compiled = {
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled"),
    }  # at first
    plans = [processor_time(*plan, cwd=tmp_path, **compiled) for _ in range(3)]
    assert min(plans) <= min(processor_time(*torch, cwd=tmp_path) for _ in range(2)) / 4
