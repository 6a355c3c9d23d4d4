"""Writes a run on one HTML page; see docs/guides/report.md.

`examine` collects the findings about a run, `page` makes them a page out of `sections`, and `markup` escapes all text.
"""
