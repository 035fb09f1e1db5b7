"""matplotlib: a figure with text, colours and several axes, as PNG, SVG and PDF."""

import hashlib
import os
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

mpl.rcParams["svg.hashsalt"] = "fixed"  # else its ids are random
print("backend", mpl.get_backend().lower())
x = np.linspace(0, 6, 200)
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3), dpi=80, layout="constrained")
for n in range(1, 4):
    left.plot(x, np.sin(n * x) / n, label=f"$\\sin({n}x)/{n}$")
left.set_title("Grüße, ряд Фурье")
left.legend()
points = np.random.default_rng(3).normal(size=(2, 300))
image = right.hexbin(*points, gridsize=18, cmap="viridis")
figure.colorbar(image, ax=right, label="count")

figure.canvas.draw()
pixels = np.asarray(figure.canvas.buffer_rgba())
print("pixels", pixels.shape, hashlib.sha256(pixels.tobytes()).hexdigest())
out = Path(os.environ["OUTPUT_DIR"])
figure.savefig(out / "figure.png")
figure.savefig(out / "figure.svg", metadata={"Date": None})
figure.savefig(out / "figure.pdf", metadata={"CreationDate": None})
plt.close(figure)
print("open figures", plt.get_fignums())
print("read back", plt.imread(out / "figure.png").shape)
