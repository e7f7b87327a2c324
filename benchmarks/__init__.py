"""Benchmarks: one script a question, each printing ratios measured within one run.

    .venv/bin/python -m benchmarks              all of them
    .venv/bin/python -m benchmarks one_call     one of them

Results with date, machine and versions stand in `docs/benchmarks.md`.
"""
