"""Limits beside the budget: parameters, activations, and the memory that training takes.

The paper's equation 2 bounds memory too. What training holds is estimated: weights, gradients and two moments of the
optimizer for each parameter, and for each image what the backward pass needs of every map.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from scalesearch.blueprint import Architecture
from scalesearch.cost import Cost
from scalesearch.errors import SpaceError
from scalesearch.levelling import Scaled
from scalesearch.spec import Network

BYTES = 4
"""Of a number in fp32."""
HELD_PER_PARAMETER = 4
"""Weight, gradient, and the two moments of Adam."""
HELD_PER_ACTIVATION, HELD_WITH_RELU = 3, 2
"""Outputs of a convolution, of its norm and of its activation are kept for the backward pass; ReLU works in place."""
BATCH = 32
"""Images of a training step where the limit names no other number."""
UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Most that a candidate or a member may have; None = no limit."""

    params: int | None = None
    activations: int | None = None
    """Of one image."""
    memory: int | None = None
    """Of a training step in fp32 [bytes]."""
    batch: int = BATCH
    """Images of that step."""

    def fault(self, one: Scaled) -> str:
        """Why a network is out of bounds; empty if it is not."""
        memory = training_memory(one.network, one.cost, self.batch)
        found = {
            "parameters": (one.cost.params, self.params),
            "activations": (one.cost.activations, self.activations),
            f"bytes to train at batch {self.batch}": (memory, self.memory),
        }
        over = [
            f"{_short(value)} {name}, more than {_short(most)}"
            for name, (value, most) in found.items()
            if most is not None and value > most
        ]
        return " and ".join(over)


def training_memory(network: Architecture, cost: Cost, batch: int) -> int:
    """Estimated memory of a training step with Adam in fp32, without what the libraries need themselves [bytes]."""
    in_place = isinstance(network, Network) and network.activation == "relu"
    held = HELD_WITH_RELU if in_place else HELD_PER_ACTIVATION
    return BYTES * (HELD_PER_PARAMETER * cost.params + held * batch * cost.activations)


def parse_limits(params: str | None, activations: str | None, memory: str | None) -> Limits:
    """Limits as typed: `10M`, `1.5G`; for memory also the batch, `16G@64`.

    Raises:
        SpaceError: a text has another form.

    >>> parse_limits("10M", None, "16G@64")
    Limits(params=10000000, activations=None, memory=16000000000, batch=64)
    """
    size, _, batch = (memory or "").partition("@")
    if "@" in (memory or "") and not (size and batch.isdigit() and 1 <= int(batch) <= 1_000_000):
        raise SpaceError(f"--max-memory {memory!r}", mend="write bytes and a batch of images, such as 16G@64")
    return Limits(
        params=_amount("--max-params", params, "20M"),
        activations=_amount("--max-activations", activations, "30M"),
        memory=_amount("--max-memory", size or memory, "16G or 16G@64, in bytes"),
        batch=int(batch) if batch else BATCH,
    )


def _amount(option: str, text: str | None, example: str) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*([KMGT]?)(i?B)?", text.strip(), flags=re.IGNORECASE)
    amount = float(match[1]) * UNITS[match[2].upper()] if match else 0
    if match and (match[3] or "").lower() == "ib":
        amount *= (1024 / 1000) ** (" KMGT".index(match[2].upper() or " "))
    if not 1 <= amount <= 1e18:
        raise SpaceError(f"{option} {text!r}", mend=f"write a positive number such as {example}")
    return round(amount)


def _short(value: float) -> str:
    unit = next((unit for unit in "TGMK" if value >= UNITS[unit]), "")
    return f"{value / UNITS[unit]:.4g}{unit and ' ' + unit}"
