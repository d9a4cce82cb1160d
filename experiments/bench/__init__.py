"""Benchmarks that measure both sides in one run: ``python -m experiments.bench NAME``."""
