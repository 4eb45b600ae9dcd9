"""The front door: parse, one call, print. The only place that prints, catches the error tree, and exits."""

from __future__ import annotations

import errno
import json
import os
import shlex
import sys
import traceback
from io import TextIOWrapper
from pathlib import Path

from scalesearch.cli.console import plain, silence
from scalesearch.errors import CostMismatchError, EmitError, EngineError, ScaleSearchError, SearchFailedError
from scalesearch.files import FULL
from scalesearch.stopping import TerminatedError, end_with, raising
from scalesearch.storage import redacted, redacted_argument

USAGE, INSIDE, INTERRUPTED, UNREAD, TERMINATED = 2, 1, 130, 141, 143
FAILURES = (CostMismatchError, EmitError, EngineError, SearchFailedError)
"""Faults that no other usage would mend."""
REFUSALS = (
    FULL
    | {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENAMETOOLONG}
    | {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP}
)
"""Faults of files that another place or more room mends."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code.

    Exit codes: 0 done, 1 a failure inside, 2 usage, bad config or data, 3 finished with failed trials,
    130 interrupted and 143 terminated (SIGTERM, SIGUSR1) with the state saved, 141 nobody reads the output any more.
    """
    # decisions are small products: threads of numpy's BLAS would wait for each other, and for the trainings
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # where a terminal or a file has no α, a ? stands
    arguments = sys.argv[1:] if arguments is None else arguments
    code = _code(arguments)
    end_with(code)
    try:
        sys.stdout.flush()
    except OSError as error:  # its disk is full, or nobody reads any more
        silence(sys.stdout)
        code = code or _tell_unwritten(error, arguments)
    sys.exit(code)


def _tell_unwritten(error: OSError, arguments: list[str]) -> int:
    """End as a program does that SIGPIPE ends, without a word, where nobody reads any more."""
    if isinstance(error, BrokenPipeError):
        silence(sys.stderr)  # which may have the same reader
        return UNREAD
    failure = ScaleSearchError(f"the output cannot be written: {error.strerror}", mend="send it to another place")
    return _tell(failure, arguments, INSIDE)


def _code(arguments: list[str]) -> int:
    try:
        with raising():
            return _run(arguments)
    except KeyboardInterrupt:
        return _tell(_interruption(arguments), arguments, INTERRUPTED)
    except TerminatedError:
        return _tell(_interruption(arguments), arguments, TERMINATED)


def _run(arguments: list[str]) -> int:
    import typer  # loaded where signals are heard

    try:
        from scalesearch.cli.commands import app

        _refuse_nowhere()
        code = typer.main.get_command(app).main(arguments, prog_name="scalesearch", standalone_mode=False)
        return _tell(_interruption(arguments), arguments, code) if code == INTERRUPTED else code or 0
    except typer.TyperException as error:
        if not error.format_message():  # no command: the help has been shown
            return USAGE
        context = getattr(error, "ctx", None)  # of the command whose option it is
        command = context.command_path if context else "scalesearch"
        failure = ScaleSearchError(error.format_message().rstrip("."), mend=f"see {command} --help")
        return _tell(failure, arguments, USAGE)
    except FAILURES as error:
        return _tell(error, arguments, INSIDE)
    except ScaleSearchError as error:
        return _tell(error, arguments, USAGE)
    except SystemExit as end:  # of libraries, over a reader such as `head` that has seen enough
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        silence(sys.stdout)
        return _tell_unwritten(end.__context__, arguments)
    except Exception as error:  # noqa: BLE001  the boundary of the program: no traceback unless asked for
        if isinstance(error, OSError) and error.errno in REFUSALS:
            if error.filename is None:  # every file is named, see `whole_file`
                silence(sys.stdout)
                return _tell_unwritten(error, arguments)
            failure = ScaleSearchError(f"{error.filename}: {error.strerror}", mend="mend that, or choose another place")
            return _tell(failure, arguments, USAGE)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        failure = ScaleSearchError(f"failure inside: {reason}", mend="run again with `scalesearch --traceback …`")
        return _tell(failure, arguments, INSIDE)


def _refuse_nowhere() -> None:
    """Libraries end the process with words of their own where the current folder is gone."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ScaleSearchError("the current folder is gone", mend="cd to one that exists") from None


def _interruption(arguments: list[str]) -> ScaleSearchError:
    line = shlex.join(["scalesearch", *map(redacted_argument, arguments)])
    if next((one for one in arguments if not one.startswith("-")), "") == "run":
        return ScaleSearchError("interrupted; what is trained is kept", mend=f"to go on: {line}")
    return ScaleSearchError("interrupted", mend=f"to start again: {line}")


def _tell(error: ScaleSearchError, arguments: list[str], code: int) -> int:
    if "--traceback" in arguments and sys.exc_info()[0] is not None:
        traceback.print_exc()
    if "--json" in arguments:
        from scalesearch.documents import error_document

        try:
            print(redacted(json.dumps(error_document(error), indent=1)), flush=True)
        except OSError:  # as in `main`
            silence(sys.stdout)
    try:
        print(f"scalesearch: {plain(redacted(str(error)))}", file=sys.stderr)
    except OSError:
        silence(sys.stderr)
    return code
