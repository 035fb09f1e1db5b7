"""numpy and pandas: linear algebra from four threads, groups, joins, time zones, files."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

rng = np.random.default_rng(7)
matrix = rng.normal(size=(120, 120))
symmetric = matrix @ matrix.T
print("eigenvalues", np.round(np.linalg.eigvalsh(symmetric)[-4:], 6).tolist())
print("solve", np.round(np.linalg.solve(symmetric, np.ones(120))[:4], 6).tolist())
print("fft", np.round(np.abs(np.fft.rfft(matrix[0]))[:5], 8).tolist())
with ThreadPoolExecutor(4) as pool:
    products = list(pool.map(lambda n: float(np.round((matrix * n @ matrix).trace(), 4)), range(8)))
print("threads", products)

frame = pd.DataFrame(
    {
        "when": pd.date_range("2024-03-30", periods=96, freq="h", tz="Europe/Berlin"),
        "shop": rng.choice(["Köln", "Łódź", "東京"], size=96),
        "sales": rng.integers(1, 100, size=96),
    }
)
frame.loc[::7, "sales"] = pd.NA
print(frame.groupby("shop")["sales"].agg(["count", "sum", "mean"]).round(4).to_csv())
daily = frame.set_index("when")["sales"].resample("D").sum()  # the day of the clock change has 23 hours
print([str(day) for day in daily.index], daily.tolist())
print(frame.pivot_table(index="shop", columns=frame["when"].dt.hour // 6, values="sales").round(3).to_json())
owners = pd.DataFrame({"shop": ["Köln", "東京"], "owner": ["Ada", "Yui"]})
print(frame.merge(owners, how="left")["owner"].value_counts(dropna=False).to_dict())

out = Path(os.environ["OUTPUT_DIR"])
frame.to_csv(out / "sales.csv", index=False)
again = pd.read_csv(out / "sales.csv", dtype={"shop": "category"})
print("read back", again.shape, int(again["sales"].sum()), list(again["shop"].cat.categories))
np.save(out / "matrix.npy", matrix[:5])
mapped = np.load(out / "matrix.npy", mmap_mode="r")
print("mapped", type(mapped).__name__, round(float(mapped.sum()), 8))
memory = io.BytesIO()
np.savez_compressed(memory, a=matrix[:3], b=np.arange(4))
print("npz", sorted(np.load(io.BytesIO(memory.getvalue())).files))
