"""ATTACKS, artifacts: files that attack whoever opens them.

Each is promised, so that it is looked into; beside it lies a file that is fine and must be found so. The controls open
the same bytes with the parser that a host would use, in a child of this test with a ceiling.
"""

import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from isorun import Limits, RunResult, SyncRuntime
from isorun.backends.base import Slot
from isorun.backends.namespace.backend import NamespaceBackend, Options
from tests import artifacts as made
from tests.artifacts import HAND_OUT, contract, given
from tests.escapes.attacking import attack
from tests.escapes.conftest import ROOMY
from tests.escapes.naive import MIB, opened

pytestmark = pytest.mark.usefixtures("unharmed")


def looked_into(runtime: SyncRuntime, folder: Path, name: str, data: bytes, **checks: object) -> RunResult:
    """A run that hands out *data* as *name*, and after it a file that is fine, which must be found so."""
    files = {name: data, "fine.json": b"{}"}
    promised = [*contract(name, **checks), *contract("fine.json")]
    result = attack(runtime, HAND_OUT, contract=promised, inputs=given(folder, files))
    bad, fine = result.items
    assert (result.status, fine.state, bad.state) == ("contract_failed", "ok", "invalid"), result.report_text
    assert [artifact.path for artifact in result.artifacts] == [fine.path]
    return result


def finding(result: RunResult) -> tuple[tuple[str, ...], str]:
    """The codes of the hostile file, and its hint without its name."""
    bad = result.items[0]
    (hint,) = bad.hints
    return bad.codes, hint.removeprefix(f"{bad.path} ")


UNPACK = """
    import zipfile
    def unpack(stream):
        with zipfile.ZipFile(stream) as archive:
            for name in archive.namelist():
                with archive.open(name) as inner, open(sys.argv[2], "wb") as out:
                    while piece := inner.read(1 << 20):
                        out.write(piece)
                if name.endswith(".zip"):
                    unpack(sys.argv[2])
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    unpack(sys.argv[1])
"""


def test_a_zip_bomb_is_not_unpacked(sealed, tmp_path: Path) -> None:
    """600 KB that say they are 600 MiB are refused by what they say."""
    bomb = made.zip_bomb(600)
    (tmp_path / "bomb").write_bytes(bomb)
    assert opened(UNPACK, str(tmp_path / "bomb"), str(tmp_path / "x"), file_bytes=64 * MIB) == "OSError\n"
    assert (tmp_path / "x").stat().st_size == 64 * MIB

    codes, hint = finding(looked_into(sealed, tmp_path, "a.zip", bomb))
    assert (codes, hint) == (("artifact_too_large",), "unpacks to 629145600 bytes, the limit is 536870912")


def test_a_nested_zip_is_opened_once(sealed, tmp_path: Path) -> None:
    """What is inside an archive is only bytes: this one is a good archive of one file, and no bomb is unpacked."""
    nested = made.nested_zip(3)
    (tmp_path / "bomb").write_bytes(nested)
    assert opened(UNPACK, str(tmp_path / "bomb"), str(tmp_path / "x"), file_bytes=64 * MIB) == "OSError\n"

    result = attack(sealed, HAND_OUT, contract=contract("a.zip"), inputs=given(tmp_path, {"a.zip": nested}))
    assert result.ok, result.report_text


def test_an_archive_that_lies_about_its_size_gains_nothing(sealed, tmp_path: Path) -> None:
    """The directory says one byte, the stream has 64 MiB. Control: zlib, told no limit, gives them all."""
    data = made.lying_zip(64)
    (tmp_path / "bomb").write_bytes(data)
    inflate = """
        import zlib
        data = open(sys.argv[1], "rb").read()
        print(len(zlib.decompressobj(-15).decompress(data[30 + len("zeros"):])))
    """
    assert opened(inflate, str(tmp_path / "bomb")) == f"{64 * MIB}\n"

    codes, hint = finding(looked_into(sealed, tmp_path, "a.zip", data))
    assert codes in (("artifact_invalid",), ("artifact_too_large",))
    assert hint.startswith(("holds a damaged file", "holds zeros, which is larger"))


def test_an_xml_entity_bomb_is_not_expanded(sealed, tmp_path: Path) -> None:
    """Entities are refused where they are declared. Control: a parser that takes them makes 5 MB of 1 KB.

    Of nine levels, which the document has, libexpat itself gives up on the way, if it is new enough.
    """
    small = made.LAUGHS.split("<!ENTITY l7")[0] + "]><a>" + "&l6;" + "</a>"
    (tmp_path / "laughs").write_text(small)
    parse = "import xml.etree.ElementTree as tree\nprint(len(tree.parse(sys.argv[1]).getroot().text))"
    expanded = int(opened(parse, str(tmp_path / "laughs")))
    assert expanded == 3 * 10**6 > 3000 * len(small)

    codes, hint = finding(looked_into(sealed, tmp_path, "a.docx", made.laughing_docx(), must_contain="lol"))
    assert codes == ("artifact_invalid",)
    assert hint == "declares entities or a document type in word/document.xml; write it without"


def test_an_xml_entity_reads_no_file(sealed, tmp_path: Path) -> None:
    """Control: a parser that resolves external entities puts the host's file into the text."""
    secret = tmp_path / "secret"
    secret.write_text("the host's own")
    (tmp_path / "a.xml").write_text(f'<!DOCTYPE d [<!ENTITY host SYSTEM "file://{secret}">]><d>&host;</d>')
    parse = """
        import xml.sax, xml.sax.handler
        class Show(xml.sax.handler.ContentHandler):
            def characters(self, text): print(text)
        parser = xml.sax.make_parser()
        parser.setFeature(xml.sax.handler.feature_external_ges, True)
        parser.setContentHandler(Show())
        parser.parse(sys.argv[1])
    """
    assert "the host's own" in opened(parse, str(tmp_path / "a.xml"))

    result = looked_into(sealed, tmp_path, "a.docx", made.reading_docx(str(secret)), must_contain="x")
    assert finding(result)[1] == "declares entities or a document type in word/document.xml; write it without"
    assert "the host's own" not in "".join(p.read_text() for p in result.out_dir.rglob("*.log"))


def test_an_image_bomb_is_not_decoded(sealed, tmp_path: Path) -> None:
    """200 KB that decode to 200 MB are refused by the size in their header."""
    bomb = made.png_bomb(20_000, 10_000)
    (tmp_path / "bomb").write_bytes(bomb)
    decode = """
        from PIL import Image
        Image.MAX_IMAGE_PIXELS = None
        Image.open(sys.argv[1]).load()
        print("decoded")
    """
    assert opened(decode, str(tmp_path / "bomb")) == "decoded\n"
    assert opened(decode, str(tmp_path / "bomb"), memory=192 * MIB) == "MemoryError\n"

    codes, hint = finding(looked_into(sealed, tmp_path, "a.png", bomb))
    assert (codes, hint) == (("artifact_too_large",), "has 20000 x 10000 pixels, the limit is 50000000 in all")


def test_json_that_overflows_the_stack_is_invalid(sealed, tmp_path: Path) -> None:
    """Control: `json.loads` raises what a handler of ValueError does not catch."""
    data = made.deep_json(100_000)
    (tmp_path / "deep").write_bytes(data)
    parse = "import json\ntry: json.loads(open(sys.argv[1]).read())\nexcept ValueError: print('caught')"
    assert opened(parse, str(tmp_path / "deep")) == "RecursionError\n"

    assert finding(looked_into(sealed, tmp_path, "a.json", data)) == (("artifact_invalid",), "is nested too deep")


MANY = 7_500_000


@pytest.mark.alone  # it has ten seconds of a clock, not of a processor
def test_json_that_needs_more_memory_than_there_is_costs_only_itself(without, tmp_path: Path) -> None:
    """53 MB of objects need 1.4 GB: the one who opens them dies or is refused, a new one goes on with the next file.

    Control: a process with the same ceiling runs out of memory on them.
    """
    (tmp_path / "many").write_bytes(made.many_objects(MANY))
    parse = "import json\njson.loads(open(sys.argv[1]).read())\nprint('parsed')"
    assert opened(parse, str(tmp_path / "many"), memory=900 * MIB) == "MemoryError\n"

    code = f"""
with open("turn_1/files/a.json", "wb") as file:
    file.write(b"[" + b'{{"":0}},' * {MANY} + b"{{}}]")
open("turn_1/files/fine.json", "w").write("{{}}")
"""
    result = attack(without(limits=ROOMY), code, contract=contract("a.json", "fine.json"))
    bad, fine = result.items
    assert (result.status, bad.state, fine.state) == ("contract_failed", "invalid", "ok"), result.report_text
    codes, hint = finding(result)
    assert codes == ("artifact_too_large",)
    assert re.fullmatch(r"needs more (than \d+ MiB of memory to open; .*|memory to open than it may have)", hint)


def test_a_pattern_that_never_ends_costs_ten_seconds_and_only_itself(sealed, tmp_path: Path) -> None:
    """A regular expression of the contract on a text of the program, which no error ends: the clock does.

    Control: the same match in a process of its own is not done after two seconds.
    """
    match = "import re\nre.match('^(a+)+$', 'a' * 60 + '!')"
    with pytest.raises(subprocess.TimeoutExpired):
        opened(match, seconds=2.0)

    result = looked_into(sealed, tmp_path, "a.json", made.looping_value(), json_schema=made.looping_schema())
    codes, hint = finding(result)
    assert (codes, hint) == (("artifact_invalid",), "could not be opened in 10.0 s; write a smaller or simpler file")
    assert result.timings["total_s"] < 25


class Watched(NamespaceBackend):
    """Remembers the walls of each slot that it hands out."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.levels: list[str] = []

    @asynccontextmanager
    async def launch(self, limits: Limits) -> AsyncIterator[Slot]:
        async with super().launch(limits) as slot:
            self.levels.append(slot.isolation["level"])
            yield slot


def test_files_are_opened_behind_every_wall_and_only_if_they_must_be(sealed, ceilings: str, tmp_path: Path) -> None:
    """A promise that needs a look takes a second slot as sealed as the first; one that does not takes none.

    No control is possible: an inspector that was taken over is a program in a slot, and what those
    cannot do is what the other files of this folder show.
    """
    backend = Watched(Options(use_cgroup=ceilings == "cgroup"))
    with SyncRuntime(backend=backend, pool_size=0, workspace_root=tmp_path) as runtime:
        assert runtime.execute("Path('turn_1/files/a.md').write_text('x')", contract=contract("a.md")).ok
        assert backend.levels == ["full"]
        assert runtime.execute("Path('turn_1/files/a.json').write_text('1')", contract=contract("a.json")).ok
        assert backend.levels == ["full"] * 3
