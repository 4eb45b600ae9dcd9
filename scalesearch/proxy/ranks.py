"""Processes that train one module together, each a share of every batch: data parallel, by torch.distributed."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

import torch
from torch import Tensor, distributed, nn
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

MEETING = timedelta(minutes=10)
"""Time for all to arrive, and for an answer among them."""
BACKENDS = "cpu:gloo,cuda:nccl"


@dataclass(frozen=True, slots=True)
class Ranks:
    """A process's place among those that train a module. They start from the same weights and stay alike.

    The first one decides, measures and writes; what it may not decide for itself is only where the others stand.
    """

    rank: int = 0
    count: int = 1

    def share(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """The parts of a batch that this process trains on; there may be none."""
        return parts[self.rank :: self.count]

    def add_up(self, losses: Tensor, module: nn.Module) -> None:
        """Sum losses, and the gradients of a module, over all processes, in place."""
        if self.count == 1:
            return
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        if not any(weight.grad is not None for weight in weights):  # no part of the batch was ours
            for weight in weights:
                weight.grad = torch.zeros_like(weight)
        sums = [losses, *(torch.zeros_like(one) if one.grad is None else one.grad for one in weights)]
        flat = torch.cat([one.flatten() for one in sums])
        distributed.all_reduce(flat)
        for one, found in zip(sums, flat.split([one.numel() for one in sums]), strict=True):
            one.copy_(found.view_as(one))

    def draw_apart(self, seed: int, step: int) -> None:
        """Have dropout of a step drop elsewhere in every process, in the same places whenever the step is trained."""
        if self.count > 1:
            torch.manual_seed(int.from_bytes(sha256(f"{seed} {step} {self.rank}".encode()).digest()[:8], "big"))

    def goes_on(self, *, is_over: bool = False) -> bool:
        """Whether there is another step; the first one says so."""
        if self.count == 1:
            return not is_over
        told = torch.tensor(not is_over)
        distributed.broadcast(told, 0)
        return bool(told)

    def told(self, content: bytes) -> bytes:
        """What the first one has for `content`; bytes alone, for nothing that arrives may be unpickled."""
        if self.count == 1:
            return content
        size = torch.tensor(len(content))
        distributed.broadcast(size, 0)
        sent = torch.frombuffer(bytearray(int(size) if self.rank else content), dtype=torch.uint8)
        distributed.broadcast(sent, 0)
        return sent.numpy().tobytes()


ALONE = Ranks()


def opened(host: str, count: int) -> tuple[TCPStore, str]:
    """Open a place on this host where so many processes meet; it lasts as long as the store. Returns its address.

    It listens at that address alone, if the host has it; left to itself a TCPStore would on every network of the host.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, 0), family=family, backlog=count)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:  # an address that a router translates is no network of ours
            raise
        listening = socket.create_server(("", 0), family=family, backlog=count)
    port = listening.getsockname()[1]
    at = {"is_master": True, "master_listen_fd": listening.detach()}
    return TCPStore(host, port, count, timeout=MEETING, wait_for_workers=False, **at), f"{host}:{port}"


def met(address: str, rank: int, count: int, store: TCPStore | None = None) -> Ranks:
    """Meet the others, until the process ends.

    Args:
        address: of the place.
        rank: of this process, from 0.
        count: processes in all.
        store: the place, where this process has opened it.
    """
    host, _, port = address.rpartition(":")
    store = store or TCPStore(host, int(port), count, is_master=False, timeout=MEETING)
    backend = BACKENDS if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=MEETING)
    return Ranks(rank, count)
