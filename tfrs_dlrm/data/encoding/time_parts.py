"""Reads times and their parts in TensorFlow operations, which are part of every exported graph.

Dates are counted in days since 1970 in the proleptic Gregorian calendar, after Hinnant 2013, "chrono-Compatible
Low-Level Date Algorithms".
"""

from __future__ import annotations

import re
from typing import NamedTuple

import tensorflow as tf

from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.schema import EPOCHS, ISO8601, MONTHS, Time, TimePart

_DAY = 24 * 60  # in minutes
_MICROS = 60 * 10**6  # in a minute
# Parts that stand in the place of texts that are no times, so that nothing fails.
_FITTING = {"b": "jan", "B": "january", "p": "am", "z": "Z"}
_ZONE = r"[+-][0-9]{2}(?::?[0-9]{2})?$"


class Minutes(NamedTuple):
    """Times in whole minutes since 1970, int64 [N]; where they are not `known`, bool [N], 0."""

    since_1970: tf.Tensor
    known: tf.Tensor


def read_minutes(values: tf.Tensor, time: Time) -> Minutes:
    """Reads texts, or whole numbers of an epoch; what is no time of the format is not known."""
    if time.is_epoch:
        known = values != MISSING_INT
        return Minutes(tf.where(known, values // EPOCHS[time.format], 0), known)
    if time.format == ISO8601:
        return _iso_minutes(values, time)
    known = tf.strings.regex_full_match(values, time.pattern)
    found = {
        letter: _number(letter, tf.where(known, _part(values, time, letter), _FITTING.get(letter, "1")))
        for letter in time.directives
        if letter not in "Sfa"
    }
    one = tf.ones_like(values, tf.int64)
    year = found.get("Y", 1970 * one)
    if "y" in found:
        year = found["y"] + tf.where(found["y"] < 69, 2000 * one, 1900 * one)
    month = next((found[letter] for letter in "mbB" if letter in found), one)
    hour = found["I"] % 12 + 12 * found["p"] if "I" in found else found.get("H", 0 * one)
    minutes = _minutes(known, year, month, found.get("d", one), hour, found.get("M", 0 * one))
    if "z" not in found:
        return minutes
    return Minutes(tf.where(minutes.known, minutes.since_1970 - found["z"], 0), minutes.known)


def _part(values: tf.Tensor, time: Time, letter: str) -> tf.Tensor:
    """Returns the part of a directive, string [N], of texts that fit the format; other texts as they are."""
    groups = re.sub(r"\(\?P<(?!" + letter + ">)[A-Za-z]>", "(?:", time.pattern)  # RE2 writes at most \9
    return tf.strings.regex_replace(values, f"^(?:{groups})$", r"\1")


def _number(letter: str, text: tf.Tensor) -> tf.Tensor:
    """Returns what the part of a directive says, int64 [N]: PM is 1, and a zone is minutes ahead of UTC."""
    if letter == "p":
        return tf.cast(tf.strings.lower(text) == "pm", tf.int64)
    if letter in "bB":
        start = tf.strings.lower(tf.strings.substr(text, 0, 3))
        return tf.add_n([(k + 1) * tf.cast(start == name[:3], tf.int64) for k, name in enumerate(MONTHS)])
    if letter == "z":
        return _minutes_ahead(tf.where(text == "Z", "+0000", tf.strings.regex_replace(text, ":", "")))
    return tf.strings.to_number(text, tf.int64)


def _iso_minutes(values: tf.Tensor, time: Time) -> Minutes:
    known = tf.strings.regex_full_match(values, time.pattern)
    text = tf.where(known, values, "1970-01-01")
    text = tf.where(tf.strings.length(text) == len("1970-01-01"), tf.strings.join([text, "T00:00"]), text)

    def number(begin: int, size: int) -> tf.Tensor:
        return tf.strings.to_number(tf.strings.substr(text, begin, size), tf.int64)

    year, month, day, hour, minute = number(0, 4), number(5, 2), number(8, 2), number(11, 2), number(14, 2)
    local = _minutes(known, year, month, day, hour, minute)
    zone = tf.strings.substr(text, len("1970-01-01T00:00"), 1000)  # with seconds in front
    has_zone = tf.strings.regex_full_match(zone, f".*{_ZONE}")

    def shifted() -> tf.Tensor:
        sign_digits = tf.strings.regex_replace(zone, r"^.*([+-])([0-9]{2}):?([0-9]{2})?$", r"\1\2\3")
        return local.since_1970 - _minutes_ahead(tf.where(has_zone, sign_digits, "+0000"))

    # Most logs are in UTC, and to look for a zone is faster than to read one.
    utc = tf.cond(tf.reduce_any(has_zone), shifted, lambda: local.since_1970)
    return Minutes(tf.where(local.known, utc, 0), local.known)


def _minutes_ahead(zone: tf.Tensor) -> tf.Tensor:
    """Returns the minutes that zones are ahead of UTC, int64 [N]; each is a sign, HH, and perhaps MM."""
    hours = tf.strings.to_number(tf.strings.substr(zone, 1, 2), tf.int64)
    rest = tf.strings.join([tf.strings.substr(zone, 3, 2), "00"])  # `+01` has no minutes
    minutes = hours * 60 + tf.strings.to_number(tf.strings.substr(rest, 0, 2), tf.int64)
    return tf.where(tf.strings.substr(zone, 0, 1) == "-", -minutes, minutes)


def _minutes(
    known: tf.Tensor, year: tf.Tensor, month: tf.Tensor, day: tf.Tensor, hour: tf.Tensor, minute: tf.Tensor
) -> Minutes:
    """Returns the minutes of texts that fit the format; a day that its month does not have is not known."""
    next_month = _days(year + month // 12, month % 12 + 1, tf.ones_like(day))
    first = _days(year, month, tf.ones_like(day))
    known &= day <= next_month - first
    minutes = (first + day - 1) * _DAY + hour * 60 + minute
    return Minutes(tf.where(known, minutes, 0), known)


def _days(year: tf.Tensor, month: tf.Tensor, day: tf.Tensor) -> tf.Tensor:
    """Returns days since 1970-01-01; years begin in March, so that a leap day ends one."""
    year = tf.where(month <= 2, year - 1, year)
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * tf.where(month > 2, month - 3, month + 9) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def _month_and_day(days: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns month and day of the month of days since 1970-01-01."""
    shifted = days + 719468
    of_era = shifted - shifted // 146097 * 146097
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    from_march = (5 * of_year + 2) // 153
    day = of_year - (153 * from_march + 2) // 5 + 1
    return tf.where(from_march < 10, from_march + 3, from_march - 9), day


def read_micros(values: tf.Tensor, time: Time) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns microseconds since 1970, int64 [N], and which are known, bool [N]; 0 where they are not.

    Further digits of a second are dropped.
    """
    minutes = read_minutes(values, time)
    if time.is_epoch:
        per_minute = EPOCHS[time.format]
        if per_minute > _MICROS:
            micros = values // (per_minute // _MICROS)
        else:
            factor = _MICROS // per_minute
            micros = tf.clip_by_value(values, tf.int64.min // factor + 1, tf.int64.max // factor) * factor
        return tf.where(minutes.known, micros, 0), minutes.known
    second, fraction = _seconds(values, minutes.known, time)
    digits = tf.strings.substr(tf.strings.join([fraction, "000000"]), 0, 6)
    micros = tf.strings.to_number(second, tf.int64) * 10**6 + tf.strings.to_number(digits, tf.int64)
    return tf.where(minutes.known, minutes.since_1970 * _MICROS + micros, 0), minutes.known


def _seconds(values: tf.Tensor, known: tf.Tensor, time: Time) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the digits of the seconds and of their fraction, "0" where a text has none."""
    if time.format == ISO8601:
        behind = tf.strings.substr(tf.where(known, values, "1970-01-01"), len("1970-01-01"), 1000)
        behind = tf.strings.regex_replace(behind, "^.[0-9]{2}:[0-9]{2}", "")  # the clock without seconds
        pattern = "^:([0-9]{2})(?:[.,]([0-9]+))?.*$"
        has = tf.strings.regex_full_match(behind, pattern)
        parts = [tf.where(has, tf.strings.regex_replace(behind, pattern, rf"\{i}"), "") for i in (1, 2)]
    else:
        parts = [
            _part(values, time, letter) if letter in time.directives else tf.fill(tf.shape(values), "")
            for letter in "Sf"
        ]
    second, fraction = (tf.where(known & (part != ""), part, "0") for part in parts)
    return second, fraction


def part_rows(times: Minutes, part: TimePart) -> tf.Tensor:
    """Returns the row of a part, int32 [N]: hour + 1, Monday 1, the day of the month, or the month; 0 if not known."""
    days = times.since_1970 // _DAY
    if part == "hour":
        rows = (times.since_1970 - days * _DAY) // 60 + 1
    elif part == "weekday":
        rows = (days + 3) % 7 + 1  # 1970 began on a Thursday
    else:
        month, day = _month_and_day(days)
        rows = month if part == "month" else day
    return tf.cast(tf.where(times.known, rows, 0), tf.int32)


def days_since(times: Minutes, origin: int) -> tf.Tensor:
    """Returns whole days since `origin`, in days since 1970; float32 [N], NaN if not known."""
    days = tf.cast(times.since_1970 // _DAY - origin, tf.float32)
    return tf.where(times.known, days, float("nan"))
