"""The way to a Ray cluster: one that runs, or one of this machine alone that lasts as long as a run."""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

from scalesearch.engine.slots import usable_cores
from scalesearch.engine.work import Cluster, Event
from scalesearch.errors import ClusterError
from scalesearch.storage import redacted_argument

if TYPE_CHECKING:
    from scalesearch.engine.cluster import ClusterExecutor

REACHED = 10.0
"""Time for a first answer from the address of a cluster [s]."""
REASON = 300
"""Characters of what Ray says of a failure; the rest is its traceback."""
SHORT = "/tmp"
"""Where sockets have short paths."""
TOKEN = "set RAY_AUTH_MODE=token, with its token in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
"""What mends a lack of it."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Environment under which Ray reports nothing to its makers and warns of no change that does not concern us."""
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
"""Environment under which Ray listens on the loopback device alone, to those who know its token."""


@contextmanager
def cluster_executor(
    cluster: Cluster, *, threads: int, most: int, tell: Callable[[Event], None]
) -> Iterator[ClusterExecutor]:
    """Trainers on a cluster, until the end of the context.

    Args:
        cluster: which, and what a trial takes of it.
        threads: CPUs of a trial, unless the cluster says.
        most: slots that are of use.
        tell: hears what happens before the first slot is there.

    Raises:
        ClusterError: there is no such cluster, no room for a trial, or other versions; or Ray is not installed.
    """
    with connected(cluster.address):
        from scalesearch.engine.cluster import ClusterExecutor

        with closing(ClusterExecutor(cluster, threads=threads, most=most, tell=tell)) as executor:
            yield executor


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be the driver of a Ray cluster.

    Args:
        address: `auto`, `HOST:PORT` or `ray://HOST:PORT`; None = a cluster of this machine, started and ended here.

    Raises:
        ClusterError: there is no cluster, it asks for a token that is not known here, or runs another Python or Ray.
    """
    with _environment(QUIET if address else QUIET | ALONE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}):
        if address and "/" not in address.removeprefix("ray://") and ":" in address:
            _reach(address)
        with _place_of_its_own() if address is None else nullcontext("") as place:
            try:
                import ray  # reads the environment here, once
            except ModuleNotFoundError as error:
                raise ClusterError(f"--engine ray needs {error.name}", mend="pip install 'scalesearch[ray]'") from None
            try:
                with _passwords_kept():
                    _connect(address, place)
                yield
            finally:
                ray.shutdown()


def _place_of_its_own() -> tempfile.TemporaryDirectory[str]:
    """Where a Ray that is started here keeps its sockets and logs.

    The path of a socket has room for 107 bytes (103 on macOS), and some 75 are Ray's own: TMPDIR may be too long.
    """
    short = SHORT if os.access(SHORT, os.W_OK | os.X_OK) else None
    return tempfile.TemporaryDirectory(prefix="ray-", dir=short, ignore_cleanup_errors=True)


def _connect(address: str | None, place: str) -> None:
    import ray

    own = {"num_cpus": usable_cores(), "include_dashboard": False, "_temp_dir": place}
    try:
        with _signals_kept():
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **({} if address else own))
        # notes on dead nodes, which it would print on stdout, for want of an option
        with suppress(KeyError):  # a Ray that keeps it elsewhere prints them
            vars(sys.modules["ray._private.worker"])["_worker_logs_enabled"] = False
    except (Exception, SystemExit) as error:  # noqa: BLE001  of a node that is slow to start Ray raises no kind of its own
        raise _refusal(address, error) from None


def _refusal(address: str | None, error: BaseException) -> ClusterError:
    """What Ray says of a cluster that cannot be used, in a line."""
    from ray.exceptions import AuthenticationError

    where = f"the Ray cluster at {address}" if address else "a local Ray cluster"
    if isinstance(error, AuthenticationError):  # of which Ray says in many words what the mend says
        return ClusterError(f"{where} asks for a token, and takes none from here: {error.message}", mend=TOKEN)
    reason = " ".join(str(error).split())[:REASON]
    ours = f"see that {SHORT} can be written and has room, for its sockets and logs; or leave out --engine ray"
    theirs = f"see --address, and the versions on its nodes; if it asks for a token, {TOKEN}"  # Ray may not say so
    mend = theirs if address else ours
    return ClusterError(f"{where} cannot be used: {reason}", mend=mend)


def _reach(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterError(
            f"nothing answers at --address {address}: {getattr(error, 'strerror', None) or error}",
            mend="give HOST:PORT of the head node, ray://HOST:10001 from outside of the cluster, or auto on a node",
        ) from None


@contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    """What a user has set stays."""
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own in the place of the program's."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            with suppress(TypeError):  # a handler that was not set from Python
                signal.signal(signal.SIGTERM, before)


@contextmanager
def _passwords_kept() -> Iterator[None]:
    """Ray writes the command line of a driver into its table of jobs, and takes no other for it.

    Raises:
        ClusterError: it does so in a way that is not known here.
    """
    known = vars(sys.modules["ray._private.utils"]) if "ray._private.utils" in sys.modules else {}
    before = known.get("get_entrypoint_name")
    if before is None:
        fault = f"Ray {version('ray')} shows command lines, and passwords on them, in a way that is not known"
        raise ClusterError(fault, mend=f"pip install 'ray[client]>=2.52,<{version('ray')}'")
    known["get_entrypoint_name"] = lambda: shlex.join(map(redacted_argument, sys.orig_argv))
    try:
        yield
    finally:
        known["get_entrypoint_name"] = before
