"""Writes json_schema.json: which values the Python package jsonschema takes, of schemas that constrained generation takes too.

    make_json_schema.py

Run with Python 3.11 and jsonschema 4.26. "cases": a schema, texts of values that meet it, texts of values that do not. The texts are such
as generation writes: properties in the order of the schema and no others, integers without a point, strings without needless escapes; so
that a text is to be let through exactly when its value meets the schema.
"""
import itertools
import json
import pathlib

import jsonschema

INTEGERS = [*range(-30, 31), 99, 100, 101, 127, 128, -128, -129, 255, 256, 999, 1000, 1001, 65535, 65536, 10**15, -10**15]
# Quarters are exact in binary, so that a validator's arithmetic says what the decimals say.
DECIMALS = [x / 4 for x in range(-45, 46)] + [0.001, 0.124, 0.126, 99.875, 100.125, -0.001]
STRINGS = ["", "a", "b", "ab", "abc", "abcd", "aé", "日本", "a1", "A-7", "12", "2024-02-30", "x" * 9, "a b", "\"", "\\"]
SCALARS = [None, True, False, 0, 1, -1, 7, 2.5, "", "a", "ab", "x"]


def arrays(items, most):
    return [list(chosen) for count in range(most + 1) for chosen in itertools.product(items, repeat=count)]


def objects(members):
    """Every choice of the members, each with every one of its values or left out, in their order."""
    choices = [[None, *((name, value) for value in values)] for name, values in members.items()]
    return [dict(filter(None, chosen)) for chosen in itertools.product(*choices)]


def ref(name):
    return {"$ref": f"#/$defs/{name}"}


SCHEMAS = [
    *(({"type": "integer", **bounds}, INTEGERS) for bounds in [
        {}, {"minimum": 0}, {"maximum": 0}, {"exclusiveMinimum": 0}, {"exclusiveMaximum": 0}, {"minimum": 1, "maximum": 12},
        {"minimum": -12, "maximum": -1}, {"minimum": -128, "maximum": 127}, {"minimum": 0, "exclusiveMaximum": 256},
        {"exclusiveMinimum": 9, "exclusiveMaximum": 1000}, {"minimum": 99.5, "maximum": 1000.5}, {"minimum": -1000, "maximum": 1000},
        {"multipleOf": 5}, {"multipleOf": 7, "minimum": -20}, {"multipleOf": 2, "exclusiveMaximum": 10, "minimum": -10},
        {"multipleOf": 1000}, {"minimum": 5, "exclusiveMinimum": 5}, {"maximum": 65535, "minimum": 10}, {"multipleOf": 256}]),
    *(({"type": "number", **bounds}, INTEGERS + DECIMALS) for bounds in [
        {"minimum": 0, "maximum": 1}, {"exclusiveMinimum": 0, "exclusiveMaximum": 1}, {"minimum": -1.25}, {"maximum": 2.5},
        {"exclusiveMinimum": -3.75, "maximum": 0.125}, {"exclusiveMaximum": -0.5}, {"minimum": 0.001, "exclusiveMaximum": 100}]),
    *(({"type": "string", **lengths}, STRINGS) for lengths in [
        {"minLength": 2}, {"maxLength": 2}, {"minLength": 1, "maxLength": 3}, {"pattern": "^[a-c]+$"}, {"pattern": "b"},
        {"pattern": "^\\d", "maxLength": 2}, {"pattern": "^[a-zé]*$", "minLength": 2, "maxLength": 3}]),
    ({"enum": [None, 1, "a", [1, 2]]}, SCALARS + [[2, 1]]),
    ({"const": "ab"}, SCALARS),
    ({"enum": [1, 7, "ab", "x"], "type": ["integer", "string"], "minimum": 2, "minLength": 2}, SCALARS),
    ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "maxLength": 1}, {"const": None}]}, SCALARS),
    ({"oneOf": [{"type": "integer", "minimum": 1}, {"type": "integer", "maximum": -1}, {"type": "boolean"}]}, SCALARS),
    ({"oneOf": [{"type": "string", "minLength": 2}, {"type": "string", "maxLength": 0}, {"enum": [True, 7]}]}, SCALARS),
    ({"allOf": [{"type": ["integer", "string", "null"]}, {"enum": [None, 7, 2.5, "a", True]}]}, SCALARS),
    ({"allOf": [{"type": "integer", "minimum": -5}, {"maximum": 20, "multipleOf": 2}, {"multipleOf": 3}]}, INTEGERS),
    ({"type": "integer", "anyOf": [{"maximum": -3}, {"minimum": 3}], "allOf": [{"multipleOf": 3}]}, INTEGERS),
    ({"$defs": {"small": {"maximum": 10}}, "type": "integer", "minimum": 1, **ref("small")}, INTEGERS),
    ({"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 2}, arrays([0, 1, 5], 3)),
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False}, arrays([1, "a"], 3)),
    ({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}, "minItems": 2, "maxItems": 3},
     arrays([1, "a"], 4)),
    ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False, "minItems": 1}, arrays([1, 2], 3)),
    ({"allOf": [{"type": "array", "items": {"type": ["integer", "null"]}}, {"items": {"enum": [None, 1, "a"]}, "maxItems": 2}]},
     arrays([None, 1, 2, "a"], 3)),
    ({"type": "object", "properties": {"a": {"type": "integer", "maximum": 3}, "b": {"type": "string"}}, "required": ["a"]},
     objects({"a": [1, 3, 4, "x"], "b": ["y", 2]})),
    ({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}}},
                {"properties": {"a": {"minimum": 3}}, "required": ["a"]}]}, objects({"a": [1, 3, "x"], "b": [None, 2]})),
    ({"oneOf": [{"type": "object", "properties": {"kind": {"const": "dot"}, "x": {"type": "integer"}}, "required": ["kind", "x"]},
                {"type": "object", "properties": {"kind": {"const": "line"}, "x": {"type": "integer"}, "to": {"type": "integer"}},
                 "required": ["kind", "x", "to"]}]},
     [{"kind": "dot", "x": 1}, {"kind": "dot"}, {"kind": "line", "x": 1}, {"kind": "line", "x": 1, "to": 2}, {"kind": "dot", "x": "a"}, {}]),
    ({"type": "object", "additionalProperties": {"type": "integer", "minimum": 2}}, objects({"p": [1, 2], "q": [3, "a"]})),
]


def main():
    cases = []
    for schema, values in SCHEMAS:
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        texts = {True: [], False: []}
        for value in values:
            # A float that is whole is an integer to the specification; it is never written for one.
            if isinstance(value, float) and value.is_integer():
                continue
            text = json.dumps(value, ensure_ascii=False)
            if text not in texts[validator.is_valid(value)]:
                texts[validator.is_valid(value)].append(text)
        cases.append({"schema": schema, "valid": texts[True], "invalid": texts[False]})
    out = pathlib.Path(__file__).with_name("json_schema.json")
    out.write_text(json.dumps({"cases": cases}, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
