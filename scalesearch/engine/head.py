"""The head of a Ray cluster, asked in a thread: whoever asks one that is gone is held, and hears no signal."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import ray

from scalesearch.engine.watch import Looks
from scalesearch.errors import ClusterError

PAUSE = 1.0
"""Between two questions [s]."""
GONE = 30.0
"""Silence after which a head is gone; Ray itself ends the program without a word after twice that [s]."""


class Head:
    """Which nodes a head tells of, and whether it still answers."""

    def __init__(self) -> None:
        """Ask a first time."""
        self.nodes: list[dict[str, Any]] = ray.nodes()
        self.answers = 1
        """How often it has answered."""
        self._silent, self._heard, self._looks = 0.0, 1, Looks(2 * PAUSE)
        self._over = threading.Event()
        self._asking = threading.Thread(target=self._ask, daemon=True)
        self._asking.start()

    def _ask(self) -> None:
        while not self._over.wait(PAUSE):
            with suppress(Exception):  # however it fails, it is no answer
                self.nodes = ray.nodes()
                self.answers += 1

    @property
    def resources(self) -> list[dict[str, float]]:
        """Those of each node that lives, by Ray's names."""
        return [node["Resources"] for node in self.nodes if node["Alive"]]

    def total(self, name: str) -> float:
        """How much of a resource the cluster has."""
        return sum(node.get(name, 0.0) for node in self.resources)

    def rooms(self, needs: dict[str, float]) -> int:
        """Trials that the cluster would hold if it were empty and one machine."""
        return int(min(self.total(name) / amount for name, amount in needs.items() if amount))

    def no_room(self, wanted: str, when: str) -> ClusterError:
        """The fault of a cluster that has no room for a trial."""
        nodes = self.resources
        found = sorted({f"{node.get('CPU', 0):g} CPU and {node.get('GPU', 0):g} GPU" for node in nodes})
        return ClusterError(
            f"no node of the Ray cluster {when} {wanted} free ({len(nodes)} nodes, of {', '.join(found)})",
            mend="add nodes, wait for others to end, or ask for less with --cpus-per-trial and --gpus-per-trial; "
            "if nodes have room, see Ray's logs for what hangs there",
        )

    def is_gone(self) -> bool:
        """Whether it has been silent for too long; to be asked again and again."""
        passed = self._looks.passed()
        self._silent = 0.0 if self.answers != self._heard else self._silent + passed
        self._heard = self.answers
        return self._silent > GONE

    def close(self) -> None:
        """Ask no more."""
        self._over.set()
        self._asking.join(2 * PAUSE)  # one that is held ends with the program
