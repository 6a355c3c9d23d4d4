"""The rule of values in TensorFlow operations: against Python's, and for vocabularies of every kind."""

import itertools
import random

import pyarrow as pa
import pytest
import tensorflow as tf

from tfrs_dlrm.data.encoding.text_values import CANONICAL, boolean_words, has_digits, spelled, to_int64, whole_texts
from tfrs_dlrm.data.raw.typed_values import whole_numbers
from tfrs_dlrm.data.raw.values import as_whole

EDGES = [10**18 - 1, 10**18, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**19, 99 * 10**18]


def random_texts(count=3000):
    rng = random.Random(0)
    ends = ["", ".", ".0", ".00", ".5", "e3", " ", "x", ".0.0"]
    for _ in range(count):
        number = rng.choice([*EDGES, rng.randrange(10 ** rng.randrange(1, 21))]) + rng.randrange(-3, 4)
        yield rng.choice(["", "-", "+", "0", "00", "-0"]) + str(abs(number)) + rng.choice(ends)
    yield from ["", "-", ".0", "nan", "inf", "True", "TRUE", "false", "tRUE", "٣", "1_0", "1\n", "\n1"]


def test_whole_numbers_in_tensorflow_arrow_and_python():
    texts = list(random_texts())
    # A fourth opinion: Python's own numbers.
    expected = []
    for text in texts:
        body = text.removeprefix("-").partition(".")
        plain = body[0].isascii() and body[0].isdecimal() and set(body[2]) <= {"0"}
        number = int(text.partition(".")[0]) if plain else {"True": 1, "TRUE": 1, "false": 0}.get(text)
        expected.append(number if number is not None and -(2**63) <= number < 2**63 else None)
    assert [as_whole(text) for text in texts] == expected
    array, wrong = whole_numbers(pa.array(texts))
    assert array.to_pylist() == expected and (~wrong).tolist() == [n is not None for n in expected]
    graph = tf.function(to_int64, input_signature=[tf.TensorSpec([None], tf.string)])
    assert graph(tf.constant(texts)).numpy().tolist() == [-1 if n is None else n for n in expected]
    shown = [t.decode() for t in whole_texts(tf.constant(texts)).numpy()]
    known = {None: lambda t: t, -1: lambda _: ""}
    assert shown == [known.get(n, lambda t, n=n: str(n))(t) for t, n in zip(texts, expected, strict=True)]


@pytest.mark.parametrize(
    ("vocabulary", "others", "same"),
    [
        ({"true", "false"}, False, [{"true", "True", "TRUE", "1", "1.0"}, {"false", "False", "FALSE", "0", "0.0"}]),
        ({"true", "false"}, True, [{"true", "True", "TRUE"}, {"1"}, {"1.0"}, {"false", "False", "FALSE"}, {"0"}]),
        ({"True", "False"}, False, [{"true", "True", "TRUE", "1"}, {"false", "False", "FALSE", "0"}]),  # of old data
        ({"True", "TRUE"}, False, [{"true", "True", "1"}, {"TRUE"}, {"false"}, {"False"}]),
        ({"1", "0"}, False, [{"true", "True", "TRUE", "1"}, {"false", "False", "FALSE", "0"}]),
        ({"1", "0"}, True, [{"true"}, {"True"}, {"1"}, {"0"}]),
        ({"true", "1"}, False, [{"true", "True"}, {"1"}]),  # of a log that has both
        (set(), True, [{"true"}, {"True"}]),
    ],
)
def test_booleans_of_a_vocabulary_are_one_value(vocabulary, others, same):
    spelling = CANONICAL._replace(booleans=boolean_words(vocabulary, others), digits=False)
    for word, other in itertools.product(*[set().union(*same)] * 2):
        found = spelled(tf.constant([word, other]), spelling).numpy()
        assert (found[0] == found[1]) == any({word, other} <= group for group in same), (word, other)


def test_digits_are_found_wherever_they_are(tmp_path):
    path = tmp_path / "v.txt"
    for content, expected in (
        ("a\n1a\n1.5\n", False),
        ("a\n24\n", True),
        ("-7\n", True),
        ("x" * (1 << 20) + "\n7\n", True),
    ):
        path.write_text(content)
        assert has_digits(str(path)) is expected
