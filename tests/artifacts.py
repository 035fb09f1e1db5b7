"""Files that a program may hand out: good ones by real libraries or by hand, and ones that attack who opens them."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import openpyxl
import pypdf
from PIL import Image

MIB = 1 << 20
_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_DOCUMENT = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SLIDES = "http://schemas.openxmlformats.org/presentationml/2006/main"
_DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"

#: A program that hands out, for every promised file, what it was given under that name.
HAND_OUT = """
import shutil
for item in CONTRACT:
    shutil.copy(Path(__file__).parent / Path(item["filename"]).name, item["filename"])
"""


def contract(*names: str, **more: object) -> list[dict[str, object]]:
    """The promise of *names*, each with the checks *more*."""
    return [{"filename": f"turn_1/files/{name}", "description": "d", **more} for name in names]


def given(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """*files* below *folder*, to be sent into a run."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def png(width: int = 4, height: int = 3) -> bytes:
    return image("PNG", width, height)


def jpeg(width: int = 4, height: int = 3) -> bytes:
    return image("JPEG", width, height)


def image(kind: str, width: int = 4, height: int = 3) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(out, kind)
    return out.getvalue()


def pdf(pages: int = 1, password: str = "") -> bytes:
    writer, out = pypdf.PdfWriter(), io.BytesIO()
    for _ in range(pages):
        writer.add_blank_page(200, 200)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    writer.write(out)
    return out.getvalue()


def pdf_saying(text: str) -> bytes:
    """One page with *text*, written by hand."""
    content = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode()
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    out, offsets = io.BytesIO(), []
    out.write(b"%PDF-1.4\n")
    for number, body in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % offset for offset in offsets)
    out.write(b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start))
    return out.getvalue()


def xlsx(sheets: Mapping[str, list[list[object]]]) -> bytes:
    book, out = openpyxl.Workbook(), io.BytesIO()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(out)
    return out.getvalue()


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def docx(*paragraphs: str, prolog: str = "") -> bytes:
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    xml = f'{prolog}<w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>'
    return zipped(package("word/document.xml", xml))


def pptx(*slides: str) -> bytes:
    ids = "".join(f'<p:sldId id="{256 + n}"/>' for n in range(len(slides)))
    files = package(
        "ppt/presentation.xml",
        f'<p:presentation xmlns:p="{_SLIDES}"><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>',
    )
    for number, text in enumerate(slides, 1):
        xml = f'<p:sld xmlns:p="{_SLIDES}" xmlns:a="{_DRAWING}"><a:p><a:t>{text}</a:t></a:p></p:sld>'
        files[f"ppt/slides/slide{number}.xml"] = xml.encode()
    return zipped(files)


def package(main: str, xml: str) -> dict[str, bytes]:
    """The least that makes an Office document: its types, its relations, its main part."""
    relation = f'<Relationship Id="r" Type="{_DOCUMENT}/officeDocument" Target="{main}"/>'
    return {
        "[Content_Types].xml": f'<Types xmlns="{_TYPES}"/>'.encode(),
        "_rels/.rels": f'<Relationships xmlns="{_RELATIONS}">{relation}</Relationships>'.encode(),
        main: xml.encode(),
    }


# --- Attacks


def zip_bomb(megabytes: int) -> bytes:
    """One entry of zeros, a thousandth of its size."""
    return zipped({"zeros": bytes(megabytes * MIB)})


def lying_zip(megabytes: int) -> bytes:
    """An archive whose entry says that it has one byte."""
    honest = zip_bomb(megabytes)
    return honest.replace(struct.pack("<L", megabytes * MIB), struct.pack("<L", 1))


def nested_zip(depth: int) -> bytes:
    """Archives in archives, the innermost a bomb that is refused where it is looked at."""
    data = zip_bomb(600)
    for _ in range(depth):
        data = zipped({"inner.zip": data})
    return data


def many_entries(count: int) -> bytes:
    return zipped({f"{number}": b"" for number in range(count)}, zipfile.ZIP_STORED)


LAUGHS = (
    '<!DOCTYPE lolz [<!ENTITY l0 "lol">'
    + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    + "]>"
)


def laughing_docx() -> bytes:
    """A billion laughs, in the main part of a document."""
    return docx("&l9;", prolog=LAUGHS)


def reading_docx(path: str) -> bytes:
    """A document whose text is an entity that stands for a file of the host."""
    return docx("&host;", prolog=f'<!DOCTYPE d [<!ENTITY host SYSTEM "file://{path}">]>')


def png_bomb(width: int, height: int) -> bytes:
    """Black pixels: kilobytes that decode to *width* x *height* bytes."""
    row = bytes(width + 1)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def deep_json(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def many_objects(count: int) -> bytes:
    """Seven bytes for each object, which takes nearly two hundred once it is parsed."""
    return b"[" + b'{"":0},' * count + b"{}]"


def looping_schema() -> dict[str, object]:
    """A pattern that takes exponential time on the text of `looping_value`."""
    return {"type": "object", "properties": {"text": {"type": "string", "pattern": "^(a+)+$"}}}


def looping_value() -> bytes:
    return json.dumps({"text": "a" * 60 + "!"}).encode()
