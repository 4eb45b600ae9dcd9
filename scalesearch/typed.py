"""Whether frozen dataclasses hold what their annotations say: for values that come from a file that anyone may edit.

Python checks no annotation. What is read back is compared with it here before anything computes with it; numbers that
no computation could hold (infinities, whole numbers beyond 64 bits) fit no field.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from scalesearch.errors import shown


def mistyped(value: object, path: str = "") -> Iterator[str]:
    """Every field of a dataclass, and of those inside it, that holds another kind of value than it declares.

    Args:
        value: an instance.
        path: where it stands, such as `space`.
    """
    for name, hint in _hints(type(value)).items():
        held, place = getattr(value, name), f"{path}.{name}" if path else name
        if not _fits(hint, held):
            yield f"{place} = {shown(held)}"
        elif is_dataclass(held):
            yield from mistyped(held, place)
        elif isinstance(held, tuple):
            for index, one in enumerate(cast("tuple[object, ...]", held)):
                yield from mistyped(one, f"{place}[{index}]") if is_dataclass(one) else ()


@cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {entry.name: hints[entry.name] for entry in fields(cls)}


def _fits(hint: Any, held: Any) -> bool:
    """Whether a value is of a kind; kinds other than numbers, texts, choices, tuples and dataclasses are not judged."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(arguments[0], held)
    if origin in (Union, UnionType):
        return any(_fits(one, held) for one in arguments)
    if origin is Literal:
        return any(type(held) is type(one) and held == one for one in arguments)
    if origin is tuple:
        return isinstance(held, tuple) and all(_fits(arguments[0], one) for one in cast("tuple[Any, ...]", held))
    if hint is int or (hint is float and type(held) is int):
        return type(held) is int and abs(held) < 2**63
    if hint is float:
        return type(held) is float and math.isfinite(held)
    if hint in (str, bool, NoneType) or is_dataclass(hint):
        return isinstance(held, hint)
    return True
