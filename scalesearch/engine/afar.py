"""Checkpoints at a URL: the files of one machine, taken there and back whole, in the same two generations."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from scalesearch.engine.work import PLACE, Noticed
from scalesearch.errors import PlanError
from scalesearch.files import generations, make_folder, whole_file, write_whole
from scalesearch.storage import redacted, redacted_argument

BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "tos"})
"""Protocols of storage without folders, which makes a bucket for one, even where its name is mistyped."""


@dataclass(frozen=True, slots=True)
class Afar:
    """The folder of one run that is reached by a URL, such as `s3://bucket/run` or `file:///shared/run`.

    What it cannot do, it returns a notice of: a store that is away costs time, never a trial.
    """

    url: str = field(repr=False)
    """With the secrets that it may hold."""

    def fetch(self, path: Path) -> Noticed | None:
        """Bring the generations of a file, where there are any, to its place on this machine; its folder is made."""
        return self._tried(lambda: self._fetch(path), "read from", "trials begin anew")

    def send(self, name: str, content: bytes) -> Noticed | None:
        """Write a file there; the one before is kept as its older generation.

        A reader finds one of the two in whole, whenever the writer is killed. Of files, one that was damaged since is
        not kept over a whole one; other storage would have to be read back for that.
        """
        return self._tried(lambda: self._send(name, content), "written to", "training goes on without")

    def drop(self, name: str) -> Noticed | None:
        """Remove the generations of a file, where there are any."""
        return self._tried(lambda: self._drop(name), "removed from", "those of ended trials stay")

    def sweep(self) -> Noticed | None:
        """Remove what killed senders left unfinished; none may be at work."""
        return self._tried(lambda: self._sweep("."), "removed from", "what is unfinished stays")

    def leave(self) -> None:
        """Remove the folder, if it is empty and the storage knows of folders."""
        with suppress(Exception):  # each of the many kinds of storage has faults of its own
            system, root = self._opened()
            system.rmdir(root)

    def silence(self, seconds: float, then: str) -> Noticed:
        """That it has not answered for so long, and what comes of that."""
        return Noticed(redacted(f"{self.url} has not answered for {seconds:.0f} s; {then}"))

    def _tried(self, do: Callable[[], None], what: str, then: str) -> Noticed | None:
        try:
            do()
        except Exception as error:  # noqa: BLE001  each of the many kinds of storage has faults of its own
            told = getattr(error, "strerror", None) or str(error)  # without its file, which differs from trial to trial
            reason = " ".join(told.split()) or type(error).__name__
            return Noticed(redacted(f"no checkpoint can be {what} {self.url}: {reason}; {then}"))
        return None

    def _fetch(self, path: Path) -> None:
        make_folder(path.parent)
        system, root = self._opened()
        for generation in generations(path):
            with suppress(FileNotFoundError):
                write_whole(generation, system.cat_file(f"{root}/{generation.name}"))

    def _send(self, name: str, content: bytes) -> None:
        system, root = self._opened()
        newest, before = (f"{root}/{generation.name}" for generation in generations(Path(name)))
        if isinstance(system, LocalFileSystem):
            from scalesearch.proxy.checkpoint import is_whole

            make_folder(Path(root))
            with whole_file(Path(newest), before=Path(before) if is_whole(Path(newest)) else None) as file:
                file.write(content)
            return
        if BUCKETS.isdisjoint({system.protocol} if isinstance(system.protocol, str) else system.protocol):
            system.makedirs(root, exist_ok=True)
        unfinished = f"{root}/.{name}.{secrets.token_hex(4)}"
        system.pipe_file(unfinished, content)
        with suppress(FileNotFoundError):
            system.mv(newest, before)
        system.mv(unfinished, newest)

    def _drop(self, name: str) -> None:
        system, root = self._opened()
        for generation in generations(Path(name)):
            with suppress(FileNotFoundError):
                system.rm_file(f"{root}/{generation.name}")
        self._sweep(f".{name}.")

    def _sweep(self, beginning: str) -> None:
        """Remove the files whose names begin so."""
        system, root = self._opened()
        system.invalidate_cache(root)  # others write there
        with suppress(FileNotFoundError):  # also of the folder
            for found in system.ls(root, detail=False):
                if found.rpartition("/")[2].startswith(beginning):
                    system.rm_file(found)

    def _opened(self) -> tuple[Any, str]:
        system, root = fsspec.core.url_to_fs(self.url)
        return system, root.rstrip("/")


def refuse_unspoken(place: str) -> None:
    """Refuse a place for checkpoints that nothing here knows how to reach. Nobody is asked whether it is there.

    Args:
        place: an absolute path or a URL; of several chained by `::` each has to be known.

    Raises:
        PlanError: its protocol is unknown, or needs a package that cannot be imported.
    """
    for link in place.split("::"):
        protocol = fsspec.core.split_protocol(link)[0] or ("file" if link.startswith("/") else link)
        try:
            fsspec.get_filesystem_class(protocol)
        except ValueError:
            fault = f"--checkpoints {redacted_argument(place)} is of no protocol that fsspec knows"
            raise PlanError(fault, mend=PLACE) from None
        except ImportError as error:
            fault = f"--checkpoints {redacted_argument(place)} cannot be reached from here: {error.__cause__}"
            raise PlanError(fault, mend=f"on every node: {error}") from None
