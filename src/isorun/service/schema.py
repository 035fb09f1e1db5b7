"""The bodies that the HTTP interface takes. Unknown fields are refused: a slip would silently change a run."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_CODE = 1 << 20
_TEXT = 200
FileId = Annotated[str, Field(pattern="^f_[0-9a-f]{16}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunBody(_Body):
    """A run that is asked for. What each field means is said in docs/exec/run-python.md."""

    code: Annotated[str, Field(min_length=1, max_length=_CODE)]
    contract: list[dict[str, Any]] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] | None = None
    prog_name: Annotated[str, Field(max_length=64)] | None = None
    turn_id: Annotated[str, Field(max_length=_TEXT)] | None = None
    stdin: Annotated[str, Field(max_length=_CODE)] | None = None
    argv: Annotated[list[str], Field(max_length=100)] = []
    env: dict[str, str] = {}
    tools: Annotated[list[str], Field(max_length=200)] | None = None
    inputs: Annotated[list[FileId], Field(max_length=100)] = []
    session: Annotated[str, Field(max_length=64)] | None = None
    network: Literal["none", "loopback"] = "none"


class ConversationBody(_Body):
    """A new conversation."""

    title: Annotated[str, Field(max_length=_TEXT)] = ""


class MessageBody(_Body):
    """Something that the user says: a scenario, or for the agent."""

    text: Annotated[str, Field(min_length=1, max_length=20_000)]
    files: Annotated[list[FileId], Field(max_length=100)] = []
