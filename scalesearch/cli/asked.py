"""Options of the command line as the values that the library takes; heavy imports stand inside the bodies."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalesearch.errors import PlanError, ScaleSearchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalesearch.engine.work import Cluster
    from scalesearch.plan import Layout, Plan
    from scalesearch.request import Request


def asked_cluster(engine: str | None, **given: Any) -> Cluster | None:
    """What is asked of Ray; None on this machine."""
    from scalesearch.engine.work import Cluster

    if engine == "ray":
        return Cluster(**given)
    options = {"cpus": "--cpus-per-trial", "gpus": "--gpus-per-trial"}
    alone = [options.get(name, f"--{name}") for name, value in given.items() if value is not None]
    if alone:
        raise PlanError(f"{', '.join(alone)} without a Ray cluster", mend="add --engine ray")
    return None


def asked_request(study: Path | None, given: dict[str, Any]) -> Request:
    """What the command line asks for, on top of a study file; options that were not given are None."""
    from scalesearch.request import Request, read_request

    names = {entry.name for entry in fields(Request)}
    asked = {name: value for name, value in given.items() if name in names and value is not None}
    if "data_root" in asked:
        asked["data_root"] = str(asked["data_root"])
    return replace(read_request(study) if study else Request(), **asked)


def resolved(study: Path | None, request: Request, told: Callable[[str], None]) -> tuple[Plan, Layout]:
    """The plan of a request; what is wrong with one is told with its study file."""
    from scalesearch.request import resolve

    try:
        return resolve(request, told)
    except ScaleSearchError as error:
        raise error.within(study) if study else error from None
