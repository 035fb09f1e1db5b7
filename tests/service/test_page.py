"""The page in a browser, over a service as a process and programs in real sandboxes."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, expect

from isorun.core.text import printable
from tests.conftest import Require
from tests.service.browsing import PATIENCE_MS, Looking, browser
from tests.service.conftest import Served

pytestmark = [pytest.mark.slow, pytest.mark.any_user, pytest.mark.timeout(240)]
expect.set_options(timeout=PATIENCE_MS)

STEPS = """
import time
for number in range(40):
    print(f"line {number}", flush=True)
    time.sleep(0.1)
"""
WAITS = 'print("kept", flush=True)\n(OUT / "kept.txt").write_text("kept")\nimport time\ntime.sleep(300)\n'
HOSTILE = """
script = "<script>parent.document.title = parent.GOT = 'GOT'; alert(1)</script>"
(OUT / "page.html").write_text("<h1>hello</h1>" + script)
(OUT / "picture.svg").write_text(
    '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>parent.GOT = 1</script></svg>'
)
markup = "# Notes\\n\\n- **one**\\n\\n<img src=x onerror=alert(1)> [a](javascript:alert(1))\\n"
(OUT / "notes.md").write_text(markup + script)
(OUT / "table.csv").write_text('name,"a count"\\n"Adelie, male",<b>1</b>\\n')
(OUT / "data.json").write_text('{"a": [1, "<b>"]}')
print("\\x1b[31mred", script)
"""


@pytest.fixture(scope="module")
def chromium(require: Require) -> Iterator[Browser]:
    """One browser for all."""
    with browser(require) as started:
        yield started


@pytest.fixture(scope="module")
def let_in(served: Served, chromium: Browser) -> object:
    """The cookie of a browser that opened the address which `isorun serve` printed."""
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(served.link)
        page.wait_for_selector(".starters")
        return context.storage_state()


@pytest.fixture
def context(chromium: Browser, let_in: dict) -> Iterator[BrowserContext]:
    """A browser's own windows, wide, with that cookie."""
    with chromium.new_context(storage_state=let_in, viewport={"width": 1280, "height": 860}) as made:
        yield made


@pytest.fixture
def look(context: BrowserContext, served: Served) -> Iterator[Looking]:
    """A window. Whatever a test does in it, no script fails, and nothing is asked of another host."""
    looking = Looking(context.new_page(), served.url)
    yield looking
    assert looking.complaints == []
    ours = urlsplit(served.url).netloc
    assert {urlsplit(url).netloc for url in looking.asked if url.startswith(("http", "ws"))} <= {ours}


def test_the_first_card_ends_with_its_verdict(look: Looking) -> None:
    """A click runs the program: its file, its tool call with parameters and result, its promise, one word."""
    look.go()
    look.page.click('.starters [data-say="0"]')
    card = look.card("ok")
    expect(look.page.locator(f"{card} .verdict")).to_have_text(re.compile("ok It ended well and kept its promise"))
    expect(look.page.locator(f"{card} .checks li")).to_have_text(re.compile("ok hello-iso-runtime.txt"))
    call = look.page.locator(f"{card} .calls li")
    expect(call).to_have_text(re.compile("local_tools.write_note"))
    call.locator("summary").click()
    expect(call.locator("pre").first).to_have_text(re.compile("note from iso-runtime"))
    look.page.click(f"{card} a.file")
    expect(look.page.locator("#files .view pre")).to_have_text("hello from iso-runtime\n")
    address = look.page.get_attribute(f"{card} h2 a", "href")
    look.go(address or "")
    expect(look.page.locator(".verdict strong")).to_have_text("ok")


def test_what_a_newcomer_opens_asks_for_nothing_more(look: Looking) -> None:
    """The page, its style, its icon and its modules; afterwards only the stream of a conversation."""
    look.go()
    look.page.wait_for_load_state("networkidle")
    asked = {urlsplit(url).path.rpartition("/")[2] for url in look.asked}
    assert asked <= {"", "page.css", "theme.js", "app.js", "live.js", "dom.js", "compose.js", "icon.svg"}


def test_a_program_that_tries_the_network_is_blocked(look: Looking) -> None:
    """Each way out is named with why it failed, and the reason is on the card, in a banner too."""
    look.go()
    look.page.click('.starters [data-say="13"]')
    card = look.card("failed")
    output = look.output(card)
    assert output.count("blocked:") == 6
    assert "GOT" not in output
    expect(look.page.locator(f"{card} .verdict .hint")).to_have_text(re.compile("the program has no network"))
    expect(look.page.locator(f"{card} .banner")).to_have_text(re.compile("Program error detected in user.log"))


def test_a_reload_in_the_middle_of_an_endless_scenario_loses_nothing(look: Looking) -> None:
    """What was printed before the reload is there after it, once; and so is the verdict."""
    look.go()
    look.page.click('.scenarios [data-say="8"]')
    look.card()
    expect(look.page.locator(".card .live")).to_have_text("this line is kept\n")
    look.page.reload()
    expect(look.page.locator(".card .out")).to_have_text("this line is kept\n")
    card = look.card("timed_out")
    assert look.output(card) == "this line is kept\n"
    assert look.page.locator(".card").count() == 1
    assert look.page.locator(".mine").count() == 1
    look.page.reload()
    assert look.output(look.card("timed_out")) == "this line is kept\n"


def test_a_reload_while_lines_come_misses_and_doubles_none(look: Looking) -> None:
    """Forty lines, and the page is loaded anew after the fifth and after the twentieth."""
    look.go()
    look.run(STEPS)
    for number in (5, 20):
        expect(look.page.locator(".card .live")).to_have_text(re.compile(rf"line {number}\n"))
        look.page.reload()
    expect(look.page.locator(".card .live")).to_have_text(re.compile("line 21\n"))
    shown = look.output(".card")
    assert shown == "".join(f"line {number}\n" for number in range(shown.count("\n")))
    assert look.output(look.card("ok")) == "".join(f"line {number}\n" for number in range(40))


def test_stop_keeps_what_there_is(look: Looking) -> None:
    """The program, its output and its file stay on the card, which ends with `cancelled`; a reload changes nothing."""
    look.go()
    look.run(WAITS)
    expect(look.page.locator(".card .live")).to_have_text("kept\n")
    look.page.click(".card [data-act=stop]")
    for _ in range(2):
        card = look.card("cancelled")
        assert look.output(card) == "kept\n"
        assert look.page.locator(f"{card} .code").text_content() == WAITS
        expect(look.page.locator(f"{card} a.file b")).to_have_text("kept.txt")
        look.page.reload()


def test_files_are_looked_into_and_can_do_nothing(look: Looking) -> None:
    """Markdown, tables, JSON and HTML are shown; no script of a file runs, and none of its HTML is ours."""
    look.go()
    title = look.page.title()
    look.run(HOSTILE)
    card = look.card("ok")
    assert r"\x1b[31mred <script>" in look.output(card)
    view = look.page.locator("#files .view")

    def opened(name: str) -> None:
        look.page.locator(f"{card} a.file", has_text=name).click()
        expect(look.page.locator("#files .about b")).to_have_text(name)

    opened("page.html")
    expect(look.page.frame_locator("#files iframe").locator("h1")).to_have_text("hello")
    assert look.page.get_attribute("#files iframe", "sandbox") == ""
    opened("picture.svg")
    look.page.frame_locator("#files iframe").locator("svg").wait_for()
    opened("notes.md")
    expect(view.locator("li strong")).to_have_text("one")
    assert view.locator("img, script, a").count() == 0
    opened("table.csv")
    expect(view.locator("td")).to_have_text(["Adelie, male", "<b>1</b>"])
    opened("data.json")
    expect(view.locator("pre")).to_have_text('{\n  "a": [\n    1,\n    "<b>"\n  ]\n}')
    opened("page.html")  # again: what the browser kept is as powerless as what came first
    expect(look.page.frame_locator("#files iframe").locator("h1")).to_have_text("hello")
    assert look.page.evaluate("typeof GOT") == "undefined"
    assert "GOT" not in look.page.title()
    assert title


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_view_can_be_used_by_everybody(chromium, let_in, served, width, scheme) -> None:
    """axe finds nothing in any view, light and dark, wide and as narrow as a telephone; nothing is wider than that."""
    viewport = {"width": width, "height": 800}
    with chromium.new_context(storage_state=let_in, viewport=viewport, color_scheme=scheme) as context:
        look = Looking(context.new_page(), served.url)
        found: dict[str, list[object]] = {}

        def judge(view: str) -> None:
            result = Axe().run(look.page)
            if result.violations_count:
                rules = result.response["violations"]
                found[view] = [(rule["id"], node["target"]) for rule in rules for node in rule["nodes"]]
            assert look.page.evaluate("document.documentElement.scrollWidth") <= width, view

        look.page.emulate_media(reduced_motion="reduce")
        look.go()
        judge("the first page")
        look.run(HOSTILE)
        card = look.card("ok")
        judge("a card")
        look.page.locator(f"{card} a.file", has_text="table.csv").click()
        look.page.wait_for_selector("#files .view td")
        judge("a file")
        look.page.keyboard.press("Escape")
        look.page.click("#tools summary")
        look.page.wait_for_selector("#tools fieldset label")
        look.page.click("#promises summary")
        look.page.click("[data-act=promise]")
        judge("the editor")
        look.page.click("#tab-ask")
        look.page.fill("#text", "3")
        look.page.keyboard.press("Enter")
        look.card("failed")
        judge("a banner")
        look.page.click("#walls-open")
        judge("the walls")
        look.page.keyboard.press("Escape")
        look.go("/runs")
        judge("the runs")
        look.page.click(".runs a >> nth=0")
        look.card("failed")
        judge("one run")
        look.go("/runs/none")
        judge("nothing")
        assert found == {}
        assert look.complaints == []


def test_a_scenario_is_chosen_from_any_page(look: Looking) -> None:
    """On the list of runs, too: it begins a conversation, once; the address of no page can do that."""
    look.go("/runs")
    look.page.click("#side summary")
    look.page.click('.scenarios [data-say="4"]')
    look.card("contract_failed")
    expect(look.page.locator("#talks [aria-current]")).to_have_text("4. One of two promised files")
    look.page.reload()
    look.card("contract_failed")
    assert look.page.locator(".card").count() == 1


def test_a_conversation_is_deleted_after_a_question(look: Looking, served: Served) -> None:
    """With a run that goes on in it. The first answer keeps it; another window that shows it says what happened."""
    look.go()
    look.run(WAITS)
    expect(look.page.locator(".card .live")).to_have_text("kept\n")
    talk, run = look.page.url, look.page.get_attribute(".card", "data-run")
    other = Looking(look.page.context.new_page(), served.url)
    other.go(urlsplit(talk).path)
    expect(other.page.locator(".card .live")).to_have_text("kept\n")
    bin_ = look.page.locator("#talks li", has=look.page.locator("[aria-current]")).locator(".bin")
    bin_.click()
    expect(look.page.locator("#remove")).to_have_text(re.compile('print."kept".*files that you added'))
    assert look.page.evaluate("document.activeElement.textContent") == "Keep it"
    look.page.keyboard.press("Enter")
    expect(look.page.locator("#remove")).to_have_count(0)
    assert look.page.evaluate("document.activeElement.dataset.remove") == urlsplit(talk).path[3:]
    expect(look.page.locator(".card .live")).to_have_text("kept\n")
    bin_.click()
    look.page.click("#remove .danger")
    look.page.wait_for_selector(".starters")
    assert look.page.locator(f'#talks [href="{urlsplit(talk).path}"]').count() == 0
    for path in (urlsplit(talk).path, f"/runs/{run}"):
        answer = look.page.request.get(f"{served.url}{path}")
        assert answer.status == 404
    expect(other.page.locator("#toast")).to_have_text(re.compile("deleted in another window"))
    assert other.complaints == []


def test_another_conversation_is_deleted_beside_the_one_that_is_open(look: Looking) -> None:
    """The page stays where it is, and its list gets shorter."""
    for text in ("print('one')", "print('two')"):
        look.go()
        look.run(text)
        look.card("ok")
    items = look.page.locator("#talks li")
    many = items.count()
    items.nth(1).hover()
    items.nth(1).locator(".bin").click()
    expect(look.page.locator("#remove b")).to_have_text("print('one')")
    look.page.click("#remove .danger")
    expect(items).to_have_count(many - 1)
    assert look.output(look.card("ok")) == "two\n"


def test_a_run_is_run_again_with_the_very_files_that_it_was_given(look: Looking) -> None:
    """Not with a newer one of the same name; and if its file was deleted, the page says which."""
    look.go()
    for text in (b"old", b"new"):
        look.page.set_input_files("#upload", files=[{"name": "a.txt", "mimeType": "text/plain", "buffer": text}])
        expect(look.page.locator("#given li")).to_have_count(1)
        look.run("print(open('a.txt').read())")
        expect(look.page.locator(".card:last-of-type:not(:has(.live)) .out")).to_have_text(text.decode() + "\n")
    look.page.locator(".card [data-act=again]").first.click()
    expect(look.page.locator(".card:not(:has(.live)) .out")).to_have_text(["old\n", "new\n", "old\n"])
    kept = {one["id"] for one in look.page.evaluate("fetch('/v1/files').then((answer) => answer.json())")["files"]}
    run = look.page.get_attribute(".card", "data-run")
    given = look.page.evaluate(f"fetch('/v1/runs/{run}').then((answer) => answer.json())")["inputs"]
    assert given[0]["id"] in kept
    look.page.evaluate(f"fetch('/v1/files/{given[0]['id']}', {{method: 'DELETE'}}).then(() => null)")
    look.page.locator(".card [data-act=again]").first.click()
    expect(look.page.locator("#toast")).to_have_text(re.compile("a.txt, which it was given, is not here any more"))


def test_the_tools_that_a_program_gets_by_itself_are_ticked(look: Looking) -> None:
    """Those of the web are not: a run has to name them."""
    look.go()
    look.page.click("#tab-code")
    look.page.click("#tools summary")
    box = look.page.locator("#tools input")
    expect(box.and_(look.page.locator("[value='generic_tools.write_pdf']"))).to_be_checked()
    expect(box.and_(look.page.locator("[value='generic_tools.web_search']"))).not_to_be_checked()


def test_the_theme_is_kept(look: Looking) -> None:
    """The button changes it, and the next page has it from the start."""
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    look.go()
    before = look.page.evaluate(ground)
    look.page.click("#theme")
    after = look.page.evaluate(ground)
    assert before != after
    look.go("/runs")
    assert look.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_conversation_with_the_script_is_the_same_after_a_reload(look: Looking) -> None:
    """A table that is uploaded is analysed, drawn and written about; a reload in the middle changes nothing."""
    table = {"name": "cities.csv", "mimeType": "text/csv", "buffer": b"city;people\nOslo;700\nBergen;280\n"}
    look.go()
    look.page.set_input_files("#upload", files=[table])
    expect(look.page.locator("#given li span")).to_have_text("cities.csv")
    look.page.fill("#text", "Analyse the table, draw a chart and write report.pdf")
    look.page.keyboard.press("Enter")
    look.page.wait_for_selector(".card[data-run]")
    look.page.reload()
    look.page.wait_for_selector("body:not(.busy)")
    parts = look.page.locator(".said, .card h2, .card > header .word")
    told = parts.all_inner_texts()
    look.page.reload()
    expect(look.page.locator(".theirs .text.done:not(.plain)")).to_have_count(5)
    assert parts.all_inner_texts() == told
    assert look.page.locator(".word").all_inner_texts() == ["contract_failed", "ok", "ok", "ok"]
    expect(look.page.locator('a.file[data-kind="pdf"] b')).to_have_text("report.pdf")


def test_what_is_no_scenario_gets_the_list(look: Looking) -> None:
    """All twenty, in the answer and as what to click next."""
    look.go()
    look.page.fill("#text", "99")
    look.page.keyboard.press("Enter")
    expect(look.page.locator(".theirs li")).to_have_count(20)
    look.page.click("#next summary")
    expect(look.page.locator("#next li")).to_have_count(20)
    look.page.click('#next button:has-text("4. One of two promised files")')
    card = look.card("contract_failed")
    expect(look.page.locator(f"{card} .checks li")).to_have_text(
        [re.compile("^ok first"), re.compile("^missing second")]
    )


def test_a_program_of_a_card_reads_its_data_and_can_be_run_again(look: Looking) -> None:
    """The chart of real data: a picture at once; Run again starts the same program with the same file."""
    look.go()
    look.page.click('[data-start="chart"]')
    card = look.card("ok")
    expect(look.page.locator(f"{card} a.file b")).to_have_text(["chart.png", "summary.xlsx", "report.md"])
    expect(look.page.locator("#files .view img")).to_be_visible()
    look.page.click(f"{card} [data-act=again]")
    expect(look.page.locator('.card[data-status="ok"]:not(:has(.live))')).to_have_count(2)
    codes = look.page.locator(".card .code").all_text_contents()
    assert codes[0] == codes[1]


@pytest.mark.parametrize("form", ["python", "curl"])
def test_a_run_that_is_copied_runs_elsewhere(look: Looking, served: Served, context: BrowserContext, form) -> None:
    """Pasted into a file and started with a key of its own, it is the same program with the same ending."""
    code = "# it's \\ \"odd\" $HOME `x` 'quoted'\nprint('copied ✓')\n(OUT / 'a.txt').write_text('a')\n"
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    look.go()
    look.run(code)
    card = look.card("ok")
    look.page.click(f"{card} [data-act={form}]")
    expect(look.page.locator("#say")).to_have_text("Copied")
    copied = look.page.evaluate("navigator.clipboard.readText()")
    start = [sys.executable, "-c", copied] if form == "python" else ["sh", "-c", copied]
    done = subprocess.run(
        start, env={**served.environment, "ISORUN_KEY": served.key}, capture_output=True, text=True, check=False
    )
    if form == "python":
        assert (done.stdout, done.stderr) == ("ok\ncopied ✓\n", "")
    else:
        again = json.loads(done.stdout)
        assert (again["status"], again["code"], again["result"]["stdout"]) == ("ok", code, "copied ✓\n")


def test_the_editor_has_the_keys_that_it_says(look: Looking) -> None:
    """Tab indents, Enter goes on below, Shift+Tab goes back, Escape and Tab leave it, Ctrl+Enter runs."""
    look.go()
    look.page.click("#tab-code")
    look.page.focus("#code")
    look.page.wait_for_selector("#composer[data-edited]")
    look.page.keyboard.type("if True:")
    look.page.keyboard.press("Enter")
    look.page.keyboard.type("print(1)")
    look.page.keyboard.press("Enter")
    look.page.keyboard.press("Tab")
    look.page.keyboard.type("x")
    look.page.keyboard.press("Shift+Tab")
    assert look.page.input_value("#code") == "if True:\n    print(1)\n    x"
    look.page.keyboard.press("Escape")
    look.page.keyboard.press("Tab")
    assert look.page.evaluate("document.activeElement.id") != "code"
    look.page.fill("#code", "print('by keys')")
    look.page.focus("#code")
    look.page.keyboard.press("Control+Enter")
    assert look.output(look.card("ok")) == "by keys\n"


def test_the_page_shows_a_programs_text_as_the_service_does(look: Looking) -> None:
    """Live output and the card after its end escape the same characters."""
    text = "".join(map(chr, [*range(0x00, 0x250), *range(0x2000, 0x2070), 0x202E, 0xFEFF, 0x3164, 0xE0041, 0x1F600]))
    look.go()
    module = (look.page.get_attribute("script[type=module]", "src") or "").replace("app.js", "dom.js")
    shown = look.page.evaluate("async ([module, text]) => (await import(module)).visible(text)", [module, text])
    assert shown == printable(text)


def test_the_runs_are_found_by_name_and_by_status(look: Looking) -> None:
    """With what each cost; without JavaScript, too."""
    look.go()
    look.run('"""Looks for a needle."""\nprint(1)')
    look.card("ok")
    look.go("/runs?q=NEEDLE")
    expect(look.page.locator(".runs tbody tr")).to_have_count(1)
    expect(look.page.locator('.runs [data-name="wall"]')).to_have_text(re.compile(r"\d (ms|s)$"))
    expect(look.page.locator('.runs [data-name="memory"]')).to_have_text(re.compile(r"MB$"))
    look.go("/runs?q=needle&status=failed")
    expect(look.page.locator(".scroll .note")).to_have_text(re.compile("Nothing is found"))


def test_without_javascript_everything_that_ran_can_be_read(chromium, let_in, served) -> None:
    """A card, its output, its files' addresses, the list of runs."""
    with chromium.new_context(storage_state=let_in) as context:
        look = Looking(context.new_page(), served.url)
        look.go()
        look.run('print("seen by all")\n(OUT / "a.txt").write_text("a")')
        look.card("ok")
        talk = look.page.url
    with chromium.new_context(storage_state=let_in, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(talk)
        assert "seen by all" in (page.text_content(".card .out") or "")
        assert page.is_visible(".verdict strong")
        page.click(".card a.file")
        assert page.text_content("body") == "a"


def test_nobody_is_let_in_without_the_address(chromium, served) -> None:
    """A page says what to open; the address works once."""
    with chromium.new_context() as context:
        page = context.new_page()
        for path in ("/", "/runs", "/c/c_0000000000000000", served.link.removeprefix(served.url)):
            answer = page.goto(f"{served.url}{path}")
            assert answer is not None
            assert answer.status == 401
            assert "isorun serve" in page.inner_text("main")
