"""The numbers that isorun claims, measured beside what people would use instead.

`python -m bench` runs every figure and its peers in one process, whole runs and their peers in turns,
and writes `bench/results.json` and `docs/performance.md`. It refuses to report a run
whose walls were not complete.
"""
