"""An answer of a model, put together of the chunks that it came in.

Pure: values in, values out. What a server sends is hostile and differs from server to server, so each part is looked
at before it is used, and the known differences are read as if they were what OpenAI sends: arguments as an object,
tool calls without an index, or all with the same one, `finish_reason: stop` beside tool calls, chunks with usage and
no choices, `reasoning_content`, text in parts, and a message that came whole.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_CALLS = 16  # tool calls of one answer
_NAME_CHARS = 200  # of a tool's name, of which the API of any model takes 64
_MOST_ASKED = 1000  # pieces
_REASONING = ("reasoning_content", "reasoning")


class Broken(ValueError):
    """A chunk that is not what the protocol has. The text says what was wrong."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool: *arguments* is JSON text as the model wrote it, which need not be JSON."""

    id: str
    name: str
    arguments: str

    def told(self) -> dict[str, Any]:
        """As it stands in an assistant's message."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model said in one go: text, calls of tools, or both."""

    text: str
    calls: tuple[ToolCall, ...]
    reasoning: str = ""  # a few servers want it back while the calls are answered
    cut: bool = False  # it ended because it was too long for the server
    usage: Mapping[str, int] = field(default_factory=dict)

    @property
    def chars(self) -> int:
        """All that it wrote, in characters."""
        return len(self.text) + len(self.reasoning) + sum(len(call.arguments) for call in self.calls)

    def message(self) -> dict[str, Any]:
        """The assistant's message for the history."""
        told: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.calls:
            told["tool_calls"] = [call.told() for call in self.calls]
            if self.reasoning:
                told["reasoning_content"] = self.reasoning
        return told


@dataclass(slots=True)
class _Part:
    """A tool call that is being written."""

    index: object = None
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def is_whole(self) -> bool:
        """Whether the arguments are an object already. Never of very many pieces: each time costs them all."""
        if len(self.arguments) > _MOST_ASKED or not self.arguments or not self.arguments[-1].rstrip().endswith("}"):
            return False
        try:
            return isinstance(json.loads("".join(self.arguments)), dict)
        except (ValueError, RecursionError):
            return False


class Letters:
    """Text that arrives in pieces. A character that was split between two of them is given out whole."""

    def __init__(self) -> None:
        self._held = ""
        self._pieces: list[str] = []

    def add(self, piece: str) -> str:
        """The part of the text that can be shown now. What no store can hold is replaced."""
        piece = self._held + piece
        self._held = piece[-1:] if "\ud800" <= piece[-1:] <= "\udbff" else ""
        shown = storable(piece[: len(piece) - len(self._held)])
        self._pieces.append(shown)
        return shown

    def whole(self) -> str:
        return "".join(self._pieces)


def storable(text: str) -> str:
    """*text* with the replacement character for lone surrogates, which are not UTF-8, and for NUL."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


class Gathering:
    """The chunks of one answer, in order. `add` gives the text that a chunk brought."""

    def __init__(self) -> None:
        self.ended = False  # whether a reason to finish has come
        self._text, self._reasoning = Letters(), Letters()
        self._parts: list[_Part] = []
        self._finish: object = None
        self._usage: dict[str, int] = {}

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self._text.whole()

    def add(self, chunk: object) -> str:
        """Take in one chunk, or a whole answer. Raises `Broken`."""
        if not isinstance(chunk, Mapping):
            raise Broken("a chunk is not a JSON object")
        self._count(chunk.get("usage"))
        choices = chunk.get("choices")
        if not isinstance(choices, Sequence) or isinstance(choices, str):
            if choices is None and "usage" in chunk:
                return ""
            raise Broken("a chunk has no list of choices")
        if not choices:  # usage alone, or a server's notes
            return ""
        choice = choices[0]
        if not isinstance(choice, Mapping):
            raise Broken("a choice is not a JSON object")
        if choice.get("finish_reason"):
            self.ended, self._finish = True, choice["finish_reason"]
        said = choice.get("delta")
        if not isinstance(said, Mapping):
            said = choice.get("message")
        return self._said(said) if isinstance(said, Mapping) else ""

    def answer(self) -> Answer:
        """The whole, once the last chunk was added. The ids of its calls are there, and differ."""
        seen: set[str] = set()
        calls = []
        for part in self._parts:
            one = part.id if part.id and part.id not in seen else f"call_{secrets.token_hex(6)}"
            seen.add(one)
            calls.append(ToolCall(one, storable(part.name), storable("".join(part.arguments))))
        return Answer(
            text=self._text.whole(),
            calls=tuple(calls),
            reasoning=self._reasoning.whole(),
            cut=self._finish == "length",
            usage=self._usage,
        )

    def _said(self, said: Mapping[str, Any]) -> str:
        for key in _REASONING:
            if isinstance(said.get(key), str) and said[key]:
                self._reasoning.add(said[key])
                break
        calls = said.get("tool_calls")
        if isinstance(calls, Sequence) and not isinstance(calls, str):
            for call in calls:
                self._called(call)
        return self._text.add(_words(said.get("content")))

    def _called(self, call: object) -> None:
        if not isinstance(call, Mapping):
            raise Broken("a tool call is not a JSON object")
        function = call.get("function")
        function = function if isinstance(function, Mapping) else {}
        index, name = call.get("index"), function.get("name")
        own = call["id"] if isinstance(call.get("id"), str) else ""
        name = name[:_NAME_CHARS] if isinstance(name, str) else ""
        part = self._part(index if isinstance(index, int) else None, own[:_NAME_CHARS], name)
        part.id = part.id or storable(own[:_NAME_CHARS])
        part.name = part.name or name
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            part.arguments.append(arguments)
        elif isinstance(arguments, Mapping):
            part.arguments = [json.dumps(arguments)]

    def _part(self, index: int | None, own: str, name: str) -> _Part:
        """The call that a piece belongs to; a new one if it begins one."""
        last = self._parts[-1] if self._parts else None
        if index is not None:
            last = next((part for part in reversed(self._parts) if part.index == index), None)
        if last is not None and not _begins(last, own, name):
            return last
        if len(self._parts) == MAX_CALLS:
            raise Broken(f"an answer has more than {MAX_CALLS} tool calls")
        self._parts.append(_Part(index))
        return self._parts[-1]

    def _count(self, usage: object) -> None:
        if isinstance(usage, Mapping):
            self._usage = {
                key: usage[key] for key in ("prompt_tokens", "completion_tokens") if isinstance(usage.get(key), int)
            }


def _begins(last: _Part, own: str, name: str) -> bool:
    """Whether a piece with the id *own* and the tool's *name* begins a call, instead of going on with *last*."""
    if own and last.id:
        return own != last.id
    # Without ids a name begins a call; but a server may repeat the name with every piece of its arguments.
    return bool(name and last.name and (name != last.name or last.is_whole()))


def _words(content: object) -> str:
    """The text of *content*, which is a text or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    parts = (part for part in content if isinstance(part, Mapping) and part.get("type") == "text")
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
