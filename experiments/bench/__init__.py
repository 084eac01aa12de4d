"""The benchmarks behind `benchmarks.py`, one module a subject."""
