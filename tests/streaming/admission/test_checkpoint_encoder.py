"""The files of a checkpoint encode by its vocabularies, and other data of the chain are compared with them by value."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from tfrs_dlrm.config import StreamConfig
from tfrs_dlrm.config.admitting_tables import with_room
from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.encoding.vocabulary import all_rows_by_value
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.data.raw.typed_rows import parse
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema
from tfrs_dlrm.streaming.admission import new_values
from tfrs_dlrm.streaming.admission.checkpoint_encoder import write_encoder
from tfrs_dlrm.streaming.admission.new_values import NewValues


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "prepared"
    log = pa.table({"y": [0, 1] * 6, "site": [*"aaabbc"] * 2, "user": [*"xyxyxy"] * 2})
    features = (CategoricalFeature("site", max_size=5), CategoricalFeature("user"))
    prepare(Schema(Label("y"), (), features), log, str(directory))
    return str(directory)


def test_the_files_encode_by_the_vocabulary_of_the_checkpoint(prepared, tmp_path):
    schema = with_room(Schema.load(os.path.join(prepared, "schema.json")), {"site": 5})
    assert [t.vocabulary_size for t in schema.tables] == [6, 3]
    write_encoder(str(tmp_path / "encoder"), prepared, schema, {"site": [b"a", b"n\xc3\xa9w", b"c", b"d"]})
    encoder = Encoder.load(str(tmp_path / "encoder"))
    rows, known = encoder.rows(schema.categorical[0], tf.constant(["a", "b", "néw", "c", "d"]))
    assert rows.numpy().tolist() == [1, 0, 2, 3, 4] and known.numpy().tolist() == [True, False, True, True, True]
    assert encoder.rows(schema.categorical[1], tf.constant(["y", "x"]))[0].numpy().tolist() == [2, 1]

    rows = all_rows_by_value(prepared, str(tmp_path / "encoder"))
    np.testing.assert_array_equal(rows["site"], [0, 1, 0, 3])
    np.testing.assert_array_equal(rows["user"], [0, 1, 2])
    np.testing.assert_array_equal(all_rows_by_value(str(tmp_path / "encoder"), prepared)["site"], [0, 1, 0, 3, 0])


def test_only_a_table_with_all_its_room_may_have_more_rows_than_values(prepared, tmp_path):
    schema = Schema.load(os.path.join(prepared, "schema.json")).with_vocabulary_sizes({"site": 5})
    write_encoder(str(tmp_path / "encoder"), prepared, schema, {})
    with pytest.raises(ValueError, match="3 values, but table 'site' has 5 rows"):
        Encoder.load(str(tmp_path / "encoder"))
    too_many = with_room(dataclasses.replace(schema), {"site": 5})
    write_encoder(str(tmp_path / "other"), prepared, too_many, {"site": [b"%d" % i for i in range(6)]})
    assert Path(tmp_path / "other" / "checksums.json").exists()
    with pytest.raises(ValueError, match="6 values, but table 'site' has 6 rows"):
        Encoder.load(str(tmp_path / "other"))


@pytest.mark.parametrize("log", [["1", "0", "1", "0"], ["true", "false", "1", "0"], ["a", "", "7", "a"]])
def test_a_trainer_encodes_as_what_it_saves(log, tmp_path):
    """While values come and go, also missing ones and spellings of booleans and whole numbers."""
    schema = Schema(Label("y"), (), (CategoricalFeature("flag", max_size=3),))
    prepare(schema, pa.table({"y": [0, 1] * 8, "flag": log * 4}), str(tmp_path / "prepared"))
    encoder = Encoder.load(str(tmp_path / "prepared"))
    config = StreamConfig(new_values="admit", admit_after=2, admit_within=2)
    admitting = NewValues(config, {"flag": 3}, str(tmp_path / "prepared"), encoder, None)
    admitting.begin(str(tmp_path / "prepared"))
    asked = ["1", "1.0", "0", "true", "True", "FALSE", "", "a", "7", "7.0", "b"]
    first = 0
    for value in ["True", "b", "", "7.0", "0"]:
        shown = pa.table({"y": [0] * 40, "flag": [value] * 40})
        rows = parse(RawBlock("log", 0, 1, 40, shown, ("y", "flag")), encoder.schema)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(new_values, "begin_anew", lambda *changed: None)
            admitting.see(rows, first)
        first += 40
        admitting.write_files(str(tmp_path / str(first)))
        saved = Encoder.load(str(tmp_path / str(first) / "encoder"))
        feature = encoder.schema.categorical[0]
        found, wanted = (e.rows(feature, tf.constant(asked))[0].numpy() for e in (encoder, saved))
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(found, saved({"flag": tf.constant(asked)})["ids"].numpy()[:, 0])
        assert encoder.rows(feature, tf.constant([value]))[0].numpy() > 0
