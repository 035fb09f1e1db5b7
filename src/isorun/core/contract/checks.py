"""Which content checks a promised file can keep, told by its suffix alone.

Pure tables and decisions; `MEANING` says what each check means. It must not look at a file.
"""

from typing import Any

from isorun.core.contract.kinds import KINDS, suffix_of
from isorun.core.text import shown

#: Suffixes whose files are opened in any case, and the media types that such a file can be.
OPENED = {suffix: (kind.mime, *kind.also) for suffix, kind in KINDS.items() if kind.by == "opened"}
#: Media types that can be told from the content of a file with any other suffix, beside `text/*`.
TOLD = frozenset(
    (
        *(mime for mimes in OPENED.values() for mime in mimes),
        *("application/gzip", "application/rtf", "application/vnd.apache.parquet", "application/vnd.ms-excel"),
        *("application/vnd.sqlite3", "application/x-bzip2", "application/x-tar", "application/xml"),
        *("application/jsonl", "application/toml", "application/yaml"),
        *("audio/mpeg", "audio/wav", "image/bmp", "image/gif", "image/svg+xml", "image/tiff", "image/webp"),
        "video/mp4",
    )
)
#: What each check means, as a model reads it too.
MEANING = {
    "min_bytes": "At least so many bytes.",
    "mime": "What the content is, not the name. `text/*` means UTF-8 text without NUL.",
    "json_schema": "The JSON value fits this schema (draft 2020-12 unless `$schema` says another); "
    "a `$ref` may lead to another place of the schema only.",
    "columns": "These names stand in the header, in any order; others may too. The header is the first row "
    "that is not blank. Of a workbook one sheet must have them all.",
    "min_rows": "At least so many rows that are not blank below the header; of a workbook, on one sheet.",
    "pages": "Exactly so many pages of a PDF, or slides of a presentation.",
    "must_contain": "Each of these texts occurs, white space of any length counting as one blank. Of a document "
    "its text is searched, of a workbook each row.",
}
_TABLES = (".csv", ".tsv", ".xlsx")
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "columns": _TABLES,
    "json_schema": (".json", ".geojson", ".ipynb"),
    "min_rows": _TABLES,
    "pages": (".pdf", ".pptx"),
}
#: Nothing can be searched for text in these.
_NO_TEXT = frozenset(
    (
        *(suffix for suffix, kind in KINDS.items() if kind.by == "start" and suffix not in (".doc", ".rtf")),
        *(".bmp", ".bz2", ".epub", ".gif", ".gz", ".jar", ".jpeg", ".jpg", ".png", ".tar", ".tar.bz2", ".tar.gz"),
        *(".tar.xz", ".tgz", ".tif", ".tiff", ".webp", ".whl", ".xz", ".zip"),
    )
)


def needs_a_look(path: str, checks: dict[str, Any]) -> bool:
    """Whether more than the size of the file at *path* has to be known."""
    return suffix_of(path) in OPENED or bool(checks.keys() - {"min_bytes"})


def impossible(path: str, key: str, value: object) -> str:
    """Why no file at *path* can keep the check *key*, with the remedy; "" if one can."""
    suffix = suffix_of(path)
    kind = suffix or "a file without suffix"
    if key in _ONLY_FOR and suffix not in _ONLY_FOR[key]:
        return f"{key} cannot be checked on {kind}; it is for {', '.join(_ONLY_FOR[key])}"
    if key == "must_contain" and suffix in _NO_TEXT:
        return f"must_contain cannot be checked on {kind}, which has no text"
    if key == "mime" and isinstance(value, str):
        return _impossible_mime(suffix, value.lower())
    return ""


def _impossible_mime(suffix: str, mime: str) -> str:
    if suffix in OPENED:
        right = mime in OPENED[suffix]
        return "" if right else f"mime {shown(mime)} cannot be that of {suffix}; it is {OPENED[suffix][0]}"
    if mime in TOLD or mime.startswith("text/"):
        return ""
    known = ", ".join(sorted(TOLD))
    return f"mime {shown(mime)} cannot be told from a file's content; leave it out, or use one of text/*, {known}"
