"""Which row a text names, against the encoder."""

import pytest
import tensorflow as tf

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.encoding.row_names import find_row
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

TEXTS = ["1", "1.0", "0", "true", "True", "FALSE", "false", "24216", "24216.0", "24216.", "007", "7", "<missing>"]


@pytest.mark.parametrize(
    "vocabulary",
    [
        ["true", "1", "24216", "<missing>"],  # a boolean and a number, each a value of its own
        ["1", "true", "x"],
        ["true", "false", "<missing>"],
        ["1", "0"],
        ["True", "x", "007"],
    ],
)
def test_a_text_names_the_row_that_the_encoder_gives_it(tmp_path, vocabulary):
    schema = Schema(
        Label("y"), categorical=(CategoricalFeature("c"),), tables=(Table("c", vocabulary_size=len(vocabulary) + 1),)
    )
    (tmp_path / "vocabulary").mkdir()
    (tmp_path / "vocabulary" / "c.txt").write_text("".join(f"{value}\n" for value in vocabulary))
    (tmp_path / "statistics.json").write_text('{"dense": {}}')
    encoder = Encoder(schema, str(tmp_path))
    for text in TEXTS:
        row = int(encoder.encode({"c": tf.constant([text])})["ids"][0, 0])
        if row:
            assert find_row(schema, str(tmp_path), "c", text) == row, text
        else:
            with pytest.raises(ValueError, match=f"table 'c': '{text}' is not in its vocabulary"):
                find_row(schema, str(tmp_path), "c", text)
