"""Where a study is stored: a file of the run folder, or a PostgreSQL server. Passwords are kept, never told."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from scalesearch.errors import StudyError

SCHEMES = ("postgresql://", "postgres://", "postgresql+psycopg://")
_URL = re.compile(r"postgres\w*(?:\+\w+)?://[^\s'\"]*")
_SECRETS = re.compile(r"([?&])(?:password|sslpassword)=[^&]*&?")


def redacted(text: str) -> str:
    """A text whose URLs of databases have lost their passwords.

    >>> redacted("run --storage=postgresql://me:se@cret@host/db?password=x&sslmode=require")
    'run --storage=postgresql://me@host/db?sslmode=require'
    """
    return _URL.sub(lambda found: _without_password(found.group()), text)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    place, mark, query = rest.partition("?")
    user, at, host = place.rpartition("@")
    kept = _SECRETS.sub(r"\1", f"{mark}{query}").rstrip("?&")
    return f"{scheme}://{user.partition(':')[0]}{at}{host}{kept}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """A place for a study."""

    url: str = field(repr=False)
    """For SQLAlchemy, with the password that it may hold."""
    study: str
    """Name of the study there."""
    file: Path | None = None
    """The SQLite file; None on a server."""

    @property
    def shown(self) -> str:
        """The place, as it may be told and written down."""
        return str(self.file) if self.file else redacted(self.url)

    def told(self, reason: object) -> str:
        """What a database says, in one line without passwords."""
        return redacted(" ".join(str(reason).split()))[:200]


def in_folder(folder: Path) -> Storage:
    """The file of a run folder."""
    return Storage(url="sqlite:///study.db", study="scalesearch", file=folder / "study.db")


def on_server(url: str, study: str) -> Storage:
    """A study on a server.

    Raises:
        StudyError: not the URL of a PostgreSQL database.

    >>> on_server("postgresql://me:secret@host/db", "mine").shown
    'postgresql://me@host/db'
    """
    scheme = next((one for one in SCHEMES if url.startswith(one)), None)
    if scheme is None:
        raise StudyError(
            f"--storage {url.partition('://')[0][:40]!r} is no URL of a PostgreSQL database",
            mend="give one such as postgresql://user@host/database, or leave it out for a file in the run folder",
        )
    return Storage(url=f"postgresql://{url[len(scheme) :]}", study=study)
