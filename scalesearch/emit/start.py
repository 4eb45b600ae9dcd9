"""Trained weights that members of unchanged shape start from, and written weights under a library's names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scalesearch.blueprint import Architecture, Blueprint
from scalesearch.emit.weights import read_epsilon, read_state
from scalesearch.errors import EmitError, PlanError
from scalesearch.levelling import Scaled
from scalesearch.members import Member
from scalesearch.nets.builder import shapes_digest
from scalesearch.nets.library_names import Library, norm_eps
from scalesearch.nets.naming import ours, recognise, theirs
from scalesearch.spec import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A file of trained weights."""

    path: Path
    state: dict[str, Tensor]
    digest: str
    """SHA-256 of the file."""
    epsilon: float | None
    """Of the norms, where the file names it."""

    @classmethod
    def read(cls, path: Path) -> Start:
        """Read a file of ours, torchvision's or timm's.

        Raises:
            PlanError: it cannot be read as weights.
        """
        try:
            state = read_state(path)
        except EmitError as error:
            raise PlanError(error.message, mend=error.mend) from None
        odd = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
        if odd:
            raise PlanError(f"{path}: {odd[0]} holds values that are not finite", mend="give weights that trained well")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(path=path, state=state, digest=digest, epsilon=read_epsilon(path))

    def fault(self, network: Architecture) -> str:
        """Why a network cannot start from these weights; empty if it can."""
        try:
            self._tensors(network)
        except EmitError as error:
            return error.message
        return ""

    def fitted(self, member: Member) -> Member:
        """The member with the norms' epsilon of the weights: the file's, else that of the library that saved it."""
        network = member.network
        if isinstance(network, Blueprint) or self.fault(network):
            return member
        source = recognise(network, self.state)
        default = network.norm_eps if source == "scalesearch" else norm_eps(network, source)
        epsilon = default if self.epsilon is None else self.epsilon
        scaled: Scaled = replace(member.scaled, network=replace(network, norm_eps=epsilon))
        return replace(member, scaled=scaled)

    def load(self, network: Architecture, module: nn.Module) -> dict[str, Any] | None:
        """Load the weights into a built module where they fit; what the manifest tells of it, None where they do not.

        A classifier of another number of classes keeps its own weights.
        """
        if self.fault(network):
            return None
        tensors, own = self._tensors(network), module.state_dict()
        fresh = sorted(name for name, value in tensors.items() if value.shape != own[name].shape)
        module.load_state_dict(tensors | {name: own[name] for name in fresh})
        return {"file": self.path.name, "sha256": self.digest, "names": self._source(network), "fresh": fresh}

    def _source(self, network: Architecture) -> str:
        return "scalesearch" if isinstance(network, Blueprint) else recognise(network, self.state)

    def _tensors(self, network: Architecture) -> dict[str, Tensor]:
        if isinstance(network, Network):
            return ours(network, self.state)
        if shapes_digest(self.state) != network.shapes:
            raise EmitError("the builder's network has other tensors", mend="give weights of that network")
        return self.state


def started(members: list[Member], start: Start) -> list[Member]:
    """The members, each made for the weights where they fit it.

    Raises:
        PlanError: they fit none.
    """
    faults = [start.fault(member.network) for member in members]
    if all(faults):
        raise PlanError(
            f"no member has the shape of {start.path}: {members[0].name}: {faults[0]}",
            mend="only a member whose depth and width are those of the file can start from it",
        )
    return [start.fitted(member) for member in members]


def renamed(network: Architecture, state: dict[str, Tensor], library: Library | None) -> dict[str, Tensor]:
    """A state dict under a library's names; as it is for None.

    Raises:
        PlanError: the library has no such network.
    """
    if library is None:
        return state
    if isinstance(network, Blueprint):
        raise PlanError(f"a builder's network has no {library} names", mend="drop --naming")
    try:
        return theirs(network, state, library)
    except EmitError as error:
        raise PlanError(error.message, mend=error.mend) from None
