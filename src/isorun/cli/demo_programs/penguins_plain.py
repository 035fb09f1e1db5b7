"""A report on 344 penguins, where pandas and matplotlib are not installed: pillow draws the chart."""
# ruff: noqa: F704, F821, T201, TID251 - a program prints, reads its environment, awaits, calls tools
# mypy: ignore-errors

import csv
import os
from pathlib import Path
from statistics import correlation, linear_regression, mean

from openpyxl import Workbook
from PIL import Image, ImageDraw, ImageFont

WORK = Path(__file__).parent
FILES = Path(os.environ["OUTPUT_DIR"], "turn_demo", "files")
LOOKS = {"Adelie": "#ff8c00", "Chinstrap": "#a034f0", "Gentoo": "#057076"}
COLUMNS = ("species", "birds", "flipper_mm", "mass_g", "correlation")


def draw(birds: dict[str, tuple[list, list]], to: Path) -> None:
    picture = Image.new("RGB", (1200, 750), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(20)
    decorate(pen, font)
    for row, (species, (x, y)) in enumerate(birds.items()):
        colour, height = LOOKS[species], 115 + 30 * row
        for flipper, mass in zip(x, y, strict=True):
            pen.circle(at(flipper, mass), 6, colour, "white")
        slope, start = linear_regression(x, y)
        ends = [at(end, start + slope * end) for end in (min(x), max(x))]
        pen.line(ends, colour, width=4)
        pen.circle((130, height), 6, colour)
        name = f"{species} (n = {len(x)})"
        pen.text((145, height - 12), name, "black", font)
    picture.save(to)


def at(flipper: float, mass: float) -> tuple[float, float]:
    """The point of a bird: 170 to 235 mm from left to right, 2,500 to 6,500 g from below."""
    return 100 + (flipper - 170) / 65 * 1060, 670 - (mass - 2500) / 4000 * 580


def decorate(pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont) -> None:
    pen.text((100, 15), "Longer flippers, heavier penguins", "black", ImageFont.load_default(30))
    pen.text((100, 55), "Palmer Station, Antarctica, 2007 to 2009", "#555555", font)
    for mass in range(3000, 6001, 1000):
        pen.line([at(170, mass), at(235, mass)], "#e8e8e8")
        pen.text((40, at(170, mass)[1] - 12), f"{mass / 1000:.0f} kg", "#555555", font)
    for flipper in range(180, 231, 10):
        pen.line([at(flipper, 2500), at(flipper, 6500)], "#e8e8e8")
        pen.text((at(flipper, 2500)[0] - 15, 675), str(flipper), "#555555", font)
    pen.text((520, 710), "flipper length (mm)", "black", font)


def markdown(rows: list[tuple]) -> str:
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [COLUMNS, ["---"] * 5, *rows])


with (WORK / "penguins.csv").open() as file:
    every = list(csv.DictReader(file))
birds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in LOOKS}
for row in every:
    if "NA" not in (row["flipper_length_mm"], row["body_mass_g"]):
        for values, column in zip(birds[row["species"]], ("flipper_length_mm", "body_mass_g"), strict=True):
            values.append(float(row[column]))
measured = sum(len(x) for x, _ in birds.values())
print(f"read {len(every)} penguins, {measured} of them measured", flush=True)
summary = [
    (name, len(x), round(mean(x), 1), float(round(mean(y))), round(correlation(x, y), 2))
    for name, (x, y) in birds.items()
]
for row in summary:
    print(*row, flush=True)

draw(birds, FILES / "chart.png")
print("drew chart.png", flush=True)
book = Workbook()
for row in [COLUMNS, *summary]:
    book.active.append(row)
data = book.create_sheet("data")
for row in [list(every[0]), *(list(row.values()) for row in every)]:
    data.append(row)
book.save(FILES / "summary.xlsx")
print("wrote summary.xlsx", flush=True)
names = await asyncio.gather(*(reference_tools.species(name=name) for name in LOOKS))
print("looked up", ", ".join(entry["scientific_name"] for entry in names), flush=True)
heaviest = max(summary, key=lambda row: row[3])
report = f"""# Penguins of Palmer Station

{measured} of {len(every)} penguins were measured. The heaviest species is {heaviest[0]},
{heaviest[3]:.0f} g on average.

{markdown(summary)}

{"; ".join(f"{entry['scientific_name']} ({entry['described_by']})" for entry in names)}

![Flipper length and body mass by species](chart.png)

Data: Horst AM, Hill AP, Gorman KB (2020), palmerpenguins, CC-0.
"""
(FILES / "report.md").write_text(report)
await local_tools.write_note(text=f"the heaviest penguins are {heaviest[0]}")
print("wrote report.md", flush=True)
