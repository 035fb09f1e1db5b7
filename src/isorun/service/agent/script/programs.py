"""The programs of the scripted model. They are really run, on the table that was given.

Each is the text of a whole program, for any table with a header; `TABLE` in it is replaced. The first draft of the
analysis leaves out a column that it promises: the check finds that, and the second mends it.
"""

from __future__ import annotations

from typing import Any

_SAMPLE = '''\
# You gave no table, so here is a small one.
Path("TABLE").write_text("""region,month,revenue
north,January,1200
south,January,860
west,January,430
north,February,1310
south,February,990
west,February,390
north,March,1150
south,March,1240
west,March,520
""")
'''

_ANALYSIS = """\
import csv
import io
from pathlib import Path

SAMPLEtext = Path("TABLE").read_text(encoding="utf-8-sig")
try:
    dialect = csv.Sniffer().sniff(text[:4096], ",;\\t")
except csv.Error:
    dialect = csv.excel
rows = [row for row in csv.DictReader(io.StringIO(text), dialect=dialect) if any(row.values())]


def number(cell):
    try:
        return float((cell or "").replace(",", ""))
    except ValueError:
        return None


columns = [name for name in rows[0] if name]
numbers = [name for name in columns if all(number(row[name]) is not None for row in rows)]
words = [name for name in columns if name not in numbers] or columns
group = min(words, key=lambda name: len({row[name] for row in rows}))  # the column with the fewest different words
value = numbers[-1] if numbers else None

totals = {}
for row in rows:
    totals[row[group]] = totals.get(row[group], 0) + (number(row[value]) if value else 1)
ranking = sorted(totals.items(), key=lambda item: -item[1])[:20]
whole = sum(totals.values()) or 1

with open(OUT / TURN_ID / "files" / "summary.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow([group, "total"SHARE])
    for name, total in ranking:
        writer.writerow([name, f"{total:g}"CELL])

print(f"{len(rows)} rows, {len(columns)} columns; {value or 'rows'} by {group}:")
for name, total in ranking[:5]:
    print(f"{name}: {total:g} ({total / whole:.0%})")
"""

_CHART = """\
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

header, *rows = csv.reader(next(Path().rglob("summary.csv")).open(newline=""))
names = [row[0] for row in rows][::-1]
totals = [float(row[1]) for row in rows][::-1]

figure, axes = plt.subplots(figsize=(7, 1 + 0.4 * len(rows)), layout="constrained")
bars = axes.barh(names, totals, color="#3b6ea5")
axes.bar_label(bars, [f"{total:g}" for total in totals], padding=4)
axes.set_xlabel("total")
axes.set_title(f"Total by {header[0]}", loc="left")
axes.spines[["top", "right"]].set_visible(False)
axes.margins(x=0.12)
figure.savefig(OUT / TURN_ID / "files" / "chart.png", dpi=144)
print(f"{len(rows)} bars")
"""

_CHART_BY_HAND = """\
import csv
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

header, *rows = csv.reader(next(Path().rglob("summary.csv")).open(newline=""))
most = max(float(row[1]) for row in rows) or 1
picture = Image.new("RGB", (1000, 110 + 60 * len(rows)), "white")
draw = ImageDraw.Draw(picture)
font = ImageFont.load_default(size=24)
draw.text((260, 30), f"Total by {header[0]}", "black", font)
for at, (name, total, *_) in enumerate(rows):
    y, width = 90 + 60 * at, max(600 * float(total) / most, 1)
    draw.rectangle((260, y, 260 + width, y + 44), "#3b6ea5")
    draw.text((245, y + 22), name[:20], "black", font, anchor="rm")
    draw.text((270 + width, y + 22), total, "black", font, anchor="lm")
picture.save(OUT / TURN_ID / "files" / "chart.png")
print(f"{len(rows)} bars")
"""

_REPORT = '''\
import csv
from pathlib import Path

header, *rows = csv.reader(next(Path().rglob("summary.csv")).open(newline=""))
chart = next(Path().rglob("chart.png"))


def line(cells):
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


first, total = rows[0][:2]
content = f"""The table TABLE was added up by {header[0]}. The largest total is that of {first}: {total}.

![Total by {header[0]}]({chart.as_posix()})

{line(header)}
|:--|--:|--:|
{chr(10).join(map(line, rows))}

Made by a program in a sealed sandbox. The PDF was written by a tool outside of it.
"""
done = await generic_tools.write_pdf(path=f"{TURN_ID}/files/report.pdf", content=content, title="What the table says")
print(f"report.pdf: {done['pages']} page(s), {done['bytes']} bytes")
'''

WRITE_PDF = "generic_tools.write_pdf"
SUMMARY = {
    "filename": "summary.csv",
    "description": "The totals, and the share of each in the whole",
    "columns": ["total", "share"],
    "min_rows": 1,
}
CHART = {"filename": "chart.png", "description": "The totals as bars", "mime": "image/png", "min_bytes": 1000}
REPORT = {"filename": "report.pdf", "description": "The findings on one page", "must_contain": "What the table says"}


def analysis(table: str, *, sample: bool, keeps_promise: bool) -> dict[str, Any]:
    """The arguments of a run that adds up *table*; with *sample* it writes that table first."""
    share, cell = (', "share"', ', f"{total / whole:.3f}"') if keeps_promise else ("", "")
    code = _ANALYSIS.replace("SHARE", share).replace("CELL", cell).replace("SAMPLE", _SAMPLE if sample else "")
    return _run("analysis" if keeps_promise else "analysis, first draft", code, SUMMARY, table)


def chart(*, by_hand: bool) -> dict[str, Any]:
    """The arguments of a run that draws the summary, *by_hand* without matplotlib."""
    if by_hand:
        return _run("chart by hand", _CHART_BY_HAND, CHART)
    return _run("chart", _CHART, CHART)


def report(table: str) -> dict[str, Any]:
    """The arguments of a run that writes what was found, with the chart, as a PDF."""
    return _run("report", _REPORT, REPORT, table)


def _run(name: str, code: str, promise: dict[str, Any], table: str = "") -> dict[str, Any]:
    inside = table.translate({ord(c): "_" for c in "\\\"'{}\n\r"})  # it stands in texts of a program
    return {"prog_name": name, "code": code.replace("TABLE", inside), "contract": [promise], "timeout_s": 60}
