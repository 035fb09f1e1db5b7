"""What to do about a file that is there, and is not what the program takes it for.

Pure: from values to text. The claim is the program's word: it only chooses among the hints below.
"""

import re

from isorun.core.sent.claim import Claim
from isorun.runtime.hints.seen import Seen

_BYTE = re.compile(r"'[\w-]{1,30}' codec can't decode bytes? (?:0x([0-9a-f]{2})\b)?[^:\n]{0,40}")
_POSITION = re.compile(r"in position ([0-9]{1,12})")
_CANNOT_WRITE = re.compile(r"'(?!utf)[\w-]{1,30}' codec can't encode character")
_NO_TEXT = {
    "xlsx": "pd.read_excel",
    "xls": "pd.read_excel",
    "zip": "zipfile.ZipFile",
    "gz": "gzip.open, or compression='gzip'",
    "parquet": "pd.read_parquet",
    "pkl": "pd.read_pickle",
    "npy": "np.load",
    "pdf": "pypdf.PdfReader",
    "png": "PIL.Image.open",
    "jpg": "PIL.Image.open",
    "sqlite": "sqlite3.connect",
    "db": "sqlite3.connect",
}
_SUFFIX = re.compile(rf"\.({'|'.join(_NO_TEXT)})['\"]")
GZIPPED = "the file is compressed: read it with gzip.open(path, 'rt'), or compression='gzip' in pandas"
UTF_16 = "the file is UTF-16: read it with encoding='utf-16'"
NOT_UTF_8 = "the file is not UTF-8: read it with its own encoding, often encoding='cp1252', or with errors='replace'"
NO_ARCHIVE = (
    "the file is not a zip archive, and so not an .xlsx or .docx either: print its first bytes, "
    "open(path, 'rb').read(100); a CSV is read by pd.read_csv"
)
OTHER_ENCODING = "that encoding has no such character: write with encoding='utf-8'"
# What is said of a file that should be an archive, and is none.
_NO_ZIP = ("File is not a zip file", "Excel file format cannot be determined")


def format_hint(claim: Claim, text: str, seen: Seen) -> str:
    """For an error whose *text* says that a file cannot be read as what it was opened as."""
    if claim.type == "UnicodeDecodeError":
        return _of_bytes(text, _line(claim, seen.program))
    if claim.type == "UnicodeEncodeError" and _CANNOT_WRITE.match(text):
        return OTHER_ENCODING
    return NO_ARCHIVE if text.startswith(_NO_ZIP) else ""


def _of_bytes(text: str, line: str) -> str:
    found, position = _BYTE.match(text), _POSITION.search(text)
    byte, at = (found[1] if found else None), (int(position[1]) if position else None)
    if (byte, at) == ("8b", 1):
        return GZIPPED
    if at == 0 and byte in ("ff", "fe"):
        return UTF_16
    if suffix := _SUFFIX.search(line):
        return f"a .{suffix[1]} file is not text: read it with {_NO_TEXT[suffix[1]]}"
    return NOT_UTF_8


def _line(claim: Claim, program: str) -> str:
    lines = program.split("\n", claim.line or 0)
    return lines[claim.line - 1][:1000] if claim.line and claim.line <= len(lines) else ""
