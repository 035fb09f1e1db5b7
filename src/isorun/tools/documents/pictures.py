"""The pictures of a document: read by the caller's reader alone, and checked before anything decodes them."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isorun.tools.documents.bounds import Notices, Refused
from isorun.tools.documents.tree import Document, Node, all_blocks, all_inlines, inline_lists

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Reader = Callable[[str], bytes]

MAX_PIXELS = 40_000_000  # 160 MB once decoded
MAX_BYTES = 20 << 20
MAX_BYTES_IN_ALL = 64 << 20
MAX_SVG = 2 << 20
_UNITS = {"": 0.75, "px": 0.75, "pt": 1.0, "pc": 12.0, "in": 72.0, "cm": 72 / 2.54, "mm": 7.2 / 2.54}  # points
_HAS_SCHEME = re.compile(r"\s*([a-zA-Z][a-zA-Z0-9+.-]*:|//)")
_INSIDE = re.compile(r"(/workspace/out/)?[^/]")
_KINDS = "PNG, JPEG, GIF, WebP or SVG"


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, under a file name that we chose. `width` and `height` are its own size, in points."""

    name: str
    path: str  # as the caller names it
    kind: str  # png, jpeg, gif, webp or svg
    data: bytes
    width: float
    height: float

    def within(self, width: float, height: float) -> tuple[float, float]:
        """Its size in points, scaled down to fit *width* × *height*; it is never scaled up."""
        by = min(1.0, width / self.width, height / self.height)
        return self.width * by, self.height * by


@dataclass(slots=True)
class Pictures:
    """Every picture of one document, each read once. `names` has its name by the path that was asked for."""

    reader: Reader | None
    found: dict[str, Picture] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    _bytes: int = 0

    def __getitem__(self, name: str) -> Picture:
        return self.found[name]

    def take_all(self, document: Document, notices: Notices) -> None:
        """Read every picture of *document*, and put our names into its nodes. Raises `Refused`."""
        for node in _images(document):
            node["src"] = self._taken(node["src"])
            if not node["alt"]:
                notices.say("a picture has no text that says what it shows: write it between the brackets of ![…]")

    def _taken(self, path: str) -> str:
        if path not in self.names:
            data = self._read(path)
            self._bytes += len(data)
            if self._bytes > MAX_BYTES_IN_ALL:
                raise Refused(f"the pictures have more than {MAX_BYTES_IN_ALL >> 20} MB together: make them smaller")
            kind, width, height = _check(data, path)
            name = f"p{len(self.found) + 1}.{kind}"
            self.found[name] = Picture(name, path, kind, data, width, height)
            self.names[path] = name
        return self.names[path]

    def _read(self, path: str) -> bytes:
        if path.startswith("data:"):
            raise Refused("a picture is given as a data: address: write it to a file in out/ and name its path")
        if _HAS_SCHEME.match(path):
            raise Refused(
                f"the picture {path[:200]!r} is not in out/: a document shows files of out/ only; "
                "save it there, such as by fetch_url_contents(save=True), and name its path"
            )
        if not _INSIDE.match(path) or ".." in path.split("/"):
            raise Refused(
                f"the picture {path[:200]!r} is not below out/: name it by its path there, such as 'plot.png'"
            )
        if self.reader is None:
            raise Refused(f"the picture {path[:200]!r} cannot be read: this writer was given no reader of pictures")
        data = self.reader(path)
        if len(data) > MAX_BYTES:
            raise Refused(f"the picture {path!r} has {len(data):,} bytes, more than {MAX_BYTES:,}: make it smaller")
        return data


def _images(document: Document) -> Iterator[Node]:
    for blocks in document.parts():
        yield from (block for block in all_blocks(blocks) if block["t"] == "figure")
        for inlines in inline_lists(blocks):
            yield from (node for node in all_inlines(inlines) if node["t"] == "image")


def _check(data: bytes, path: str) -> tuple[str, float, float]:
    """Kind, width and height in points. Raises `Refused` for a picture that no writer may decode."""
    from PIL import Image, UnidentifiedImageError

    if b"<svg" in data[:4096]:
        return ("svg", *_check_svg(data, path))
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "GIF", "WEBP")) as opened:
            (width, height), kind = opened.size, str(opened.format).lower()
            dpi = opened.info.get("dpi", (96, 96))
            if width * height > MAX_PIXELS:
                raise _huge(path, width, height)
            opened.verify()
    except UnidentifiedImageError:
        raise Refused(f"the picture {path!r} is not {_KINDS}: save it as one of them") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _huge(path) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise Refused(f"the picture {path!r} is damaged ({error}): save it anew") from None
    across, down = (72 / min(max(float(each or 96), 48), 1200) for each in dpi)
    return kind, max(width, 1) * across, max(height, 1) * down


def _huge(path: str, width: int = 0, height: int = 0) -> Refused:
    size = f"{width} × {height} pixels, more than" if width else "more pixels than"
    return Refused(f"the picture {path!r} has {size} {MAX_PIXELS:,}: save it smaller, such as with a lower dpi")


def _check_svg(data: bytes, path: str) -> tuple[float, float]:
    if len(data) > MAX_SVG:
        raise Refused(f"the picture {path!r} is an SVG of {len(data):,} bytes, more than {MAX_SVG:,}: save it as PNG")
    try:
        source = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(f"the picture {path!r} is an SVG that is not in UTF-8: save it as UTF-8 or as PNG") from None
    if "<!ENTITY" in source.upper():
        raise Refused(f"the picture {path!r} is an SVG that defines entities: save it without, or as PNG")
    start = source.index("<svg")
    root = source[start : source.find(">", start) + 1]
    found = [re.search(rf"\s{side}\s*=\s*[\"']\s*([\d.]+)\s*([a-z]*)\s*[\"']", root) for side in ("width", "height")]
    box = re.search(r"viewBox\s*=\s*[\"'][\s\d.eE+-]*?([\d.]+)[\s,]+([\d.]+)\s*[\"']", root)
    sides = [
        float(each[1]) * _UNITS[each[2]] if each and each[2] in _UNITS else float(box[at]) * 0.75 if box else 225.0
        for at, each in enumerate(found, 1)
    ]
    if not all(1 <= side <= 20_000 for side in sides):
        raise Refused(f"the picture {path!r} is an SVG of {sides[0]:g} × {sides[1]:g} points: give it a usual size")
    return sides[0], sides[1]
