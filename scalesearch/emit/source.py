"""A member as standalone Python: the needed definitions of `nets.blocks`, word for word, and one builder function."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from scalesearch.blueprint import Architecture, Blueprint
from scalesearch.nets import blocks
from scalesearch.nets.network import common, head_arguments, stage_arguments, stem_arguments
from scalesearch.spec import Network

IMPORTS = """from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor, nn
"""
WRITTEN = "Written by scalesearch; needs"
"""What every source says of itself in its docstring."""
MAIN = """
if __name__ == "__main__":
    module = network().eval()
    with torch.no_grad():
        output = module(torch.zeros(1, 3, RESOLUTION, RESOLUTION))
    params = sum(weight.numel() for weight in module.parameters())
    print(json.dumps({"params": params, "output": list(output.shape)}))
"""


def source(name: str, network: Architecture, about: str) -> str:
    """Python source that defines the network; run as a program, it prints its parameters.

    It needs torch alone; for a builder's network torch and the builder.

    Args:
        name: the member's name.
        network: what to define.
        about: one line on where it comes from.
    """
    if isinstance(network, Blueprint):
        return _of_builder(name, network, about)
    used = {"stem", "ConvNorm", "Head", "ConvNet", "initialise"} | {stage.block for stage in network.stages}
    return "\n".join(
        [
            f'"""{name}: {about}\n\n{WRITTEN} torch alone. Apache-2.0.\n"""\n',
            IMPORTS,
            f"RESOLUTION = {network.resolution}\n",
            *(f"\n{text}\n" for text in _definitions(used)),
            _builder(name, network),
            MAIN,
        ]
    )


def _of_builder(name: str, blueprint: Blueprint, about: str) -> str:
    place, _, function = blueprint.builder.partition(":")
    asked = f"depth={blueprint.depth!r}, width={blueprint.width!r}, resolution={blueprint.resolution!r}"
    return "\n".join(
        [
            f'"""{name}: {about}\n\n{WRITTEN} torch and {place}. Apache-2.0.\n"""\n',
            f"import json\n\nimport torch\n\nimport {place} as builders\n",
            f"RESOLUTION = {blueprint.resolution}\n",
            f'\ndef network() -> torch.nn.Module:\n    """{name} as its builder initialises it."""',
            f"    return builders.{function}({asked})\n",
            MAIN,
        ]
    )


def _definitions(roots: set[str]) -> list[str]:
    """Source of the named definitions of `blocks` and of everything of `blocks` that they use, in file order."""
    text = Path(blocks.__file__).read_text(encoding="utf-8")
    defined: dict[str, ast.stmt] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined[node.target.id] = node
    needed, left = set[str](), sorted(roots)
    while left:
        name = left.pop()
        needed.add(name)
        used = {inner.id for inner in ast.walk(defined[name]) if isinstance(inner, ast.Name)}
        left += sorted(used & defined.keys() - needed)
    return [str(ast.get_source_segment(text, node)) for name, node in defined.items() if name in needed]


def _call(function: str, arguments: dict[str, Any], common: dict[str, Any]) -> str:
    """A call with the channels in front, the rest by name, and what all calls share as `**common`."""
    own = {key: value for key, value in arguments.items() if key not in common}
    front = [str(own.pop(key)) for key in ("inputs", "outputs", "classes") if key in own]
    other = {key: value for key, value in arguments.items() if key in common and value != common[key]}
    shared = f"**(common | {_literal(other)})" if other else "**common"
    return f"{function}({', '.join([*front, *(f'{key}={_literal(value)}' for key, value in own.items()), shared])})"


def _builder(name: str, network: Network) -> str:
    shared = common(network)
    lines = [
        "\ndef network() -> ConvNet:",
        f'    """{name} with torch\'s default weights; `initialise(module, seed)` sets them from a seed."""',
        f"    common = {_literal(shared)}",
        "    stages = [",
    ]
    for block, rows in stage_arguments(network):
        lines += [
            "        nn.Sequential(",
            *(f"            {_call(block, row, shared)}," for row in rows),
            "        ),",
        ]
    first, last = _call("stem", stem_arguments(network), shared), _call("Head", head_arguments(network), shared)
    lines += ["    ]", f"    return ConvNet({first}, stages, {last})", ""]
    return "\n".join(lines)


def _literal(value: object) -> str:
    """Plain values as Python with double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(entry)}" for key, entry in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) else repr(value)
