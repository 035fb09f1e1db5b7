"""Whether a JSON schema that a caller promises can be checked at all; known before anything starts.

The schema is the caller's, never a program's: this is the one place of the host that uses
jsonschema. It must not look anything up outside the schema.
"""

from collections.abc import Iterator
from typing import Any

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def schema_fault(schema: dict[str, Any]) -> str:
    """What is wrong with *schema*, going on from its name; "" if a value can be checked against it."""
    # Here, and not above: 60 ms that a contract without a schema does not pay.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
        return _leads_out(schema)
    except SchemaError as error:
        where = "".join(f"[{step!r}]" for step in error.absolute_path)
        return f"is not a JSON schema at ${where}: {error.message[:200]}"
    except RecursionError:
        return "is nested too deep"


def _leads_out(schema: dict[str, Any]) -> str:
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    resolver = Registry().resolver_with_root(resource)  # which retrieves nothing
    for reference in _references(schema):
        if not reference.startswith("#"):
            return f"refers to {reference[:60]!r}; only #/... within the schema can be looked up"
        try:
            resolver.lookup(reference)
        except (Unresolvable, ValueError, TypeError, LookupError):
            return f"refers to {reference[:60]!r}, which is not in it"
    return ""


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (value[key] for key in _REFERENCES if isinstance(value.get(key), str))
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _references(inner)
