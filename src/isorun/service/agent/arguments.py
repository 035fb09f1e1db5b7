"""The arguments of a call as the definition of its tool has them. Pure.

`model_request` knows what any run may be asked for; a definition offers a part of that. The texts are for the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from isorun.core.errors import InvalidRequest
from isorun.core.text import shown


def arguments_of(tool: Mapping[str, Any], text: str, *, was_cut: bool = False) -> dict[str, Any]:
    """The arguments in *text* that *tool* takes, those that are null left out. Raises `InvalidRequest`.

    *was_cut*: the model's answer ended because it was too long, so its arguments may have no end.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "your answer was cut because it is too long: write a shorter program" if was_cut else str(error)
        raise InvalidRequest(f"the arguments of {tool['name']} are not JSON: {why}", code="invalid_json") from None
    schema = tool["parameters"]
    known = ", ".join(schema["properties"])
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"the arguments of {tool['name']} must be a JSON object with {known}", code="invalid_json")
    for name in given:
        if name not in schema["properties"]:
            raise InvalidRequest(f"{tool['name']} has no argument {shown(name)}; it has {known}", code="unknown_option")
    given = {name: value for name, value in given.items() if value is not None}
    for name in schema["required"]:
        if name not in given:
            raise InvalidRequest(f"{tool['name']} needs the argument {name}", code=f"missing_{name}")
    return given
