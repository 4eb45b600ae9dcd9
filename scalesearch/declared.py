"""Frozen dataclasses whose fields declare what they may hold: checked when made, read from plain values, described.

One declaration serves three ways: `Declared` checks a value made in Python, `read` makes one from a file (every
fault at once), `json_schema` tells editors. Fields are numbers with a `Range`, literals, strings, other such
dataclasses, tuples of them, or any of these or None.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from scalesearch.errors import SpecError


@dataclass(frozen=True, slots=True)
class Range:
    """Least and largest value of a number; `odd` leaves out the even ones, `below` the largest itself."""

    low: float
    high: float
    odd: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies inside; nan lies in no range."""
        inside = self.low <= value <= self.high
        return inside and not (self.odd and value % 2 == 0) and not (self.below and value == self.high)

    @property
    def text(self) -> str:
        """What it allows, for messages."""
        odd = ", odd, so that padding is symmetric," if self.odd else ""
        return f"{odd} from {self.low:g} to {'below ' if self.below else ''}{_plain(self.high)}"


class Fault(NamedTuple):
    """A field that holds what it may not."""

    path: str
    """`stages[2].width`."""
    found: str
    """` = 0`, or another text on what is wrong."""
    allowed: str
    """What it must be."""

    def under(self, place: str) -> Fault:
        """The same fault of a value that is itself a field."""
        return self._replace(path=_joined(place, self.path))

    @property
    def text(self) -> str:
        """One line."""
        return f"{self.path}{self.found}; it must be {self.allowed}"


class FieldError(SpecError):
    """A value that its class does not declare."""

    def __init__(self, faults: list[Fault], place: str) -> None:
        self.faults = faults
        first = faults[0].under(place)
        super().__init__(f"{first.path}{first.found}", mend=f"it must be {first.allowed}")


class Declared:
    """Parent of dataclasses that hold what their fields declare, or are not made."""

    __slots__ = ()
    place: ClassVar[str] = ""
    """Name of the value in messages."""

    def __post_init__(self) -> None:
        faults = check(self) or list(self.contradictions())
        if faults:
            raise FieldError(faults, self.place)

    def contradictions(self) -> Iterable[Fault]:
        """What is wrong although every field by itself is right."""
        return ()


T = TypeVar("T")
_short = reprlib.Repr()
_short.maxlevel, _short.maxlist, _short.maxdict, _short.maxtuple, _short.maxstring = 2, 4, 4, 4, 60


def shown(value: object) -> str:
    """A value in a few characters, however large or deep it is."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a whole number of {value.bit_length()} bits"
    return re.sub(r" at 0x[0-9a-f]+", "", _short.repr(value))


def check(value: object) -> list[Fault]:
    """Every field of a dataclass that does not hold what its class declares."""
    found: list[Fault] = []
    for name, kind in declared(type(value)).items():
        _instance(kind, getattr(value, name), name, found)
    return found


def read(cls: type[T], values: object, path: str, faults: list[Fault]) -> T | None:
    """A dataclass from a mapping, as YAML or JSON give it; None where `faults` grew.

    Follows the declaration, not the values: values that contain themselves do no harm.
    """
    before = len(faults)
    if not isinstance(values, Mapping):
        faults.append(Fault(path or cls.__name__.lower(), f" = {shown(values)}", "a mapping of keys to values"))
        return None
    given = cast("Mapping[Any, Any]", values)
    kinds = declared(cls)
    names = ", ".join(kinds)
    faults.extend(
        Fault(_joined(path, shown(key).strip("'")), " is not a key", f"one of {names}")
        for key in given
        if key not in kinds
    )
    made: dict[str, Any] = {}
    for entry in fields(cast("Any", cls)):
        if entry.name in given:
            made[entry.name] = _plain_value(kinds[entry.name], given[entry.name], _joined(path, entry.name), faults)
        elif entry.default is MISSING and entry.default_factory is MISSING:
            faults.append(Fault(_joined(path, entry.name), " is missing", _allowed(kinds[entry.name])))
    if len(faults) > before:
        return None
    try:
        return cls(**made)
    except FieldError as error:
        faults.extend(fault.under(path) for fault in error.faults)
        return None


def json_schema(cls: type[Any]) -> dict[str, Any]:
    """The JSON Schema of a dataclass, with the docstring of its class."""
    kinds = declared(cls)
    needed = [one.name for one in fields(cls) if one.default is MISSING and one.default_factory is MISSING]
    properties: dict[str, Any] = {}
    for entry in fields(cls):
        properties[entry.name] = _schema(kinds[entry.name])
        if isinstance(entry.default, int | float | str):
            properties[entry.name]["default"] = entry.default
    return {
        "type": "object",
        "description": str(cls.__doc__).partition("\n\n")[0],
        "properties": properties,
        "required": needed,
        "additionalProperties": False,
    }


@cache
def declared(cls: type[Any]) -> dict[str, Any]:
    """The declared kind of each field, in order."""
    hints = get_type_hints(cls, include_extras=True)
    return {entry.name: hints[entry.name] for entry in fields(cls)}


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:g}"


def _options(kind: Any) -> tuple[Any, ...]:
    """The kinds that a field may be, None left out, and whether None is one of them in the last place."""
    return (
        tuple(one for one in get_args(kind) if one is not NoneType)
        if get_origin(kind) in (Union, UnionType)
        else (kind,)
    )


def _may_be_none(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind)


def _range(kind: Any) -> tuple[type, Range]:
    base, *marks = get_args(kind)
    return base, next(mark for mark in marks if isinstance(mark, Range))


def _allowed(kind: Any) -> str:
    """What a field may hold, in words."""
    (kind, *_), nothing = _options(kind), _may_be_none(kind)
    if get_origin(kind) is Annotated:
        base, limits = _range(kind)
        text = f"a {'whole ' if base is int else ''}number{limits.text}"
    elif get_origin(kind) is Literal:
        text = f"one of {', '.join(map(str, get_args(kind)))}"
    elif get_origin(kind) is tuple:
        text = "a list"
    else:
        text = "a text" if kind is str else "true or false" if kind is bool else "a mapping of keys to values"
    return f"{text}, or nothing" if nothing else text


def _fits(kind: Any, value: object) -> bool:
    """Whether a value is what a field that is no dataclass and no tuple of them may hold."""
    if value is None:
        return _may_be_none(kind)
    (kind, *_) = _options(kind)
    if get_origin(kind) is Literal:
        return isinstance(value, str | int) and value in get_args(kind)
    if get_origin(kind) is Annotated:
        base, limits = _range(kind)
        is_number = isinstance(value, int if base is int else int | float) and not isinstance(value, bool)
        return is_number and limits.holds(cast("float", value))
    return isinstance(value, kind)


def _nested(kind: Any) -> type[Any] | None:
    """The dataclass that a field or the entries of a tuple field hold, if they do."""
    (kind, *_) = _options(kind)
    inner = get_args(kind)[0] if get_origin(kind) is tuple else kind
    return inner if isinstance(inner, type) and is_dataclass(inner) else None


def _instance(kind: Any, value: object, path: str, faults: list[Fault]) -> None:
    """Add the fault of a value made in Python; dataclasses inside have been checked when they were made."""
    nested, is_many = _nested(kind), get_origin(_options(kind)[0]) is tuple
    if nested is None or value is None:
        fits = _fits(kind, value)
    elif is_many:
        fits = isinstance(value, tuple) and all(isinstance(one, nested) for one in cast("tuple[Any, ...]", value))
    else:
        fits = isinstance(value, nested)
    if not fits:
        allowed = f"a {'tuple of ' if is_many else ''}{nested.__name__}" if nested else _allowed(kind)
        faults.append(Fault(path, f" = {shown(value)}", allowed))


def _plain_value(kind: Any, value: object, path: str, faults: list[Fault]) -> Any:
    """A field from what a file holds, its faults added."""
    nested, is_many = _nested(kind), get_origin(_options(kind)[0]) is tuple
    if nested is not None and value is not None and not is_many:
        return read(nested, value, path, faults)
    if nested is not None and is_many and isinstance(value, list | tuple):
        rows = cast("Sequence[object]", value)
        return tuple(read(nested, row, f"{path}[{index}]", faults) for index, row in enumerate(rows))
    if is_many or not _fits(kind, value):
        faults.append(Fault(path, f" = {shown(cast('object', value))}", _allowed(kind)))
    return value


def _schema(kind: Any) -> dict[str, Any]:
    if _may_be_none(kind):
        return {"anyOf": [_schema(_options(kind)[0]), {"type": "null"}]}
    if get_origin(kind) is Annotated:
        base, limits = _range(kind)
        found: dict[str, Any] = {"type": "integer" if base is int else "number", "minimum": limits.low}
        found["exclusiveMaximum" if limits.below else "maximum"] = limits.high
        return found | ({"not": {"multipleOf": 2}} if limits.odd else {})
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    nested = _nested(kind)
    if get_origin(kind) is tuple and nested is not None:
        return {"type": "array", "items": json_schema(nested)}
    if nested is not None:
        return json_schema(nested)
    return {"type": {str: "string", bool: "boolean"}.get(kind, "object")}
