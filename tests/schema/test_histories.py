"""Histories in a schema: what they take of other features, and what is refused."""

import pytest

from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

ITEM = CategoricalFeature("item", dtype="int64", encoding="hash", table="items")
CLICKED = CategoricalFeature("clicked", separator="|", sequence_length=3, history_of="item")
TABLES = (Table("items", 4, 10),)


def schema(*features, tables=TABLES):
    return Schema(Label("y"), (DenseFeature("x"),), features, tables)


def test_histories_take_table_encoding_and_length():
    category = CategoricalFeature("category", min_count=2)
    side = CategoricalFeature("clicked_categories", history_of="category", parallel_to="clicked")
    made = schema(side, CLICKED, category, ITEM)
    found = {f.name: f for f in made.categorical}
    clicked, categories = found["clicked"], found["clicked_categories"]
    assert (clicked.table, clicked.encoding, clicked.dtype, clicked.multi_valued) == ("items", "hash", "int64", True)
    assert (categories.table, categories.min_count, categories.sequence_length) == ("category", 2, 3)
    assert made.histories == (categories, clicked)
    assert Schema.from_json(made.to_json()) == made
    assert {x.name: x.parallel_to for x in made.inputs}["clicked_categories"] == "clicked"
    # The part that candidates share has the history, and not the feature whose values it lists.
    part = made.select(["clicked", "x"])
    assert part.categorical == (clicked,)


def test_refuses():
    def refused(match, *features):
        with pytest.raises(ValueError, match=match):
            schema(*features)

    def changed(**fields):
        return CategoricalFeature(**({"name": "clicked", "sequence_length": 3, "history_of": "item"} | fields))

    refused("history_of='itm' is no categorical feature; .*item", ITEM, changed(history_of="itm"))
    refused("'clicked': a history needs sequence_length", ITEM, changed(sequence_length=None))
    refused("table='other', and 'item', whose earlier values it lists, has 'items'", ITEM, changed(table="other"))
    refused("'w': the values of a history have no weights", ITEM, changed(weights="w"))
    refused("pooling='max' is not one of mean, sum", ITEM, changed(pooling="max"))
    refused("differ in encoding", ITEM, changed(dtype="int64", encoding="ids"))
    bag = CategoricalFeature("tags", multi_valued=True)
    refused("history_of='tags' is a feature of several values", bag, changed(history_of="tags"))
    refused(
        "history_of='clicked' is a feature of several values", ITEM, CLICKED, changed(name="c", history_of="clicked")
    )
    cross = CategoricalFeature("ab", cross=("a", "b"))
    crossed = CategoricalFeature("a"), CategoricalFeature("b"), cross
    refused("history_of='ab' is a cross", *crossed, changed(history_of="ab"))
    buckets = CategoricalFeature("price", encoding="buckets", buckets=4)
    refused("history_of='price', whose encoding is 'buckets'", buckets, changed(history_of="price"))
    refused("pooling='sum' is for histories", CategoricalFeature("tags", multi_valued=True, pooling="sum"))
    refused(
        "parallel_to='item' is no history.* choose among clicked", ITEM, CLICKED, changed(name="c", parallel_to="item")
    )
    refused("no other history can have such lists", ITEM, changed(parallel_to="clicked"))
    weighed = changed(name="c", parallel_to="clicked", pooling="target_attention")
    refused("weighs whole events, so both need it or neither; leave out pooling here", ITEM, CLICKED, weighed)
    longer = changed(name="c", parallel_to="clicked", sequence_length=4)
    refused("'c': sequence_length=4, and 'clicked', to which it is parallel, has 3", ITEM, CLICKED, longer)
