"""What a trained model has made of its features and tables: see docs/guides/explain.md.

`sample` draws the examples, `importance` and `interactions` ask the model about them; `rows` reads the tables, for
`usage` and `neighbours`. `explain` does all of it for a run, `pictures` draws it.
"""
