"""Jupyter's messages: what comes in is checked here, and what goes out is made here. Pure.

A program's text stands in the content of a message and nowhere else: it cannot become one.
"""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

MOST_MESSAGE = 2 << 20  # characters
_MOST_CODE = 1 << 20
_MOST_HEADER = 4096  # characters: it is sent back with each message
_VERSION = "5.3"
_IOPUB = ("status", "stream", "display_data", "execute_result", "error", "execute_input")


class Unreadable(ValueError):
    """What came cannot be taken as a message."""


class Request:
    """A message of a client: its kind, its code if it is an execute_request, and its header."""

    def __init__(self, kind: str, header: dict[str, Any], code: str, *, silent: bool = False) -> None:
        self.kind, self.header, self.code, self.silent = kind, header, code, silent


def read(text: str) -> Request:
    """The message in *text*. Raises `Unreadable`."""
    if len(text) > MOST_MESSAGE:
        raise Unreadable("the message is too long")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("the message is not JSON") from None
    header = message.get("header") if isinstance(message, dict) else None
    if not isinstance(header, dict) or not all(isinstance(header.get(name), str) for name in ("msg_id", "msg_type")):
        raise Unreadable("the message has no header with a msg_id and a msg_type")
    if len(json.dumps(header)) > _MOST_HEADER:
        raise Unreadable("the header is too long")
    content = message.get("content")
    content = content if isinstance(content, dict) else {}
    code = content.get("code", "")
    if not isinstance(code, str) or len(code) > _MOST_CODE:
        raise Unreadable("the code is not a text of at most 1 MiB")
    return Request(header["msg_type"], header, code, silent=content.get("silent") is True)


def message(kind: str, parent: dict[str, Any], session: str, content: dict[str, Any]) -> str:
    """A message to the client, in answer to the one with the header *parent*."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": kind,
        "username": "isorun",
        "session": session,
        "date": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "version": _VERSION,
    }
    told = {
        "header": header,
        "msg_id": header["msg_id"],
        "msg_type": kind,
        "parent_header": parent,
        "metadata": {},
        "content": content,
        "channel": "iopub" if kind in _IOPUB else "shell",
        "buffers": [],
    }
    return json.dumps(told)  # ASCII: a lone surrogate in a program's output is no text that a socket takes


KERNEL_INFO: dict[str, Any] = {
    "status": "ok",
    "protocol_version": _VERSION,
    "implementation": "isorun",
    "implementation_version": "1",
    "language_info": {"name": "python", "version": "3", "mimetype": "text/x-python", "file_extension": ".py"},
    "banner": "Each execution is a run of its own: its files stay, its variables do not.",
    "help_links": [],
}
