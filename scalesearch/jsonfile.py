"""A JSON file of this project read back, whatever stands in it by now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

LARGEST_FILE = 1 << 26
"""Bytes of a file."""


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large or nested too deeply, or holds no JSON object.
    """
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(f"there is no file {path}")
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path.name} has more than {LARGEST_FILE:,} bytes")
    try:
        found: object = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return cast("dict[str, Any]", found)
