"""Valid files turned into damaged ones, the same for a seed: by bytes, and by the values that stand in them."""

import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from judging import FULL

NUMBERS = (
    *("-1", "0", "-0", "1e400", "-1e400", "1e-400", ".nan", "NaN", ".inf", "-Infinity", "1" * 400, "-" + "9" * 5000),
    *("true", "null", '"x"', "[]", "{}", "[[[[]]]]", "1.5", "0x10", "1_000", "99999999999", "2147483648"),
)
"""What is put in place of a number."""
PIECES = (
    *(b"\x00", b"\xff\xfe", b"\xc3", b"\n", b"\r", b"\t", b"\x1b[31m", b"[red]", b"'", b'"', b"\\", b"{", b"[", b":"),
    *(b"- ", b"&a ", b"*a", b"!!python/object:os.system ", b"<<: *a\n", b"---\n", b"%YAML 9.9\n", b"#", b"| \n", b","),
    *(b"[" * 3000, b"{a: " * 200, b"x" * 5000, "猫\u202e\U0001f642".encode(), b"../../x", b"/etc/passwd", b"a: a\n"),
)
"""What is put between bytes."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(10**30), 10**400, 0.0, -0.0, 0.5, 1e308, -1e308),
    *(float("nan"), float("inf"), float("-inf"), "", "x", "nan", "1", "../../x", "/", "a\x00b", "\x1b[31m", "x" * 5000),
    *([], {}, [None], [[]], {"a": None}, {"": {}}, [1, 2, 3], ["x"] * 300, {"builder": "os:system"}, "猫\u202e\n"),
)
"""What is put in place of a value."""


def torn(content: bytes, few: int = 25, many: int = 10**9) -> Iterator[bytes]:
    """A file cut at offsets, at most so many, and with zeros behind them."""
    step = max(1, len(content) // (many if FULL else few))
    for end in range(0, len(content), step):
        yield content[:end]
        yield content[:end] + bytes(len(content) - end)


def spoiled(content: bytes, seed: int) -> bytes:
    """A damaged copy of a file's bytes, by one to three injuries."""
    draw = random.Random(seed)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        content = draw.choice(INJURIES)(content, draw)
    return content


def _flip(content: bytes, draw: random.Random) -> bytes:
    found = bytearray(content or b"\x00")
    for _ in range(draw.choice((1, 1, 8, 64))):
        found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
    return bytes(found)


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _zero_tail(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + bytes(len(content) - start)


def _span(content: bytes, draw: random.Random) -> tuple[int, int]:
    first, second = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    return first, min(second, first + draw.choice((1, 4, 40, 4000)))


def _drop(content: bytes, draw: random.Random) -> bytes:
    start, end = _span(content, draw)
    return content[:start] + content[end:]


def _double(content: bytes, draw: random.Random) -> bytes:
    start, end = _span(content, draw)
    return content[:end] + content[start:end] * draw.choice((1, 2, 50)) + content[end:]


def _splice(content: bytes, draw: random.Random) -> bytes:
    start, end = _span(content, draw)
    at = draw.randrange(len(content) + 1)
    return content[:at] + content[start:end] + content[at:]


def _insert(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content) + 1)
    return content[:at] + draw.choice(PIECES) + content[at:]


def _noise(content: bytes, draw: random.Random) -> bytes:
    start, end = _span(content, draw)
    return content[:start] + draw.randbytes(end - start) + content[end:]


def _number(content: bytes, draw: random.Random) -> bytes:
    places = [index for index, byte in enumerate(content) if 48 <= byte <= 57]
    if not places:
        return _insert(content, draw)
    at = draw.choice(places)
    end = at
    while end < len(content) and (48 <= content[end] <= 57 or content[end] == 46):
        end += 1
    return content[:at] + draw.choice(NUMBERS).encode() + content[end:]


def _lines(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if len(lines) < 2:
        return _noise(content, draw)
    draw.shuffle(lines) if draw.random() < 0.2 else lines.pop(draw.randrange(len(lines)))
    return b"".join(lines)


INJURIES = (_flip, _cut, _zero_tail, _drop, _double, _splice, _insert, _noise, _number, _number, _lines)


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside plain values."""
    rows = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in rows:
        yield (*path, key)
        yield from places(value, (*path, key))


def replaced(values: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Plain values with another one in a place."""
    found = deepcopy(values)
    holder = found
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return found


def without(values: Any, path: tuple[Any, ...]) -> Any:
    """Plain values without one of them."""
    found = deepcopy(values)
    holder = found
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    return found
