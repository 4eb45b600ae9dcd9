"""What a dataclass declares holds for values made in Python and read from a file alike, and is described as it is."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import jsonschema
import pytest

from scalesearch.declared import (
    LONGEST_LIST,
    Declared,
    Fault,
    FieldError,
    Form,
    Range,
    json_schema,
    read,
    shown,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel(Declared):
    """What a car runs on."""

    spokes: Annotated[int, Range(1, 99, odd=True)]
    grip: Annotated[float, Range(0, 1, below=True)] = 0.5

    place = "wheel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Car(Declared):
    """What runs on wheels.

    And more that no schema needs.
    """

    wheels: tuple[Wheel, ...]
    spare: Wheel | None = None
    paint: Literal["red", "blue", 3] = "red"
    plate: Annotated[str, Form(r"^[A-Z]{1,3}$", " of one to three capitals")] | None = None
    owner: str = "nobody"
    sold: bool = False
    radio: Wheel = field(default_factory=lambda: Wheel(spokes=1))

    place = "car"

    def contradictions(self):
        if self.sold and self.owner == "nobody":
            yield Fault("owner", " = 'nobody'", "a name where sold is true")


WHEEL: dict[str, Any] = {"spokes": 3}
ANY = Wheel(spokes=3)

VALUES = [
    ("spokes", 2, "a whole number, odd, so that padding is symmetric, from 1 to 99"),
    ("spokes", 101, "a whole number, odd"),
    ("spokes", 3.0, "a whole number"),
    ("spokes", True, "a whole number"),
    ("spokes", "3", "a whole number"),
    ("spokes", None, "a whole number"),
    ("spokes", float("nan"), "a whole number"),
    ("grip", 1, "a number from 0 to below 1"),
    ("grip", float("nan"), "a number"),
    ("grip", float("inf"), "a number"),
    ("grip", False, "a number"),
    ("grip", [], "a number"),
    ("grip", 10**5000, "a number"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), VALUES, ids=shown)
def test_a_field_refuses_the_same_values_in_python_and_from_a_file(name: str, value: object, allowed: str):
    given: dict[str, Any] = {**WHEEL, name: value}
    with pytest.raises(FieldError) as caught:
        Wheel(**given)
    faults: list[Fault] = []
    assert read(Wheel, given, "", faults) is None
    assert caught.value.faults == faults
    assert [fault.text for fault in faults] == [f"{name} = {shown(value)}; it must be {faults[0].allowed}"]
    assert faults[0].allowed.startswith(allowed)
    assert str(caught.value) == f"wheel.{faults[0].text}"


CARS = [
    ({}, "wheels is missing; it must be a list"),
    ({"wheels": []}, "wheels is empty; it must be a list of at least one wheel"),
    ({"wheels": None}, "wheels = None; it must be a list"),
    ({"wheels": {"spokes": 3}}, "wheels = {'spokes': 3}; it must be a list"),
    ({"wheels": "abc"}, "wheels = 'abc'; it must be a list"),
    ({"wheels": [None]}, "wheels[0] = None; it must be a mapping of keys to values"),
    (
        {"wheels": [WHEEL, {"spokes": 3, "spoke": 3}]},
        "wheels[1].spoke is not a key (did you mean spokes?); it must be one of spokes",
    ),
    ({"wheels": [WHEEL] * 257}, "wheels has 257 entries; it must be a list of at most 256 wheels"),
    ({"wheels": [WHEEL], "spare": 3}, "spare = 3; it must be a mapping"),
    ({"wheels": [WHEEL], "spare": {"spokes": 0}}, "spare.spokes = 0; it must be"),
    ({"wheels": [WHEEL], "radio": None}, "radio = None; it must be a mapping of keys to values"),
    ({"wheels": [WHEEL], "paint": "Red"}, "paint = 'Red'; it must be one of red, blue, 3"),
    ({"wheels": [WHEEL], "paint": 3.0}, "paint = 3.0"),
    ({"wheels": [WHEEL], "paint": []}, "paint = []"),
    ({"wheels": [WHEEL], "plate": "ab"}, "plate = 'ab'; it must be a text of one to three capitals, or nothing"),
    ({"wheels": [WHEEL], "plate": "AB\n"}, r"plate = 'AB\n'"),
    ({"wheels": [WHEEL], "plate": 7}, "plate = 7"),
    ({"wheels": [WHEEL], "owner": None}, "owner = None; it must be a text"),
    ({"wheels": [WHEEL], "sold": 1}, "sold = 1; it must be true or false"),
    ({"wheels": [WHEEL], "sold": True}, "owner = 'nobody'; it must be a name where sold is true"),
    ({"wheels": [WHEEL], 5: 1}, "5 is not a key; it must be one of wheels, spare, "),
    ({"wheels": [WHEEL], None: 1}, "None is not a key"),
    ([], "car = []; it must be a mapping of keys to values"),
    (None, "car = None"),
]


@pytest.mark.parametrize(("values", "told"), CARS)
def test_a_value_from_a_file_is_refused_by_its_path(values: object, told: str):
    faults: list[Fault] = []
    assert read(Car, values, "", faults) is None
    (fault,) = faults
    assert fault.text.startswith(told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"wheels": [ANY]}, "car.wheels = [Wheel("),
        ({"wheels": ANY}, "car.wheels = Wheel("),
        ({"wheels": (ANY, 3)}, "car.wheels = (Wheel("),
        ({"wheels": ()}, "car.wheels is empty"),
        ({"wheels": (ANY,) * 257}, "car.wheels has 257 entries"),
        ({"wheels": None}, "car.wheels = None"),
        ({"spare": (ANY,)}, "car.spare = (Wheel("),
        ({"spare": 3}, "car.spare = 3; it must be a Wheel"),
        ({"radio": None}, "car.radio = None; it must be a Wheel"),
        ({"plate": "A-"}, "car.plate = 'A-'"),
    ],
)
def test_a_value_made_in_python_is_refused_by_its_place(change: dict[str, Any], told: str):
    with pytest.raises(FieldError) as caught:
        Car(**{"wheels": (ANY,), **change})
    assert str(caught.value).startswith(told)


def test_what_is_left_out_has_its_default_and_what_is_given_is_read():
    faults: list[Fault] = []
    assert read(Car, {"wheels": [WHEEL]}, "", faults) == Car(wheels=(ANY,))
    given = {"wheels": [WHEEL, WHEEL], "spare": WHEEL, "paint": 3, "plate": "AB", "owner": "me", "sold": True}
    found = read(Car, given, "", faults)
    assert found == Car(wheels=(ANY, ANY), spare=ANY, paint=3, plate="AB", owner="me", sold=True)
    assert faults == []


def test_all_faults_are_told_under_the_path_of_the_value():
    faults: list[Fault] = []
    assert read(Car, {"wheels": [{"spokes": 0}, {"grip": 2}], "colour": 1}, "garage[4]", faults) is None
    assert [fault.path for fault in faults] == [
        "garage[4].colour",
        "garage[4].wheels[0].spokes",
        "garage[4].wheels[1].spokes",
        "garage[4].wheels[1].grip",
    ]


def test_values_that_contain_themselves_do_no_harm():
    endless: dict[str, Any] = {}
    endless |= {"wheels": [endless], "spare": endless}
    faults: list[Fault] = []
    assert read(Car, endless, "", faults) is None
    assert all(len(fault.text) < 500 for fault in faults)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (10**5000, "a whole number of 16,610 bits"),
        ([-(10**5000)], "[a whole number of 16,610 bits]"),
        (True, "True"),
        (2**100, str(2**100)),
        (object(), "<object object>"),
        ([[[[1]]]], "[[[...]]]"),
    ],
    ids=shown,
)
def test_any_value_is_shown(value: object, told: str):
    assert shown(value) == told


def test_any_value_is_shown_in_a_few_characters():
    assert len(shown("x" * 10**6)) <= 60
    assert len(shown({n: [n] * 99 for n in range(999)})) < 200


def test_the_schema_says_what_the_fields_declare():
    schema = json_schema(Car)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["description"] == "What runs on wheels."
    assert schema["required"] == ["wheels"]
    assert schema["additionalProperties"] is False
    wheel = {
        "type": "object",
        "description": "What a car runs on.",
        "properties": {
            "spokes": {"type": "integer", "minimum": 1, "maximum": 99, "not": {"multipleOf": 2}},
            "grip": {"type": "number", "minimum": 0, "exclusiveMaximum": 1, "default": 0.5},
        },
        "required": ["spokes"],
        "additionalProperties": False,
    }
    assert schema["properties"] == {
        "wheels": {"type": "array", "items": wheel, "minItems": 1, "maxItems": LONGEST_LIST},
        "spare": {"anyOf": [wheel, {"type": "null"}]},
        "paint": {"enum": ["red", "blue", 3], "default": "red"},
        "plate": {"anyOf": [{"type": "string", "pattern": "^[A-Z]{1,3}$"}, {"type": "null"}]},
        "owner": {"type": "string", "default": "nobody"},
        "sold": {"type": "boolean", "default": False},
        "radio": wheel,
    }


def test_a_schema_is_new_each_time():
    json_schema(Car)["properties"].clear()
    assert json_schema(Car)["properties"]


def test_a_declared_value_is_checked_when_it_is_changed_too():
    with pytest.raises(FieldError, match=r"wheel\.spokes = 4"):
        dataclasses.replace(ANY, spokes=4)
