"""The JSON of requests, held against Python's own parser, and its bounds."""

import json
import random
import sys

import pytest

from tfrs_dlrm.serving.protocol import InvalidRequest
from tfrs_dlrm.serving.server.json_bodies import memory_of_values, parse, shown


def test_values_are_those_of_pythons_parser():
    rng = random.Random(0)
    values = [0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64, -(2**63) - 1, 10**30, 0.1, 1e300, -0.0, 123456789.5]
    values += [
        float("inf"),
        -float("inf"),
        "NaN",
        "1" * 40,
        'a"b\\',
        "\ud800",
        "é",
        None,
        True,
        {"b64": "aa"},
        [[], {}],
    ]
    for _ in range(300):
        body = {"inputs": rng.sample(values, 3), str(rng.choice(values)): {"x": rng.choice(values)}}
        text = json.dumps(body, ensure_ascii=rng.random() < 0.5 or "\ud800" in str(body)).encode(errors="surrogatepass")
        assert repr(parse(text)) == repr(json.loads(text)), text
    assert repr(parse(b'{"a": [NaN, -Infinity]}')) == "{'a': [nan, -inf]}"


@pytest.mark.parametrize("digits", [18, 19, 25])
@pytest.mark.parametrize("place", [0, 5, (1 << 20) - 19, (1 << 20) - 10, (1 << 20) - 1, 1 << 20])
def test_long_integers_stay_integers_wherever_they_stand(digits, place):
    number = int("9" * digits)
    found = parse(b'{"a":' + b" " * place + b"%d}" % number)["a"]
    assert found == number and isinstance(found, int)


@pytest.mark.parametrize("body", ["[" * 2000, "{}[]", '{"a": 01}', "", '{"a": "\x00"}', '{"a": ' + "9" * 5000 + "}"])
def test_what_is_no_json_is_refused(body):
    with pytest.raises(InvalidRequest, match="JSON"):
        parse(body.encode())


@pytest.mark.parametrize("item", ["{}", "[]", "1.5", '"ab"', '{"a":1}', "[[[[1]]]]", '{"b64":"aa"}', "null", "123456"])
def test_memory_is_estimated_from_above_but_not_by_far(item):
    def size(value):
        if isinstance(value, list):
            return sys.getsizeof(value) + sum(map(size, value))
        if isinstance(value, dict):
            return sys.getsizeof(value) + sum(map(size, value.values()))
        return sys.getsizeof(value) if isinstance(value, str | float) else 0

    body = b'{"a":[' + b",".join([item.encode()] * 10_000) + b"]}"
    taken = size(parse(body))
    assert taken <= memory_of_values(body) <= 8 * taken + 2 * len(body)


def test_what_is_shown_is_short_and_needs_no_deep_stack():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, {"a": deep}, ["x" * 10**6] * 10**5, {str(i): i for i in range(10**5)}, 10**5000, "\ud800" * 99):
        assert len(shown(value)) <= 60
    assert shown({"b64": "?"}) == '{"b64": "?"}' and shown([1, None, "a"]) == '[1, null, "a"]'
