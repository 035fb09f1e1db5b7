"""Whether bytes may be shown to a model as a picture: PNG and JPEG, whole by their outer form.

A model's API refuses a conversation with a picture that it cannot decode, and goes on refusing it. So what is cut off,
empty or larger than APIs take stays a file. Nothing is decoded here: that is for a slot.
"""

import struct

MAX_BYTES = 1 << 20
MAX_SIDE = 8000  # pixels; Anthropic's API refuses more
_PNG, _PNG_HEAD = b"\x89PNG\r\n\x1a\n", struct.Struct(">8sI4sII")
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"


def is_picture_name(path: str) -> bool:
    """Whether a file of that name may be a picture that is shown."""
    return path.lower().endswith((".png", ".jpg", ".jpeg"))


def picture_type(data: bytes) -> str | None:
    """The MIME type if *data* is a PNG or a JPEG that a model can be shown; None for all else."""
    if not 0 < len(data) <= MAX_BYTES:
        return None
    if data.startswith(_PNG) and data.endswith(_PNG_END) and len(data) > _PNG_HEAD.size:
        _, _, kind, width, height = _PNG_HEAD.unpack_from(data)
        is_fit = kind == b"IHDR" and 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE
        return "image/png" if is_fit else None
    return "image/jpeg" if data.startswith(_JPEG) and data.endswith(_JPEG_END) else None
