"""Built-in tools, from a sealed program to the file: granted when named, with a bundle and without one.

Clauses (SPEC E1, E3 to E5): seven writers with nothing configured, whose files open in the inspector's slot and are
the same bytes twice · search and fetch only for a run that names them · addresses that are not public see no
connection · found sources are one pool, and citations lead to it · called directly as well · documents and pages
that hold a parser for minutes end at the call's time, and nobody else waits.
"""

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import isorun
from isorun.tools import documents
from tests.bundles import write_bundle

Own = Callable[..., isorun.SyncRuntime]
WRITERS = tuple(f"generic_tools.write_{kind}" for kind in ("pdf", "png", "docx", "pptx", "html", "xlsx", "file"))
WEB = ("generic_tools.web_search", "generic_tools.fetch_url_contents", "generic_tools.web_fetch")
SEVEN = '''
text = """# Penguins

Three *species* [^1] on the islands [[S:2]].

| species | mass |
|---|--:|
| Adelie | 3.7 |

```python
print("[[S:2]]")
```

[^1]: Of Palmer station.
"""
tools = generic_tools
made = [
    await tools.write_pdf(path="report.pdf", content=text, title="Report"),
    await tools.write_png(path="report.png", content=text),
    await tools.write_docx(path="report.docx", content=text),
    await tools.write_pptx(path="report.pptx", content=text),
    await tools.write_html(path="report.html", content=text),
    await tools.write_xlsx(path="table.xlsx", columns=["species", "mass"], rows=[["Adelie", 3.7], ["=1+1", 1]]),
    await tools.write_file(path="notes/raw.bin", content=bytes(range(256))),
]
print({one["path"]: one["sha256"] for one in made})
'''
PROMISED = [
    {"filename": "report.pdf", "description": "pages", "pages": 1, "must_contain": ["Penguins", "Adelie"]},
    {"filename": "report.png", "description": "a picture", "mime": "image/png"},
    {"filename": "report.docx", "description": "a document"},
    {"filename": "report.pptx", "description": "slides"},
    {"filename": "report.html", "description": "a page", "must_contain": ["Penguins"]},
    {"filename": "table.xlsx", "description": "a table", "columns": ["species", "mass"], "min_rows": 2},
]


def test_seven_files_with_nothing_configured(own: Own, embedded: str) -> None:
    """Each opens in the inspector's slot and is as promised; a second run makes the same bytes."""
    with own() as runtime:
        first = runtime.execute(SEVEN, tools=WRITERS, contract=PROMISED, timeout_s=100)
        assert first.status == "ok", first.report_text
        second = runtime.execute(SEVEN, tools=WRITERS, timeout_s=100)
    assert {call["status"] for call in first.tool_calls} == {"ok"}
    assert first.stdout == second.stdout
    told = dict(json.loads(first.stdout.replace("'", '"')))
    assert set(told) == {*(one["filename"] for one in PROMISED), "notes/raw.bin"}
    for path, digest in told.items():
        assert hashlib.sha256((second.out_dir / path).read_bytes()).hexdigest() == digest, path


@pytest.mark.any_user
def test_only_what_is_named_is_granted(own: Own, embedded: str, tmp_path: Path) -> None:
    """Without a name there is none; the setting, or a bundle that lists them, brings those without a network."""
    code = "print('generic_tools' in globals())"
    look = """
for name in ("web_search", "fetch_url_contents", "web_fetch", "write_file"):
    try:
        await agent_io_tools.tool_call(tool_id=f"generic_tools.{name}", params={})
    except agent_io_tools.ToolError as error:
        print(name, type(error).__name__)
"""
    denied = [f"{name.partition('.')[2]} ToolDenied" for name in WEB]
    listed = write_bundle(tmp_path / "listed", shelf="@isorun.tool\ndef one() -> int:\n    'One.'\n    return 1\n")
    other = listed / "tools_descriptor.py"
    entry = {"module": "isorun.tools.generic_tools", "alias": "generic_tools"}
    other.write_text(f"{other.read_text()}TOOLS += [{entry}]\n")
    with own() as runtime:
        assert runtime.execute(code).stdout == "False\n"
        assert runtime.execute(look).stdout.splitlines() == [*denied, "write_file ToolDenied"]
        with pytest.raises(isorun.InvalidRequest, match=r"no tool 'generic_tools\.nope'"):
            runtime.execute("pass", tools=["generic_tools.nope"])
    for options in (
        {"settings": isorun.Settings(builtin_tools=True)},
        {"settings": isorun.Settings(builtin_tools=True), "bundle": write_bundle(tmp_path / "b", a=SHELF)},
        {"bundle": listed},
    ):
        with own(**options) as runtime:
            assert runtime.execute(look).stdout.splitlines() == [*denied, "write_file ToolInputInvalid"], options
            found = runtime.execute(look, tools=[*WEB]).stdout.splitlines()
            assert found == [*(f"{name.partition('.')[2]} ToolInputInvalid" for name in WEB), "write_file ToolDenied"]


SHELF = "@isorun.tool\ndef one() -> int:\n    'One.'\n    return 1\n"


@pytest.mark.any_user
def test_a_bundle_that_has_them_not_says_how(own: Own, embedded: str, tmp_path: Path) -> None:
    """A Runtime whose bundle does not list them names both ways; `isorun.run` and the command line take the one."""
    bundle = write_bundle(tmp_path / "bundle", shelf=SHELF)
    with own(bundle=bundle) as runtime, pytest.raises(isorun.InvalidRequest, match="ISORUN_BUILTIN_TOOLS=1, or list"):
        runtime.execute("pass", tools=["generic_tools.write_file"])
    code = "print(await shelf.one(), (await generic_tools.write_file(path='a', content='x'))['bytes'])"
    tools = ["shelf.one", "generic_tools.write_file"]
    assert isorun.run(code, bundle=bundle, tools=tools, workspace_root=tmp_path / "runs").stdout == "1 1\n"


def test_a_bundle_that_lists_them_has_them(own: Own, sealed: str, tmp_path: Path) -> None:
    """Where its supervisor is, in a container too: the same bytes where no font counts."""
    listed = write_bundle(tmp_path / "listed", shelf=SHELF)
    descriptor = listed / "tools_descriptor.py"
    entry = {"module": "isorun.tools.generic_tools", "alias": "generic_tools"}
    descriptor.write_text(f"{descriptor.read_text()}TOOLS += [{entry}]\n")
    text = "# Title\n\nA *text* with `code`."
    code = f"""
for kind in ("pdf", "html", "docx"):
    made = await getattr(generic_tools, f"write_{{kind}}")(path=f"a.{{kind}}", content={text!r})
    print(made["sha256"])
print(await shelf.one())
"""
    with own(bundle=listed) as runtime:
        result = runtime.execute(code, timeout_s=100)
    assert result.status == "ok", result.report_text
    here = [documents.html(text), documents.docx(text)]
    assert result.stdout.splitlines()[1:] == [*(hashlib.sha256(made.data).hexdigest() for made in here), "1"]
    assert result["a.pdf"].read_bytes().startswith(b"%PDF-")  # the image has fonts of its own


def test_no_address_that_is_not_public_sees_a_connection(own: Own, embedded: str) -> None:
    """A server of this machine listens, by IPv4 and IPv6, on the ports that are allowed or on others."""
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def listen() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                connection.close()
                seen.append(address)

        listening = threading.Thread(target=listen, daemon=True)
        listening.start()
        hosts = ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0", "[::1]", "[::ffff:127.0.0.1]")
        urls = [f"http://{host}:{port}/" for host in hosts] + [f"http://{host}/" for host in hosts]
        code = f"""
for start in range(0, {len(urls)}, 8):
    for row in await generic_tools.web_fetch(urls={urls}[start:start + 8]):
        print(row["status"])
"""
        with own() as runtime:
            result = runtime.execute(code, tools=[WEB[2]], timeout_s=60)
        with socket.create_connection(("127.0.0.1", port), timeout=10):  # the control: it would have been seen
            until = time.monotonic() + 10
            while not seen and time.monotonic() < until:
                time.sleep(0.01)
        server.shutdown(socket.SHUT_RDWR)
    assert set(result.stdout.splitlines()) <= {"not_public", "blocked"}, result.report_text
    assert len(result.stdout.splitlines()) == len(urls)
    listening.join(10)
    assert len(seen) == 1


FOUND = {
    "searches": [
        {
            "query": "penguins",
            "results": [
                {"url": "https://example.org/a?utm_source=x", "title": "Penguins", "text": "Birds."},
                {"url": "https://example.org/b", "title": "Islands", "text": "Three of them."},
            ],
        },
        {
            "query": "again",
            "results": [{"url": "https://example.org/a", "title": "Penguins", "text": "Birds of the south."}],
        },
    ]
}


def test_sources_are_one_pool_and_citations_lead_to_it(own: Own, embedded: str, tmp_path: Path) -> None:
    """The same page found twice is one source with the longer text; a document lists what it cites, by number."""
    fixture = tmp_path / "found.json"
    fixture.write_text(json.dumps(FOUND))
    fixture.chmod(0o644)
    tmp_path.chmod(0o755)
    code = """
print([row["sid"] for row in await generic_tools.web_search(query="penguins")])
print([row["sid"] for row in await generic_tools.web_search(query="again")])
text = "Three islands [[S:2]], `[[S:1]]`"
await generic_tools.write_html(path="report.html", content=text)
"""
    settings = isorun.Settings(search_fixture=fixture)
    with own(settings=settings) as runtime:
        result = runtime.execute(code, tools=[WEB[0], "generic_tools.write_html"], timeout_s=60)
    assert result.stdout.splitlines() == ["[1, 2]", "[1]"], result.report_text
    pool = json.loads(result["sources_pool.json"].read_text())
    assert [(one["sid"], one["text"]) for one in pool] == [(1, "Birds of the south."), (2, "Three of them.")]
    page = result["report.html"].read_text()
    assert "https://example.org/b" in page
    assert "https://example.org/a" not in page
    assert "[[S:1]]" in page
    assert "[[S:2]]" not in page


def test_a_document_that_holds_a_parser_ends_at_its_time(own: Own, embedded: str) -> None:
    """A megabyte of open brackets is quadratic; meanwhile other calls are answered, and so is this run's next one.

    HTML whose elements or attributes would take a parser minutes is refused before it is parsed.
    """
    hostile = """
import time
attributes = " ".join(f"a{i}=1" for i in range(90_000))
for form, content in (("markdown", "![a](" * 200_000), ("html", "<div>" * 200_000), ("html", f"<div {attributes}>x")):
    began = time.monotonic()
    params = {"path": "a.html", "content": content, "format": form}
    try:
        await agent_io_tools.tool_call(generic_tools.write_html, params=params, timeout_s=3)
    except agent_io_tools.ToolError as error:
        print(type(error).__name__, time.monotonic() - began < 20)
print((await generic_tools.write_file(path="b", content="x"))["bytes"])
"""
    beside = """
import time
until, count = time.monotonic() + 4, 0
while time.monotonic() < until:
    await generic_tools.write_file(path="c", content="x")
    count += 1
print(count > 20)
"""
    with own(limits={"tool_calls": 100_000}) as runtime:
        other = runtime.start(hostile, tools=WRITERS, timeout_s=100)
        result = runtime.execute(beside, tools=WRITERS, timeout_s=60)
        lines = other.result().stdout.splitlines()
    assert result.stdout == "True\n", result.report_text
    assert lines == ["ToolTimeout True", "ToolFailed True", "ToolFailed True", "1"]


@pytest.mark.any_user
def test_called_directly(tmp_path: Path) -> None:
    """From Python, into a folder of the caller's, with the errors that a program would get."""
    made = asyncio.run(
        isorun.call_tool("generic_tools.write_docx", {"path": "a.docx", "content": "# A"}, out=tmp_path / "o")
    )
    assert (tmp_path / "o/a.docx").read_bytes()[:2] == b"PK"
    assert made["path"] == "a.docx"
    with pytest.raises(Exception, match="below the output directory"):
        asyncio.run(isorun.call_tool("generic_tools.write_file", {"path": "../x", "content": ""}, out=tmp_path / "o"))
    with pytest.raises(isorun.InvalidRequest, match=r"has no tool generic_tools\.nope"):
        asyncio.run(isorun.call_tool("generic_tools.nope", {}, out=tmp_path / "o"))
    bundle = write_bundle(tmp_path / "bundle", shelf=SHELF)
    assert asyncio.run(isorun.call_tool("shelf.one", out=tmp_path / "o", bundle=bundle)) == 1


@pytest.mark.any_user
def test_a_hint_names_what_reaches_the_web(own: Own, embedded: str) -> None:
    """Only where it was granted."""
    code = "import urllib.request\nurllib.request.urlopen('http://example.org')"
    with own() as runtime:
        assert "generic_tools" not in runtime.execute(code).report_text
        assert "use generic_tools.web_fetch instead" in runtime.execute(code, tools=[WEB[2]]).report_text
