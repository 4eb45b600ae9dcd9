"""Checkpoints at a URL: the files of one machine, taken there and back whole, in the same two generations."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from scalesearch.files import generations


@dataclass(frozen=True, slots=True)
class Afar:
    """A folder that is reached by a URL, such as `s3://bucket/run` or `file:///shared/run`."""

    url: str

    def fetch(self, path: Path) -> None:
        """Bring the generations of a file to its place on this machine, where there are any."""
        system, root = self._opened()
        for generation in generations(path):
            with suppress(FileNotFoundError):
                generation.write_bytes(system.cat_file(f"{root}/{generation.name}"))

    def send(self, path: Path) -> None:
        """Take a file there; the one before is kept as its older generation.

        A reader finds one of the two in whole, whenever the writer is killed.
        """
        system, root = self._opened()
        newest, before = (f"{root}/{generation.name}" for generation in generations(path))
        unfinished = f"{root}/.{path.name}.{secrets.token_hex(4)}"
        system.makedirs(root, exist_ok=True)
        system.pipe_file(unfinished, path.read_bytes())
        with suppress(FileNotFoundError):
            system.mv(newest, before)
        system.mv(unfinished, newest)

    def drop(self, name: str) -> None:
        """Remove the generations of a file, where there are any."""
        system, root = self._opened()
        for generation in generations(Path(name)):
            with suppress(FileNotFoundError):
                system.rm_file(f"{root}/{generation.name}")

    def _opened(self) -> tuple[Any, str]:
        system, root = fsspec.core.url_to_fs(self.url)
        return system, root.rstrip("/")
