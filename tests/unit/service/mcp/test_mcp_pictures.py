"""Which bytes are shown to a model as a picture."""

import io
import struct

import pytest
from PIL import Image

from isorun.service.mcp.pictures import MAX_BYTES, is_picture_name, picture_type


def picture(form: str, size: tuple[int, int] = (3, 2)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, form)
    return file.getvalue()


PNG, JPEG = picture("PNG"), picture("JPEG")


@pytest.mark.parametrize(("data", "mime"), [(PNG, "image/png"), (JPEG, "image/jpeg")])
def test_a_picture_is_known_by_its_bytes(data, mime) -> None:
    """A PNG and a JPEG as Pillow writes them."""
    assert picture_type(data) == mime


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg/>",
        PNG[:-1],
        JPEG[:-1],
        PNG[:8] + PNG[-12:],
        picture("GIF"),
        PNG + b"\0" * MAX_BYTES,
        PNG[:16] + struct.pack(">II", 0, 2) + PNG[24:],
        PNG[:16] + struct.pack(">II", 3, 8001) + PNG[24:],
    ],
    ids=("empty", "svg", "cut png", "cut jpeg", "no head", "gif", "large", "no width", "too high"),
)
def test_what_an_api_would_refuse_stays_a_file(data) -> None:
    """A model's API refuses the whole conversation for one such picture."""
    assert picture_type(data) is None


def test_names_of_pictures() -> None:
    """Only files of these names are opened to see."""
    assert all(map(is_picture_name, ("a.png", "A.PNG", "d/b.jpeg", "b.jpg")))
    assert not any(map(is_picture_name, ("a.svg", "png", "a.png.txt", "a.gif")))
