"""Options that take no value: shown without one; the version."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose help shows no type behind its flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All its parameters, `--help` included."""
        return _bare(super().get_params(ctx))


class Group(TyperGroup):
    """The program, whose help shows no type behind its flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All its parameters, `--help` included."""
        return _bare(super().get_params(ctx))


def _bare(parameters: list[Any]) -> list[Any]:
    for one in parameters:
        if one.param_type_name == "option" and one.is_flag:
            one.metavar = ""
    return parameters


def told_version(is_asked: bool) -> None:
    """Print the version and end, where it is asked for."""
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"scalesearch {version('scalesearch')}")
        raise typer.Exit
