"""A member as standalone Python: the needed definitions of `nets.blocks`, word for word, and one builder function."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from scalesearch.nets import blocks
from scalesearch.nets.network import head_arguments, stage_arguments, stem_arguments
from scalesearch.spec import Network

IMPORTS = (
    "from __future__ import annotations\n\nimport json\nimport math\n\nimport torch\nfrom torch import Tensor, nn\n"
)
COMMON = ("activation", "norm")
"""Arguments that every call of a network shares."""
MAIN = """
if __name__ == "__main__":
    module = network().eval()
    with torch.no_grad():
        output = module(torch.zeros(1, 3, RESOLUTION, RESOLUTION))
    params = sum(weight.numel() for weight in module.parameters())
    print(json.dumps({"params": params, "output": list(output.shape)}))
"""


def source(name: str, network: Network, about: str) -> str:
    """Python source that defines the network with torch alone; run as a program, it prints its parameters.

    Args:
        name: the member's name.
        network: what to define.
        about: one line on where it comes from.
    """
    used = {"ConvNorm", "Head", "ConvNet", "initialise"} | {stage.block for stage in network.stages}
    return "\n".join(
        [
            f'"""{name}: {about}\n\nWritten by scalesearch; needs torch alone. Apache-2.0.\n"""\n',
            IMPORTS,
            f"RESOLUTION = {network.resolution}\n",
            *(f"\n{text}\n" for text in _definitions(used)),
            _builder(name, network),
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


def _call(function: str, arguments: dict[str, Any]) -> str:
    """A call with the channels in front, the rest by name, and what all calls share as `**common`."""
    own = {key: value for key, value in arguments.items() if key not in COMMON}
    front = [str(own.pop(key)) for key in ("inputs", "outputs", "classes") if key in own]
    return f"{function}({', '.join([*front, *(f'{key}={value!r}' for key, value in own.items()), '**common'])})"


def _builder(name: str, network: Network) -> str:
    head = head_arguments(network)
    common = ", ".join(f'"{key}": {_literal(head[key])}' for key in COMMON)
    stem = _call("ConvNorm", stem_arguments(network))
    if network.stem.pool > 1:
        stem = f"nn.Sequential({stem}, nn.MaxPool2d(3, {network.stem.pool}, padding=1))"
    lines = [
        "\ndef network() -> ConvNet:",
        f'    """{name} with torch\'s default weights; `initialise(module, seed)` sets them from a seed."""',
        f"    common = {{{common}}}",
        f"    stem = {stem}",
        "    stages = [",
    ]
    for block, rows in stage_arguments(network):
        lines += ["        nn.Sequential(", *(f"            {_call(block, row)}," for row in rows), "        ),"]
    lines += ["    ]", f"    return ConvNet(stem, stages, {_call('Head', head)})", ""]
    return "\n".join(lines)


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
