"""Frozen dataclasses whose fields declare what they may hold: checked when made, read from plain values, described.

One declaration serves three ways: `Declared` checks a value made in Python, `read` makes one from a file (every
fault at once), `json_schema` tells editors. Fields are numbers with a `Range`, literals, texts with a `Form`, other
such dataclasses, tuples of 1 to `LONGEST_LIST` of them, or any of these or None.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints

from scalesearch.errors import SpecError, shown

LONGEST_LIST = 256
"""Entries of a tuple field at most."""


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

    @property
    def schema(self) -> dict[str, Any]:
        """What it allows, for a JSON Schema."""
        found: dict[str, Any] = {"minimum": self.low, "exclusiveMaximum" if self.below else "maximum": self.high}
        return found | ({"not": {"multipleOf": 2}} if self.odd else {})


@dataclass(frozen=True, slots=True)
class Form:
    """What a text consists of: a regular expression from `^` to `$`, and the same in words."""

    pattern: str
    text: str

    def holds(self, value: str) -> bool:
        """Whether a text is of this form."""
        return re.fullmatch(self.pattern, value) is not None

    @property
    def schema(self) -> dict[str, Any]:
        """What it allows, for a JSON Schema."""
        return {"pattern": self.pattern}


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


def check(value: object) -> list[Fault]:
    """Every field of a dataclass that does not hold what its class declares."""
    values, tests = _tests(type(value))
    if all(test(held) for test, held in zip(tests, values(value), strict=True)):
        return []
    found: list[Fault] = []
    for name, kind in _kinds(type(value)).items():
        held = getattr(value, name)
        if not kind.fits(held):
            _instance(kind, held, name, found)
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
    kinds = _kinds(cls)
    faults.extend(_unknown(key, path, list(kinds)) for key in given if key not in kinds)
    made: dict[str, Any] = {}
    for entry in fields(cast("Any", cls)):
        if entry.name in given:
            made[entry.name] = _plain_value(kinds[entry.name], given[entry.name], _joined(path, entry.name), faults)
        elif _is_needed(entry):
            faults.append(Fault(_joined(path, entry.name), " is missing", kinds[entry.name].words))
    if len(faults) > before:
        return None
    try:
        return cls(**made)
    except FieldError as error:
        faults.extend(fault.under(path) for fault in error.faults)
        return None


def json_schema(cls: type[Any]) -> dict[str, Any]:
    """The JSON Schema of a dataclass, with the docstring of its class."""
    properties = {name: kind.schema for name, kind in _kinds(cls).items()}
    for entry in fields(cls):
        if isinstance(entry.default, int | float | str):
            properties[entry.name]["default"] = entry.default
    return {
        "type": "object",
        "description": str(cls.__doc__).partition("\n\n")[0],
        "properties": properties,
        "required": [entry.name for entry in fields(cls) if _is_needed(entry)],
        "additionalProperties": False,
    }


_NAMES = {
    int: ("a whole number", "integer"),
    float: ("a number", "number"),
    str: ("a text", "string"),
    bool: ("true or false", "boolean"),
}
"""Kinds of value in words and in JSON Schema."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A field's annotation, taken apart."""

    held: type[Any]
    """A dataclass, or one of `_NAMES`."""
    is_nested: bool
    """Whether it is a dataclass."""
    options: tuple[Any, ...]
    """Of a literal."""
    mark: Range | Form | None
    is_many: bool
    """Whether it is a tuple of what is held."""
    may_be_none: bool

    @classmethod
    def of(cls, hint: Any) -> _Kind:
        may_be_none = NoneType in get_args(hint)
        one = get_args(hint)[0] if may_be_none else hint
        is_many = get_origin(one) is tuple
        one = get_args(one)[0] if is_many else one
        options = get_args(one) if get_origin(one) is Literal else ()
        held, mark = get_args(one) if get_origin(one) is Annotated else (one, None)
        held = cast("type[Any]", type(options[0]) if options else held)
        return cls(held, is_dataclass(held), options, mark, is_many, may_be_none)

    @property
    def words(self) -> str:
        """What the field may hold."""
        if self.options:
            text = f"one of {', '.join(map(str, self.options))}"
        elif self.is_nested:
            text = "a list" if self.is_many else "a mapping of keys to values"
        else:
            text = _NAMES[self.held][0] + (self.mark.text if self.mark else "")
        return f"{text}, or nothing" if self.may_be_none else text

    def fits(self, value: Any) -> bool:
        """Whether the field may hold a value, unless it is for a dataclass."""
        if value is None or self.is_nested:
            return value is None and self.may_be_none
        if self.options:
            return any(type(value) is type(one) and value == one for one in self.options)
        if isinstance(value, bool) and self.held is not bool:
            return False
        is_held = isinstance(value, int | float if self.held is float else self.held)
        return is_held and (self.mark is None or self.mark.holds(cast("Any", value)))

    @property
    def schema(self) -> dict[str, Any]:
        """A new JSON Schema of the field."""
        if self.options:
            found: dict[str, Any] = {"enum": list(self.options)}
        elif self.is_nested:
            found = json_schema(self.held)
        else:
            found = {"type": _NAMES[self.held][1], **(self.mark.schema if self.mark else {})}
        if self.is_many:
            found = {"type": "array", "items": found, "minItems": 1, "maxItems": LONGEST_LIST}
        return {"anyOf": [found, {"type": "null"}]} if self.may_be_none else found


@cache
def _kinds(cls: type[Any]) -> dict[str, _Kind]:
    """What each field may hold, in order."""
    hints = get_type_hints(cls, include_extras=True)
    return {entry.name: _Kind.of(hints[entry.name]) for entry in fields(cls)}


@cache
def _tests(cls: type[Any]) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[Callable[[Any], bool], ...]]:
    """All fields of a value at once, and for each a fast test: a network is made thousands of times in a search."""
    kinds = _kinds(cls)
    return attrgetter(*kinds), tuple(map(_test, kinds.values()))


def _test(kind: _Kind) -> Callable[[Any], bool]:
    mark, held = kind.mark, kind.held
    if kind.is_nested and not kind.is_many:
        return lambda value: type(value) is held or kind.fits(value)
    if type(mark) is not Range or mark.odd or mark.below or kind.may_be_none:
        return kind.fits
    low, high = mark.low, mark.high
    return lambda value: (type(value) is held and low <= value <= high) or kind.fits(value)


def _is_needed(entry: Field[Any]) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


def _unknown(key: object, path: str, known: list[str]) -> Fault:
    name = shown(key).strip("'")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return Fault(_joined(path, name), f" is not a key{hint}", f"one of {', '.join(known)}")


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:g}"


def _instance(kind: _Kind, value: Any, path: str, faults: list[Fault]) -> None:
    """Add the fault of a value made in Python, if it is one; dataclasses inside were checked when they were made."""
    rows = cast("tuple[Any, ...]", value if kind.is_many and isinstance(value, tuple) else (value,))
    is_right = isinstance(value, tuple) == kind.is_many and all(isinstance(row, kind.held) for row in rows)
    if not (kind.is_nested and is_right):
        made = f"a {'tuple of ' * kind.is_many}{kind.held.__name__}"
        faults.append(Fault(path, f" = {shown(cast('object', value))}", made if kind.is_nested else kind.words))
    elif kind.is_many:
        _has_length(kind, rows, path, faults)


def _has_length(kind: _Kind, rows: Sequence[object], path: str, faults: list[Fault]) -> bool:
    """Whether a tuple field has as many entries as it may; else the fault is added."""
    name = kind.held.__name__.lower()
    if not rows:
        faults.append(Fault(path, " is empty", f"a list of at least one {name}"))
    elif len(rows) > LONGEST_LIST:
        faults.append(Fault(path, f" has {len(rows):,} entries", f"a list of at most {LONGEST_LIST} {name}s"))
    return 0 < len(rows) <= LONGEST_LIST


def _plain_value(kind: _Kind, value: object, path: str, faults: list[Fault]) -> Any:
    """A field from what a file holds, its faults added."""
    if kind.is_many and isinstance(value, list | tuple):
        rows = cast("Sequence[object]", value)
        fits = _has_length(kind, rows, path, faults)
        return tuple(read(kind.held, row, f"{path}[{at}]", faults) for at, row in enumerate(rows)) if fits else ()
    if kind.is_nested and not kind.is_many and value is not None:
        return read(kind.held, value, path, faults)
    if not kind.fits(value):
        faults.append(Fault(path, f" = {shown(value)}", kind.words))
    return value
