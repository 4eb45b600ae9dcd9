"""The command line called inside a test's own process; the fixture `call` of conftest.py does it."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple


class Told(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """All of stdout as one JSON document."""
        return json.loads(self.out)

    @property
    def done(self) -> dict[str, Any]:
        """The document of a command that ended well."""
        assert self.code == 0, self.err
        return self.document

    @property
    def refusal(self) -> str:
        """The one line of a command that was refused, with the mend."""
        [line] = self.err.splitlines()
        assert self.code == 2
        assert "; " in line
        return line


Call = Callable[..., Told]
