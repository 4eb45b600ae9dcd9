"""A PostgreSQL server that tests start and treat badly."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
IS_THERE = bool(BINARIES or shutil.which("initdb"))
SECRET = "pass-w0rd-of-the-test"


class Server:
    """A server of its own, of an unprivileged user, on a loopback port and a socket."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="scalesearch-postgres-"))
        self.binaries = BINARIES[-1].parent if BINARIES else Path(shutil.which("initdb") or "").parent
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.user: dict[str, Any] = {}
        if os.geteuid() == 0:  # which the server refuses
            self.user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self.place, "nobody", "nogroup")
        (self.place / "secret").write_text(SECRET)
        os.chmod(self.place / "secret", 0o644)
        options = ["--username=me", "--auth=scram-sha-256", f"--pwfile={self.place}/secret", "--no-sync"]
        self.called("initdb", "-D", self.data, *options, "--encoding=UTF8", "--locale=C")
        self.start()

    @property
    def data(self) -> str:
        return str(self.place / "data")

    @property
    def url(self) -> str:
        return f"postgresql://me:{SECRET}@127.0.0.1:{self.port}/postgres"

    @property
    def driver(self) -> str:
        """The URL for SQLAlchemy."""
        return self.url.replace("://", "+psycopg://")

    def database(self, name: str, template: str = "template1") -> str:
        """The URL of a new database, with what another one holds."""
        self.told(self.url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url.removesuffix("/postgres") + f"/{name}"

    @staticmethod
    def told(url: str, *statements: str) -> None:
        """Have a database do something."""
        import psycopg

        with closing(psycopg.connect(url, autocommit=True)) as opened:
            for statement in statements:
                opened.execute(statement.encode())

    def called(self, name: str, *arguments: object) -> None:
        done = subprocess.run(
            [self.binaries / name, *map(str, arguments)],
            cwd=self.place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=120,
            **self.user,
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        options = f"-p {self.port} -k {self.place} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.called("pg_ctl", "-D", self.data, "-o", options, "-l", self.place / "log", "-w", "-t", 90, "start")

    def stop(self, mode: str = "fast") -> None:
        self.called("pg_ctl", "-D", self.data, "-m", mode, "-w", "-t", 90, "stop")

    def processes(self) -> list[int]:
        """Process ids of the server and its children."""
        first = int((self.place / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def kill(self) -> None:
        self.freeze(signal.SIGSTOP)  # so that none comes or goes meanwhile
        pids = self.processes()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            time.sleep(0.05)
        (self.place / "data" / "postmaster.pid").unlink()

    def freeze(self, how: signal.Signals) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, how)

    def remove(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
