"""Values that no annotation allows are told by their place; those that one allows are not."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from scalesearch.typed import mistyped


@dataclass(frozen=True)
class Inner:
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    count: Any = 1
    size: int = 1
    limit: int | None = None
    weight: float = 1.0
    name: str = ""
    kind: Literal["a", 1] = "a"
    marked: Annotated[float, "of some kind"] = 1.0
    names: tuple[str, ...] = ()
    inner: Inner = Inner()
    rows: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("size", value) for value in (True, 1.0, "1", None, 2**63, [])),
        *(("weight", value) for value in (True, "1", None, float("nan"), float("inf"), 10**400, ())),
        *(("limit", value) for value in ("1", 1.5, False)),
        *(("name", value) for value in (None, 1, b"x")),
        *(("kind", value) for value in ("b", True, 1.0)),
        *(("marked", value) for value in ("x", None)),
        *(("names", value) for value in (["a"], (1,), "a", None)),
        *(("inner", value) for value in ({}, None)),
        *(("rows", value) for value in ((1,), [Inner()])),
    ],
)
def test_a_value_that_the_annotation_does_not_allow_is_told(field: str, value: Any):
    [told] = mistyped(Outer(**{field: value}))
    assert told.startswith(f"{field} = ")


@pytest.mark.parametrize(
    "value",
    [
        Outer(),
        Outer(count=object(), size=-(2**62), limit=3, weight=2, kind=1, marked=3, names=("a", "b"), rows=(Inner(),)),
    ],
)
def test_what_the_annotations_allow_is_not_told(value: Outer):
    assert list(mistyped(value)) == []


def test_a_value_inside_is_told_with_the_way_to_it():
    found = Outer(inner=Inner(share="x"), rows=(Inner(), Inner(share=True)))  # type: ignore[arg-type]
    assert list(mistyped(found, "plan")) == ["plan.inner.share = 'x'", "plan.rows[1].share = True"]
