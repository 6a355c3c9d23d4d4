"""Explains what a trained model has learned of its features and tables; see docs/guides/explain.md.

`explain_run` explains the model of a run. `sample` draws examples, on which `importance` and `interactions` measure the
model; `table_usage` and `neighbours` read the tables. `tfrs_dlrm.plots` draws the results.
"""
