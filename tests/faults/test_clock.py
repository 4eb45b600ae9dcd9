"""A clock that jumps by years while a search runs, ahead and back: no byte of the answer hangs on it, and no wait."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calling import Call
from disturbing import ANSWERS
from judging import assert_nothing_ran_again, lines

pytestmark = [pytest.mark.slow]

JUMPS = (("\n1/", "+4000d"), ("\n3/", "-4000d"), ("\n5/", "+1d"))
"""What is printed before each, and how far the clock is off from then on."""


@pytest.fixture
def library() -> Path:
    """What lets a program read a clock of ours."""
    found = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if found is None:
        pytest.skip("needs Debian's faketime")
    return found


def test_a_clock_that_jumps_by_years_changes_no_byte(
    library: Path,
    begun: Path,
    program: Callable[..., Any],
    call: Call,
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
):
    folder, clock = tmp_path / "run", tmp_path / "clock"
    clock.write_text("+0d")
    faked = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    run = program("run", *tiny_options, "--out", folder, **faked, FAKETIME_DONT_FAKE_MONOTONIC="1")
    for printed, jump in JUMPS:
        run.wait_for(printed)
        clock.write_text(jump)
    assert run.wait() == 0, run.err.read_text()
    times = [line["time"] for line in lines(folder) if "time" in line]
    assert len({time[:3] for time in times}) == 3  # decades: the clock did jump
    assert all(0 < line["seconds"] < 300 for line in lines(folder) if "seconds" in line)
    for name in ANSWERS:
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes(), name
    assert_nothing_ran_again(folder, begun)
    assert call("status", folder, "--json").done
