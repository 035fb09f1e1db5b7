"""A report on what web pages say that penguins weigh, and what 342 measured birds say to that."""
# ruff: noqa: F704, F821, T201 - a program prints, awaits, calls tools
# mypy: ignore-errors

import csv
import re
from statistics import mean

LOOKS = {"Adelie": "#ff8c00", "Chinstrap": "#a034f0", "Gentoo": "#057076"}
KILOGRAMS = {"kg": 1, "g": 0.001}
NEAR = 0.10  # of the measured mean: what lies within that agrees


async def look_up(name: str) -> list[dict]:
    """What pages say of a species, compared with its birds."""
    query, measured = f"{name} penguin weight", mean(birds[name])
    pages = await generic_tools.web_search(query=query, n=3)
    claims = []
    for page in pages:
        said = re.search(r"(\d[\d.,]*) (kg|g)\b", page["text"])
        if said is None:
            continue
        mass = float(said[1].replace(",", "")) * KILOGRAMS[said[2]]
        off = mass / measured - 1
        claim = {"species": name, "mass": mass, "measured": measured}
        claim |= {"off": off, "agrees": abs(off) <= NEAR}
        claims.append(claim | {"source": f"[[S:{page['sid']}]]"})
    return claims


def draw(claims: list[dict]) -> str:
    """A dot for each bird, a line for each mean, a diamond for each page."""
    parts = []
    for mass in (3, 4, 5, 6):
        label = f'x="{at(mass)}" y="276" text-anchor="middle" fill="#555"'
        parts += [f'<path d="M{at(mass)} 8V258" stroke="#e8e8e8"/>']
        parts += [f"<text {label}>{mass} kg</text>"]
    for row, (name, colour) in enumerate(LOOKS.items()):
        y, bold = 52 + 80 * row, f'font-weight="bold" fill="{colour}"'
        parts += [f'<text x="0" y="{y + 5}" {bold}>{name}</text>']
        for number, mass in enumerate(birds[name]):
            place = f'cx="{at(mass)}" cy="{y + number * 37 % 41 - 20}"'
            parts += [f'<circle {place} r="3.2" fill="{colour}" fill-opacity=".5"/>']
        line = f'd="M{at(mean(birds[name]))} {y - 28}v56"'
        parts += [f'<path {line} stroke="{colour}" stroke-width="3"/>']
        for claim in (one for one in claims if one["species"] == name):
            diamond = f'd="M{at(claim["mass"])} {y - 9}l9 9l-9 9l-9 -9z"'
            fill = "#222" if claim["agrees"] else "#d22"
            parts += [f'<path {diamond} fill="{fill}" stroke="white"/>']
    form = 'viewBox="0 0 720 284" font-family="sans-serif" font-size="15"'
    space = 'xmlns="http://www.w3.org/2000/svg"'
    return f"<svg {space} {form}>{''.join(parts)}</svg>"


def at(mass: float) -> float:
    """How far to the right a mass stands: 2.5 to 6.8 kg."""
    return round(95 + (mass - 2.5) / 4.3 * 615, 1)


def cells(claim: dict) -> str:
    numbers = f"{claim['mass']:.2f} | {claim['measured']:.2f} | {claim['off']:+.0%}"
    agrees = "yes" if claim["agrees"] else "**no**"
    return f"| {claim['species']} | {numbers} | {agrees} | {claim['source']} |"


def words(claim: dict) -> str:
    return f"{claim['mass']:.1f} kg for a {claim['species']} {claim['source']}"


birds: dict[str, list[float]] = {name: [] for name in LOOKS}
with (OUT / "penguins.csv").open() as file:
    for row in csv.DictReader(file):
        if row["body_mass_g"] != "NA":
            birds[row["species"]].append(float(row["body_mass_g"]) / 1000)
count = sum(map(len, birds.values()))
claims = [claim for name in LOOKS for claim in await look_up(name)]
wrong = [claim for claim in claims if not claim["agrees"]]
print(f"{count} birds contradict {len(wrong)} of {len(claims)} pages", flush=True)
for claim in claims:
    print(f"{claim['species']:<9} {claim['mass']:.2f} kg {claim['off']:+5.0%}", flush=True)

(OUT / "masses.svg").write_text(draw(claims))
table = "\n".join(map(cells, claims))
report = f"""Of {len(claims)} pages that a search found, {len(claims) - len(wrong)} agree to within {NEAR:.0%}
with the mean of {count} penguins, measured at Palmer Station, Antarctica.
The others say {" and ".join(map(words, wrong))}.

![Masses of birds, and what pages say](masses.svg "A dot is a bird, a line the mean \
of its species, a diamond what a page says: red where the birds contradict it.")

| species | page, kg | birds, kg | difference | agrees | source |
|:--|--:|--:|--:|:-:|:-:|
{table}

The birds are real: Horst AM, Hill AP, Gorman KB (2020), palmerpenguins, CC-0.
The pages are invented for this demo; a file stands in for the search engine.
"""
title = "Do web pages know what a penguin weighs?"
for write, name in ((generic_tools.write_pdf, "report.pdf"), (generic_tools.write_png, "report.png")):
    await write(path=f"{TURN_ID}/files/{name}", content=report, title=title)
    print("wrote", name, flush=True)
