"""The tree as PDF or PNG, by Typst.

The template is fixed, and the document goes in as JSON. Typst sees no file but the pictures, which are copied into an
empty folder of this call under names that we chose: without a root it reads the current folder, and follows links.
"""

from __future__ import annotations

import json
import pkgutil
import re
import tempfile
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isorun.tools.documents.bounds import Notices, Refused
from isorun.tools.documents.pictures import MAX_PIXELS, Picture, Pictures
from isorun.tools.documents.tree import Node, all_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typst import Fonts

    from isorun.tools.documents.reading import Read

A4 = (595.28, 841.89)  # points
MARGIN = 62.0
#: These come with Typst. In this order documents look the same on every machine; other fonts draw what these lack.
_FAMILIES = ["Libertinus Serif", "New Computer Modern", "DejaVu Sans Mono", "New Computer Modern Math"]
_MAX_TRIED = 5000  # different characters: each that has no font costs 0.1 ms
_ALWAYS_DRAWN = 0x250  # Typst's fonts have every character below this; a test checks that
_TRIAL = b"""#set document(date: none)
#let doc = json(bytes(sys.inputs.doc))
#set text(font: doc.fonts)
#for each in doc.characters [#each \\ ]
"""
_MISSING = re.compile(r"error: PDF/A-2b error: the text `\"(.*?)\"` could not be displayed", re.DOTALL)
_NO_FONT = "{count} characters have no font here and are drawn as boxes: {examples}; install {packages}"
_BOXES = ("fonts-noto-core", "fonts-noto-cjk", "fonts-noto-color-emoji")


def typeset_pdf(read: Read, *, landscape: bool, listed: bool, font_path: str) -> tuple[bytes, int]:
    """The PDF and its number of pages."""
    width, height = A4[::-1] if landscape else A4
    made = _compiled(read, (width, height), listed, font_path)
    return made, len(re.findall(rb"/Type ?/Page\b", made))


def typeset_png(read: Read, *, ppi: int, landscape: bool, listed: bool, font_path: str) -> bytes:
    """One picture that is as high as the document. Raises `Refused` where it would have too many pixels."""
    width, height = A4[::-1] if landscape else A4
    drawn = _compiled(read, (width, height), listed, font_path, picture=True)
    box = re.search(rb"/MediaBox ?\[0 0 ([\d.]+) ([\d.]+)", drawn)
    across, down = (round(float(each) * ppi / 72) for each in box.groups()) if box else (0, 0)
    if across * down > MAX_PIXELS:
        raise Refused(
            f"the picture would have {across} × {down} pixels, more than {MAX_PIXELS:,}: "
            "lower ppi, shorten the content, or write a PDF by write_pdf"
        )
    return _compiled(read, (width, height), listed, font_path, picture=True, ppi=float(ppi))


def rasterised(picture: Picture) -> bytes:
    """*picture* as PNG, for formats that know no SVG and no WebP. Raises `Refused`.

    It is drawn as large as it was judged to be: an SVG has more ways to say its size than we read.
    """
    import typst

    scale = min(2.0, 3000 / max(picture.width, picture.height))
    size = f"width: {picture.width}pt, height: {picture.height}pt"
    page = "#set page(width: auto, height: auto, margin: 0pt, fill: none)"
    source = f'{page}\n#image("{picture.name}", {size})'.encode()
    with _folder([picture]) as root:
        try:
            made = typst.compile(source, root=root, format="png", ppi=72 * scale, **_isolation(root, ""))
        except RuntimeError as error:
            raise _refused(error, {picture.path: picture.name}) from None
    assert isinstance(made, bytes)
    return made


def _compiled(
    read: Read,
    page: tuple[float, float],
    listed: bool,
    font_path: str,
    *,
    picture: bool = False,
    ppi: float | None = None,
) -> bytes:
    """A PDF, or a PNG if *ppi* is given."""
    import typst

    given = _template_data(read, page, listed=listed, picture=picture)
    _say_missing(all_text(read.document), font_path, read.notices)
    with _folder(read.pictures.found.values()) as root:
        inputs = {"doc": json.dumps(given)}
        try:
            made = typst.compile(
                _template(),
                root=root,
                sys_inputs=inputs,
                format="png" if ppi else "pdf",
                ppi=ppi,
                **_isolation(root, font_path),
            )
        except RuntimeError as error:  # TypstError
            raise _refused(error, read.pictures.names) from None
    if not isinstance(made, bytes):
        raise Refused("the picture has more than one page: shorten the content, or write a PDF by write_pdf")
    return made


def _template_data(read: Read, page: tuple[float, float], *, listed: bool, picture: bool) -> dict[str, Any]:
    """The data of the template."""
    document = read.document
    seen: set[int] = set()
    room = (page[0] - 2 * MARGIN, page[1] - 2 * MARGIN - 50)
    return {
        "title": document.title,
        "blocks": _sized(document.blocks, read.pictures, room, seen),
        "notes": _sized(document.notes, read.pictures, room, seen),
        "sources": [source.as_node() for source in document.sources],
        "listed": bool(listed and document.sources),
        "picture": picture,
        "fonts": _FAMILIES,
        "width": page[0],
        "height": page[1],
        "margin": MARGIN,
    }


def _isolation(root: str, font_path: str) -> dict[str, Any]:
    """The options that keep Typst from the machine: it looks for packages below *root*, where none are."""
    return {"font_paths": _fonts(font_path), "package_path": root, "package_cache_path": root}


@lru_cache(maxsize=1)
def _template() -> bytes:
    return pkgutil.get_data(__package__, "document.typ") or b""


@lru_cache(maxsize=4)
def _fonts(font_path: str) -> Fonts:
    """The fonts of Typst and of the machine, and those below the folders of *font_path*, which has colons between."""
    import typst

    return typst.Fonts(font_paths=[folder for folder in font_path.split(":") if folder])


class _folder(tempfile.TemporaryDirectory[str]):
    """A folder of mode 0700 that holds *pictures* and nothing else; removed with the block."""

    def __init__(self, pictures: Iterable[Picture]) -> None:
        super().__init__(prefix="isorun-document-")
        for picture in pictures:
            Path(self.name, picture.name).write_bytes(picture.data)


def _sized(value: Any, pictures: Pictures, room: tuple[float, float], seen: set[int]) -> Any:
    """*value* with a width for each picture, and a mark on each note that was referred to before."""
    if isinstance(value, list):
        return [_sized(each, pictures, room, seen) for each in value]
    if not isinstance(value, dict):
        return value
    made: Node = {key: _sized(each, pictures, room, seen) for key, each in value.items()}
    if "src" in value:
        made["w"] = round(pictures[value["src"]].within(*room)[0], 2)
    if value.get("t") == "note":
        made["again"] = value["n"] in seen
        seen.add(value["n"])
    return made


def _refused(error: Exception, names: dict[str, str]) -> Refused:
    """Typst's error, with the paths that the caller gave in place of our names."""
    said = str(getattr(error, "message", error)).splitlines()[0]
    hints = " ".join(getattr(error, "hints", []))
    for path, name in names.items():
        if name in f"{said} {getattr(error, 'diagnostic', '')}":
            return Refused(f"the picture {path!r} cannot be drawn ({said}): save it anew, as PNG")
    if "failed to decode" in said or "failed to parse" in said:
        which = " or ".join(map(repr, names)) or "of this document"
        return Refused(f"a picture, {which}, cannot be drawn ({said}): save it anew, as PNG")
    return Refused(f"the document cannot be drawn ({said}{' ' * bool(hints)}{hints}): make it simpler")


def _say_missing(texts: Iterable[str], font_path: str, notices: Notices) -> None:
    used = {each for said in texts for each in said if ord(each) >= _ALWAYS_DRAWN}
    tried = sorted(each for each in used if unicodedata.category(each)[0] not in "CZ" and not _is_selector(each))
    missing = _without_font("".join(tried[:_MAX_TRIED]), font_path)
    if missing:
        packages = " or ".join(_BOXES)
        notices.say(_NO_FONT.format(count=len(missing), examples=" ".join(missing[:8]), packages=packages))


def _is_selector(character: str) -> bool:
    return 0xFE00 <= ord(character) <= 0xFE0F or 0xE0100 <= ord(character) <= 0xE01EF


@lru_cache(maxsize=64)
def _without_font(characters: str, font_path: str) -> str:
    """Those of *characters* that no font here has.

    Typst draws a box for each and is silent, but it may not do so in PDF/A, where it names them.
    """
    import typst

    if not characters:
        return ""
    with _folder(()) as root:
        try:
            typst.compile(
                _TRIAL,
                root=root,
                sys_inputs={"doc": json.dumps({"fonts": _FAMILIES, "characters": list(characters)})},
                format="pdf",
                pdf_standards=["a-2b"],
                timestamp=0,
                **_isolation(root, font_path),
            )
        except RuntimeError as error:  # TypstError; in PDF/A a date is missing, too
            named = "".join(_MISSING.findall(str(getattr(error, "diagnostic", error))))
            return "".join(each for each in characters if each in named)
    return ""
