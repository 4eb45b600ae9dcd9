"""Writes the page of commands from the command line itself, whenever the site is built: a hook of mkdocs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from scalesearch.cli.commands import app

PAGE = "commands.md"
VALUES = {"str": "TEXT", "int": "N", "float": "X", "Path": "PATH"}
"""What stands for a value in the tables, by the type of the option."""
HEAD = """\
# Commands

Built from the program itself, as `scalesearch COMMAND --help` prints it. `scalesearch --traceback COMMAND …` shows the
traceback of a failure, `scalesearch --install-completion` completes commands in your shell. `run` and `plan` take a
`--study` file too, with the keys of [`Request`](api.md#scalesearch.request.Request). All share the
[exit codes](faults.md#exit-codes).
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site."""
    files.append(File.generated(config, PAGE, content=page()))
    return files


def page() -> str:
    """The page as Markdown."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join([HEAD, *(line for name, one in commands.items() for line in _section(name, one))])


def _section(name: str, command: Any) -> Iterator[str]:
    rows = [_row(one) for one in command.params]
    arguments = [one.metavar for one in command.params if one.param_type_name == "argument"]
    yield f"## {name}\n"
    yield f"{command.help}\n"
    yield f"    scalesearch {' '.join([name, *arguments, *['[OPTIONS]'] * (len(rows) > len(arguments))])}\n"
    if rows:
        yield "| option | value | what it does |\n|---|---|---|"
        yield "\n".join(rows) + "\n"


def _row(one: Any) -> str:
    names = ", ".join(f"`{option}`" for option in (*one.opts, *one.secondary_opts))
    if one.param_type_name == "argument":
        names = f"`{one.metavar}`"
    needed = " Must be given." if one.required else ""
    return f"| {names} | {_value(one)} | {_escaped(one.help or '')}{needed} |"


def _value(one: Any) -> str:
    """What is written behind an option."""
    if one.param_type_name == "argument" or one.is_flag:
        return ""
    annotation = one.type_descriptor.annotation
    choices = get_args(annotation)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    default = "" if one.default is None else f", default {one.default:g}"
    return f"{VALUES[annotation.__name__]}{default}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
