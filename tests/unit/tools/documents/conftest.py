"""Pictures for documents, and the sources that they cite."""

import io
from collections.abc import Callable

import pytest
from PIL import Image

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><rect width="40" height="30" fill="red"/></svg>'
SOURCES = (
    {"sid": 1, "url": "https://example.org/one", "title": "One"},
    {"sid": 2, "url": "https://example.org/two", "title": "Two"},
    {"sid": 3, "url": "javascript:alert(1)", "title": "Three"},
)


def drawn(kind: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", color: int | tuple[int, ...] = 0) -> bytes:
    """The bytes of a picture of that kind."""
    made = io.BytesIO()
    Image.new(mode, size, color).save(made, kind)
    return made.getvalue()


@pytest.fixture
def image() -> Callable[[str], bytes]:
    """A reader that has one picture of each kind."""
    files = {"a.png": drawn("PNG"), "a.jpg": drawn("JPEG"), "a.gif": drawn("GIF"), "a.webp": drawn("WEBP")}
    files["a.svg"] = SVG

    def read(path: str) -> bytes:
        return files[path]

    return read
