"""A YAML file as plain values: whatever stands in it, it is read at once or refused in one line.

Numbers are those of YAML 1.2: `1e-3` is one; `1:30`, `010` and `1_000` are texts, as are `no` and dates. Refused are
keys given twice, keys that are no texts, tags, and what is far larger or deeper than any file of this project.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml

from scalesearch.errors import PlanError

LARGEST_FILE = 1 << 20
"""Bytes of a file."""
MOST_VALUES = 20_000
"""Values and keys of a file, each alias counting as what it stands for."""
DEEPEST = 64
"""Lists and mappings inside each other."""
LONGEST_NUMBER = 1_000
"""Characters of a number."""

_WORDS: dict[str, float | None] = {
    form: value
    for word, value in {
        "null": None,
        "true": True,
        "false": False,
        ".inf": math.inf,
        "+.inf": math.inf,
        "-.inf": -math.inf,
        ".nan": math.nan,
    }.items()
    for form in (word, word.title(), word.upper())
} | {"": None, "~": None, ".NaN": math.nan}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_REAL = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")

_PLAIN_WORDS = {
    r"found character '\\t'": ("a tab stands where the line is indented", "indent with spaces"),
    r"found character '(.)'": (r"a text begins with \1", "put it in quotes"),
    "sequence entries are not allowed": ("a dash stands behind a key", "begin the list on the next line"),
    "mapping values are not allowed": ("a colon stands where no key can end", "indent the line, or quote the text"),
    "could not find expected ':'": ("a key has no colon", "write it as `key: value`"),
    "expected <block end>": ("the indentation fits no line above", "align what belongs together"),
    "expected ',' or '(.)'": (r"a comma or a closing \1 is missing", "close what is open"),
    "unexpected end of stream": ("a quote is not closed", "close what is open"),
    "expected '<document start>'": ("this is no part of what stands above", "align what belongs together"),
    "expected alphabetic or numeric character": ("a * or & has no name behind it", "put the text in quotes"),
    "expected the node content": ("a value is missing", "write one, or quote the text"),
    "unknown escape character|escape sequence": ("a backslash stands for nothing", "use single quotes"),
    r"unacceptable character #x(\w+)": (r"character 0x\1 cannot be printed", "give a text file"),
}
"""What PyYAML says, as a pattern, and the same for people with the mend."""


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping of texts to anything.

    Raises:
        PlanError: the file cannot be read, is not YAML, or holds something else; the message has the line.
    """
    text = _text(path)
    try:
        values = _Values(text, path).document()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
        raise _unreadable(path, line, column, str(error)) from None
    except yaml.MarkedYAMLError as error:
        problem = str(error.problem)
        mark = error.context_mark if "end of stream" in problem else error.problem_mark  # where the quote begins
        raise _unreadable(path, mark.line if mark else 0, mark.column if mark else 0, problem) from None
    if not isinstance(values, dict):
        raise PlanError(f"{path}: not a mapping of keys to values", mend="write it as lines of `key: value`")
    return cast("dict[str, Any]", values)


def _text(path: Path) -> str:
    """The text of a file of sensible size."""
    mend = "give a YAML file"
    try:
        if not path.is_file():
            fault = "a folder" if path.is_dir() else "not a plain file" if path.exists() else "there is no such file"
            raise PlanError(f"{path}: {fault}", mend=mend)
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise PlanError(f"{path}: line {line} is not UTF-8 text", mend="save the file as UTF-8") from None
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror or error}", mend=mend) from None
    if len(content) > LARGEST_FILE:
        raise PlanError(f"{path}: more than {LARGEST_FILE:,} bytes", mend=mend)
    return text


def _unreadable(path: Path, line: int, column: int, problem: str) -> PlanError:
    place = f"{path}: line {line + 1}, column {column + 1}"
    for pattern, (told, mend) in _PLAIN_WORDS.items():
        if found := re.search(pattern, problem):
            return PlanError(f"{place}: {found.expand(told)}", mend=mend)
    return PlanError(f"{place}: this is not YAML", mend="compare it with a config.yaml that `emit` wrote")


class _Values:
    """PyYAML's events turned into values in one pass: nothing is constructed, and no alias is followed twice."""

    def __init__(self, text: str, path: Path) -> None:
        self.path = path
        self.events: Iterator[Any] = cast("Any", yaml).parse(text, Loader=yaml.SafeLoader)
        self.seen = 0
        """Values so far, each alias counting as what it stands for."""
        self.named: dict[str, tuple[object, int]] = {}
        """By anchor, a value and how many are in it."""

    def document(self) -> object:
        """All that the text holds."""
        _, first = next(self.events), next(self.events)
        if isinstance(first, yaml.StreamEndEvent):
            raise PlanError(f"{self.path}: the file is empty", mend="write it as lines of `key: value`")
        values = self._value(next(self.events), 0)
        _, last = next(self.events), next(self.events)
        if not isinstance(last, yaml.StreamEndEvent):
            raise self._refusal(last, "a second document begins", "give one file for each")
        return values

    def _refusal(self, event: Any, fault: str, mend: str) -> PlanError:
        mark = event.start_mark
        return PlanError(f"{self.path}: line {mark.line + 1}, column {mark.column + 1}: {fault}", mend=mend)

    def _grown(self, event: Any, values: int) -> None:
        self.seen += values
        if self.seen > MOST_VALUES:
            raise self._refusal(event, f"more than {MOST_VALUES:,} values, aliases written out", "write fewer")

    def _value(self, event: Any, depth: int) -> object:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, str(event.anchor))
        before = self.seen
        self._grown(event, 1)
        if depth > DEEPEST:
            raise self._refusal(event, f"lists and mappings are more than {DEEPEST} deep", "write fewer levels")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")[:40]
            raise self._refusal(event, f"a tag, {tag!r}", "write the value without it")
        self.named.pop(event.anchor, None)  # until it is whole, nothing can contain it
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, event.value)
        else:
            value = self._list(depth) if isinstance(event, yaml.SequenceStartEvent) else self._mapping(depth)
        if event.anchor is not None:
            self.named[event.anchor] = value, self.seen - before
        return value

    def _alias(self, event: Any, name: str) -> object:
        if name not in self.named:
            fault = f"*{name[:40]} stands for nothing above it, or for itself"
            raise self._refusal(event, fault, f"put &{name[:40]} before a value")
        value, size = self.named[name]
        self._grown(event, size)
        return value

    def _scalar(self, event: Any, text: str) -> object:
        is_plain, _ = event.implicit
        if not is_plain:  # in quotes, or a block of text
            return text
        if text in _WORDS:
            return _WORDS[text]
        whole = _WHOLE.fullmatch(text)
        if not whole and not _REAL.fullmatch(text):
            return text
        if len(text) > LONGEST_NUMBER:
            raise self._refusal(event, f"a number of {len(text):,} characters", f"use at most {LONGEST_NUMBER:,}")
        return int(text) if whole else float(text)

    def _list(self, depth: int) -> list[object]:
        found: list[object] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            found.append(self._value(event, depth + 1))
        return found

    def _mapping(self, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._value(event, depth + 1)
            if not isinstance(key, str):
                shown = event.value[:40] or "before the colon" if isinstance(event, yaml.ScalarEvent) else "in brackets"
                raise self._refusal(event, f"the key {shown} is not a text", "put it in quotes")
            if key in found:
                raise self._refusal(event, f"the key {key[:40]!r} stands here a second time", "keep one of them")
            value = self._value(next(self.events), depth + 1)
            found[key] = self._merged(event, value) if key == "<<" else value
        merged = cast("dict[str, object]", found.pop("<<", {}))
        return {**merged, **found}

    def _merged(self, event: Any, values: object) -> dict[str, object]:
        """What `<<` takes over from one mapping or several, the first one winning."""
        found: dict[str, object] = {}
        for row in reversed(cast("list[object]", values) if isinstance(values, list) else [values]):
            if not isinstance(row, dict):
                raise self._refusal(event, "<< takes over what is not a mapping", "write it as `<<: *name`")
            found.update(cast("dict[str, object]", row))
        return found
