"""A report on 344 penguins: a chart, a workbook and a text, from penguins.csv beside this program."""
# ruff: noqa: F704, F821, T201, TID251 - a program prints, reads its environment, awaits, calls tools
# mypy: ignore-errors

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

WORK = Path(__file__).parent
FILES = Path(os.environ["OUTPUT_DIR"], "turn_demo", "files")
LOOKS = {"Adelie": ("#ff8c00", "o"), "Chinstrap": ("#a034f0", "^"), "Gentoo": ("#057076", "s")}


def draw(birds: pd.DataFrame, to: Path) -> None:
    size = {"figsize": (8, 5), "dpi": 150}
    figure, axes = plt.subplots(layout="constrained", **size)
    for species, group in birds.groupby("species"):
        colour, marker = LOOKS[species]
        x, y = group["flipper_length_mm"], group["body_mass_g"] / 1000
        dots = {"c": colour, "marker": marker, "s": 38, "alpha": 0.75}
        dots |= {"edgecolors": "white", "linewidths": 0.6}
        axes.scatter(x, y, label=f"{species} (n = {len(group)})", **dots)
        ends = np.array([x.min(), x.max()])
        line = np.polyval(np.polyfit(x, y, 1), ends)
        axes.plot(ends, line, color=colour, lw=2.2)
    decorate(axes)
    figure.savefig(to)


def decorate(axes: plt.Axes) -> None:
    title = {"loc": "left", "fontsize": 15, "fontweight": "bold", "pad": 24}
    axes.set_title("Longer flippers, heavier penguins", **title)
    place = "Palmer Station, Antarctica, 2007–2009"
    axes.text(0, 1.025, place, transform=axes.transAxes, color="#555555")
    axes.set(xlabel="flipper length (mm)", ylabel="body mass (kg)")
    axes.grid(color="#e8e8e8", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")


def summarise(birds: pd.DataFrame) -> pd.DataFrame:
    """Counts, means and the correlation of flipper length and body mass, by species."""
    groups = birds.groupby("species")
    summary = groups.agg(
        birds=("species", "size"),
        flipper_mm=("flipper_length_mm", "mean"),
        mass_g=("body_mass_g", "mean"),
    )
    summary["correlation"] = groups[["flipper_length_mm", "body_mass_g"]].corr().iloc[0::2, 1].to_numpy()
    return summary.round({"flipper_mm": 1, "mass_g": 0, "correlation": 2})


def markdown(table: pd.DataFrame) -> str:
    flat = table.reset_index()
    rows = [list(flat.columns), ["---"] * len(flat.columns), *flat.to_numpy()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


every = pd.read_csv(WORK / "penguins.csv")
birds = every.dropna(subset=["flipper_length_mm", "body_mass_g"])
print(f"read {len(every)} penguins, {len(birds)} of them measured", flush=True)
summary = summarise(birds)
print(summary.to_string(), flush=True)

draw(birds, FILES / "chart.png")
print("drew chart.png", flush=True)
with pd.ExcelWriter(FILES / "summary.xlsx") as book:
    summary.to_excel(book, sheet_name="by species")
    birds.to_excel(book, sheet_name="data", index=False)
print("wrote summary.xlsx", flush=True)
names = await asyncio.gather(*(reference_tools.species(name=name) for name in LOOKS))
print("looked up", ", ".join(entry["scientific_name"] for entry in names), flush=True)
heaviest = summary["mass_g"].idxmax()
report = f"""# Penguins of Palmer Station

{len(birds)} of {len(every)} penguins were measured. The heaviest species is {heaviest},
{summary.loc[heaviest, "mass_g"]:.0f} g on average.

{markdown(summary)}

{"; ".join(f"{entry['scientific_name']} ({entry['described_by']})" for entry in names)}

![Flipper length and body mass by species](chart.png)

Data: Horst AM, Hill AP, Gorman KB (2020), palmerpenguins, CC-0.
"""
(FILES / "report.md").write_text(report)
await local_tools.write_note(text=f"the heaviest penguins are {heaviest}")
print("wrote report.md", flush=True)
