"""Pictures for Office, which draws no SVG or WebP everywhere: those become PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isorun.tools.documents.typeset import rasterised

if TYPE_CHECKING:
    from isorun.tools.documents.pictures import Picture


def shown_picture(picture: Picture) -> bytes:
    """The bytes of *picture* as PNG, JPEG or GIF."""
    return rasterised(picture) if picture.kind in ("svg", "webp") else picture.data
