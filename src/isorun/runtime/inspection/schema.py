"""Whether a JSON schema that a caller promises can be checked at all; known before anything starts.

The schema is the caller's, never a program's: this is the one place of the host that uses
jsonschema. It must not look anything up outside the schema.
"""

from collections.abc import Callable, Iterator
from typing import Any

_UNBOUNDED = ("pattern", "patternProperties", "uniqueItems")
_BESIDE_PATTERNS = ("additionalProperties", "unevaluatedProperties")
_FAULT_CHARS = 300
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


def value_fault(schema: dict[str, Any], value: object) -> str:
    """What of *value*, a program's, does not fit *schema*, which has no fault; "" if it fits.

    What can take a program's own time for ever is left unlooked-at: `pattern`, `patternProperties`, `uniqueItems`.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend, validator_for

    kind = validator_for(schema, default=Draft202012Validator)
    rest = {name: _without_patterns(kind.VALIDATORS[name]) for name in _BESIDE_PATTERNS if name in kind.VALIDATORS}
    bounded = extend(kind, {**dict.fromkeys(_UNBOUNDED, _holds), **rest})
    try:
        error = next(bounded(schema).iter_errors(value), None)
    except RecursionError:
        return "it is nested too deep"
    return "" if error is None else f"{'.'.join(map(str, error.absolute_path)) or 'arguments'}: {_about(error)}"


def _holds(*_: object) -> Iterator[Any]:
    """A keyword that every value fulfils."""
    return iter(())


def _without_patterns(check: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    """*check*, of the properties that nothing else names; beside patterns those are not known."""

    def checked(validator: object, wanted: object, value: object, schema: dict[str, Any]) -> Iterator[Any]:
        if "patternProperties" not in schema:
            yield from check(validator, wanted, value, schema) or ()

    return checked


def _about(error: Any) -> str:  # noqa: ANN401 - of jsonschema
    """What is asked for; the value itself is the program's and may be a secret of its own."""
    if error.validator in ("required", "additionalProperties"):
        return str(error.message)[:_FAULT_CHARS]
    return f"it must fulfil {error.validator}: {error.validator_value!r}"[:_FAULT_CHARS]


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
