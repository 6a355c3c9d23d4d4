"""Admissions and evictions equal those of a plain loop over all rows, which remembers everything."""

import numpy as np
import pytest

from tfrs_dlrm.streaming.admission.candidates import Candidates
from tfrs_dlrm.streaming.admission.living_vocabulary import LivingVocabulary, Occurrences
from tfrs_dlrm.streaming.admission.vocabulary_state import TableState

AFTER, WITHIN, ROOM = 3, 60, 12


def stream(rows, seed):
    """Values of a moving popularity, 1 or 2 a row: (position, value) of each."""
    rng = np.random.default_rng(seed)
    found = []
    for position in range(rows):
        for _ in range(rng.integers(1, 3)):
            found.append((position, b"v%d" % (position // 40 + rng.geometric(0.12))))
    return found


def plain_loop(found, ends, values, counts):
    """Yields the vocabulary after each window, by the definitions alone: all positions of all values are kept."""
    rows, first = list(values), dict(zip(values, counts, strict=True))
    seen = {value: [] for value in values}
    for begin, end in zip([0, *ends], ends, strict=False):
        enough, known = set(), set(rows)
        for position, value in found:
            if begin <= position < end:
                seen.setdefault(value, []).append(position)
                near = [p for p in seen[value] if position - p < WITHIN]
                if value not in known and len(near) >= AFTER:
                    enough.add(value)

        def count(value, end=end):
            return sum(0.5 ** ((end - p) / WITHIN) for p in seen[value]) + first.get(value, 0) * 0.5 ** (end / WITHIN)

        for value in sorted(enough, key=lambda v: (-count(v), v)):
            if len(rows) < ROOM:
                rows.append(value)
                continue
            line = min(range(ROOM), key=lambda i: (count(rows[i]), -i))
            if count(rows[line]) < count(value):
                del seen[rows[line]]
                first.pop(rows[line], None)
                rows[line] = value
        for value in set(seen) - set(rows):
            if end - seen[value][-1] >= WITHIN:
                del seen[value]
        yield list(rows)


def vocabulary(values, counts, most=1000):
    return LivingVocabulary(values, np.array(counts), ROOM, WITHIN, Candidates(AFTER, WITHIN, most))


def window(found, begin, end):
    here = [(p, v) for p, v in found if begin <= p < end]
    texts = sorted({v for _, v in here})
    codes = np.array([texts.index(v) for _, v in here], np.int64)
    return Occurrences(texts, codes, np.array([p for p, _ in here], np.int64))


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_plain_loop(seed):
    found, ends = stream(600, seed), [*range(37, 600, 37), 600]
    values, counts = [b"v3", b"v1", b"old"], [4.0, 2.5, 30.0]
    living, admitted, evicted = vocabulary(values, counts), 0, 0
    expected = plain_loop(found, ends, values, counts)
    before = values
    for begin, end, wanted in zip([0, *ends], ends, expected, strict=False):
        of_window = window(found, begin, end)
        changes = living.see(of_window, end)
        assert living.values == wanted, end
        assert living.rows([*wanted, b"never"]).tolist() == [*range(1, len(wanted) + 1), 0]
        assert changes.fresh.tolist() == [r for r, (a, b) in enumerate(zip(before, wanted, strict=False), 1) if a != b]
        assert changes.unseen == sum(v not in before for p, v in found if begin <= p < end)
        assert changes.seen == len(of_window.codes)
        admitted, evicted, before = admitted + changes.admitted, evicted + len(changes.fresh), wanted
    assert evicted > 15 and admitted == evicted + ROOM - len(values)


def test_goes_on_after_it_was_saved():
    found = stream(400, 5)
    whole, cut = vocabulary([b"v1"], [1.0]), vocabulary([b"v1"], [1.0])
    for begin in range(0, 400, 50):
        state = TableState()
        state.pack(cut)
        cut = state.unpack(ROOM, WITHIN, Candidates(AFTER, WITHIN, 1000))
        for each in (whole, cut):
            each.see(window(found, begin, begin + 50), begin + 50)
        assert cut.values == whole.values and list(cut.candidates) == list(whole.candidates)
        np.testing.assert_array_equal(cut.counts, whole.counts)


def test_memory_is_bounded():
    living = vocabulary([b"v1"], [1.0], most=50)
    for begin in range(0, 5000, 500):
        texts = [b"new%d" % i for i in range(begin, begin + 500)]
        living.see(Occurrences(texts, np.arange(500), np.arange(begin, begin + 500)), begin + 500)
        assert len(living.candidates) == 50  # those that were seen last
    assert b"new4999" in living.candidates and b"new4949" not in living.candidates
    assert living.values == [b"v1"]


def test_a_frequent_value_gives_up_no_row():
    living = vocabulary([b"v%d" % i for i in range(ROOM)], [100.0] * ROOM)
    changes = living.see(Occurrences([b"new"], np.zeros(10, np.int64), np.arange(10)), 10)
    assert not changes.admitted and b"new" in living.candidates
