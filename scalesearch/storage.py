"""Where a study is stored: a file of the run folder, or a PostgreSQL server. Passwords of URLs are kept, never told."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from scalesearch.errors import StudyError

SCHEMES = ("postgresql://", "postgres://", "postgresql+psycopg://")
_URL = re.compile(r"(postgres\w*(?:\+\w+)?://)((?:\S*@)?[^\s'\"]*(?<![;:,]))")
"""In a text, whose punctuation may follow."""
_OTHER = re.compile(r"(\w[\w+.-]*://[^\s:@/?]*):\S*@")
"""The URL of anything else, where a user has a password."""
_SIGNED = re.compile(r"(?<![\w+.-])((?!postgres)\w[\w+.-]*://[^\s'\"?]*\?)[^\s'\"]+(?<![;:,])")
"""The same where it has a query, in which storage keeps signatures and keys."""
_HARMLESS = re.compile(
    r"(?:sslmode|port|user|connect_timeout|application_name|channel_binding|target_session_attrs|keepalives(?:_\w+)?"
    r"|tcp_user_timeout|sslcompression|sslsni|gssencmode|require_auth|client_encoding)=[\w.,-]*"
    r"|(?:host|hostaddr|sslrootcert|sslcert|sslkey)=[\w.,:/-]*"
)
"""What may be shown of the query of a PostgreSQL URL; its keys may be spelled in any way, and so may its passwords."""
_PASSWORD = re.compile(r"(?:ssl)?password=")
_HIDDEN = "…"
_PLAIN = re.compile(r"(?:[^\s@:/?#]+@)?(?:[\w.-]*|\[[\da-fA-F:.]+\])(?::\d+)?(?:/[\w.-]*)?(?:\?sslmode=[a-z-]+)?")
"""What may follow the scheme of a URL that a file names."""


def redacted(text: str) -> str:
    """A text whose URLs have lost their passwords.

    >>> redacted("run --storage=postgresql://me:se@cret@host/db?sslmode=require --checkpoints ftp://me:secret@host/run")
    'run --storage=postgresql://me@host/db?sslmode=require --checkpoints ftp://me@host/run'
    """
    shown = _URL.sub(lambda found: found[1] + _parted(found[2])[0], text)
    return _SIGNED.sub(rf"\1{_HIDDEN}", _OTHER.sub(r"\1@", shown))


def redacted_argument(argument: str) -> str:
    """An argument of a command without a password, in which any character may stand.

    >>> redacted_argument("--storage=postgresql://me:se 'cret@host/db")
    '--storage=postgresql://me@host/db'
    """
    before, mark, place = argument.partition("://")
    if "postgres" in before:
        return f"{before}{mark}{_parted(place)[0]}"
    return re.sub(r"(?s)(\w://[^?]*\?).+", rf"\1{_HIDDEN}", re.sub(r"(?s)(\w://[^:@/?]*):.*@", r"\1@", argument))


def _parted(place: str) -> tuple[str, str]:
    """What follows the scheme of a URL, without its secrets; and the password of its user.

    The user ends at the first colon and the host begins behind the last @, whatever stands in a password. Of what
    can be read in two ways nothing behind the user is shown.
    """
    user, colon, rest = place.partition(":")
    if not colon or re.search(r"[@/?#]", user):  # no password but in the query
        return _without_secrets(place), ""
    password, at, host = rest.rpartition("@")
    if not at:  # a host with a port
        return (_without_secrets(place) if re.match(r"\d*([/?#]|$)", rest) else f"{user}{_HIDDEN}"), rest
    if re.search(r"(?s)[?#].*=", password):
        return f"{user}@{_HIDDEN}", password
    return f"{user}@{_without_secrets(host)}", password


def _without_secrets(place: str) -> str:
    path, query = _queried(place)
    shown = [one if _HARMLESS.fullmatch(one) else _HIDDEN for one in query if not _PASSWORD.match(one)]
    return f"{path}?{'&'.join(shown)}" if shown else path


def _queried(place: str) -> tuple[str, list[str]]:
    """What stands before the query of a URL, or before what looks like one, and the parts of that."""
    path, _, query = re.sub("[?#]", "?", place, count=1).partition("?")
    return path, [one for one in query.split("&") if one]


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
        return str(self.file) if self.file else redacted_argument(self.url)

    def told(self, reason: object) -> str:
        """What a database says, in one line without passwords."""
        text, place = str(reason), self.url.partition("://")[2]
        parts = [one.partition("=") for one in _queried(place)[1] if not _HARMLESS.fullmatch(one)]
        found = [_parted(place)[1], *(value or key for key, _, value in parts)]
        known = {way for one in found for word in (one, unquote(one)) for way in (word, repr(word)[1:-1]) if way}
        for secret in sorted(known, key=len, reverse=True):
            text = text.replace(secret, _HIDDEN)
        return redacted(" ".join(text.split()))[:200]


def in_folder(folder: Path) -> Storage:
    """The file of a run folder."""
    return Storage(url="sqlite:///study.db", study="scalesearch", file=folder / "study.db")


def is_plain(url: str) -> bool:
    """Whether a URL names no more than a user, a server, a database there and `sslmode`.

    Anything else may have a password that is kept for one server sent to another one: `hostaddr`, say.

    >>> is_plain("postgresql://me@host:5432/db?sslmode=require"), is_plain("postgresql://me@host/db?hostaddr=10.0.0.1")
    (True, False)
    """
    scheme, mark, place = url.partition("://")
    return scheme + mark in SCHEMES and _PLAIN.fullmatch(place) is not None


def on_server(url: str, study: str) -> Storage:
    """A study on a server.

    Raises:
        StudyError: not the URL of a PostgreSQL database.

    >>> on_server("postgresql://me:secret@host/db", "mine").shown
    'postgresql://me@host/db'
    """
    scheme = next((one for one in SCHEMES if url.startswith(one)), None)
    if scheme is None:
        named = re.match(r"\w+(?=://)", url)  # of anything else no part is repeated: it may be a password
        raise StudyError(
            f"--storage {f'{named[0]}://… ' if named else ''}is no URL of a PostgreSQL database",
            mend="give one such as postgresql://user@host/database, or leave it out for a file in the run folder",
        )
    place = url[len(scheme) :]
    password = _parted(place)[1]
    if "@" in password:  # a URL has it in this form alone
        place = place.replace(f":{password}@", f":{password.replace('@', '%40')}@", 1)
    return Storage(url=f"postgresql://{place}", study=study)
