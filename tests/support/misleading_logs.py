"""Five more logs of columns whose type is known, made to mislead: see `typed_logs.py`.

Prefixes of telephone numbers, binned ages, prices in cents, percentages and prices as text, coordinates, ratings,
years, rounded amounts, minutes of a day, codes of districts and trades, versions, yes and no.
"""

import numpy as np

from tests.support.typed_logs import Log, drawn, joined, moments


def hotel(seed=21):
    """Searches for hotels: clusters without order, distances, stars, cents, percentages."""
    log = Log(seed)
    r = log.rng
    log.ids("srch_destination", drawn(r, 400, 8, 28000), 0.9)
    log.ids("hotel_market", drawn(r, 120, 0, 2200), 0.9)
    log.ids("hotel_cluster", np.arange(100), 0.6)
    log.number(
        "srch_adults_cnt", r.choice([1, 2, 3, 4, 5], log.rows, p=[0.2, 0.6, 0.1, 0.07, 0.03]), 0.2, "number category"
    )
    log.add("is_mobile", "category", r.integers(0, 2, log.rows))
    log.add("is_package", "category", np.where(r.random(log.rows) < 0.3, "yes", "no"))
    log.number(
        "orig_destination_distance",
        np.where(r.random(log.rows) < 0.35, np.nan, (r.lognormal(6, 1.2, log.rows)).round(4)),
        0.3,
    )
    log.add("check_in", "time", moments("2014-02-01", r.integers(0, 200, log.rows), "D", "%Y-%m-%d"))
    log.ids("user_location_city", drawn(r, 900, 0, 56000), 0.8)
    log.number("price_usd_cents", np.round(r.lognormal(9, 0.7, log.rows)).astype(int), -0.4)
    log.ids("starrating", [1, 2, 3, 4, 5], 0.5, 0.3, "number category")
    log.number("review_score", r.choice(np.arange(0, 5.5, 0.5), log.rows), 0.3, "number category")
    log.number("promo_share", np.char.add(np.round(r.beta(2, 9, log.rows) * 100, 1).astype(str), "%"), 0.0)
    log.ids("room_type", ["double", "single", "suite", "twin"], 1, 0.2)
    log.number("length_of_stay", r.geometric(0.4, log.rows), 0.2, "number category")
    log.ids("lang", ["en", "de", "fr", "es", "it"], 1, 0.2)
    return log.done("booked", at=3)


def telecom(seed=22):
    """Customers of a telephone network: prefixes, areas, towers, calls, numbers of devices."""
    log = Log(seed)
    r = log.rng
    log.add("phone", "once", drawn(r, log.rows * 2, 2_000_000, 9_999_999)[: log.rows])
    log.ids("area_code", [408, 415, 510], 0.4, 0.2)
    log.ids("phone_prefix", drawn(r, 90, 200, 999), 0.6, 0.3)
    log.ids("State", ["CA", "NY", "TX", "WA", "OR", "NV"], 0.5, 0.3)
    log.number("Account Length", np.clip(r.normal(101, 40, log.rows), 1, 243).round().astype(int), 0.1)
    log.number("Day Mins", r.normal(180, 54, log.rows).round(1), 0.4)
    log.number("Day Calls", np.clip(r.normal(100, 20, log.rows), 0, 170).round().astype(int), 0.1)
    log.number("CustServ Calls", r.poisson(1.5, log.rows), 0.5, "number category")
    log.number(
        "VMail Message",
        np.where(r.random(log.rows) < 0.72, 0, np.clip(r.normal(29, 7, log.rows), 4, 51).round()).astype(int),
        -0.2,
    )
    log.add("Intl Plan", "category", np.where(r.random(log.rows) < 0.1, "yes", "no"))
    log.number("tenure", np.minimum(r.integers(0, 73, log.rows), 72), -0.6)
    log.number(
        "TotalCharges", np.where(r.random(log.rows) < 0.01, np.nan, r.lognormal(6.5, 1.3, log.rows).round(2)), -0.2
    )
    log.add("Contract", "category", r.choice(["Month-to-month", "One year", "Two year"], log.rows))
    log.ids("cell_tower", drawn(r, 300, 10000, 64999), 0.7, 0.5)
    log.ids("plan", np.arange(1, 13), 0.5, 0.5)
    log.number("data_mb", np.round(r.gamma(1.2, 900, log.rows)).astype(int), 0.2)
    log.add("imei", "once", np.array([f"35{v:013d}" for v in r.integers(0, 10**13, log.rows)]))
    log.ids("device_model", [f"SM-{c}{n}" for c in "AGN" for n in (50, 51, 52, 970, 980)], 0.8, 0.3)
    return log.done("Churn", ("False.", "True."), at=18)


def loans(seed=23):
    """Loans: rounded amounts, grades, codes of trades and places, years, dates of a log in its order."""
    log = Log(seed)
    r = log.rng
    log.add("loan", "once", np.arange(1_077_501, 1_077_501 + 3 * log.rows, 3))
    log.number("loan_amnt", (r.integers(20, 1400, log.rows) * 25), 0.1)
    log.number("term", r.choice([36, 60], log.rows, p=[0.7, 0.3]), 0.4, "number category")
    log.number("int_rate", np.char.add(np.round(r.normal(13, 4, log.rows), 2).astype(str), "%"), 0.0)
    log.ids("grade", list("ABCDEFG"), 0.5, 0.5)
    log.ids("sub_grade", [f"{a}{b}" for a in "ABCDEFG" for b in range(1, 6)], 0.5, 0.4)
    log.ids("emp_title_code", drawn(r, 500, 1, 9000), 0.9)
    log.number("annual_inc", np.round(r.lognormal(11, 0.5, log.rows), -3).astype(int), -0.4)
    log.ids("zip3", [f"{v:03d}xx" for v in drawn(r, 300, 7, 999)], 0.6, 0.3)
    log.number("dti", np.clip(r.normal(17, 8, log.rows), 0, 40).round(2), 0.3)
    log.number("delinq_2yrs", r.poisson(0.3, log.rows), 0.3, "number category")
    log.number("fico", r.choice(np.arange(660, 850, 5), log.rows, p=_shares(np.exp(-np.arange(38) / 10))), -0.5)
    log.add("issue_d", "time", moments("2015-01-01", np.sort(r.integers(0, 700, log.rows)), "D", "%d-%b-%Y"))
    log.number("open_acc", np.round(r.gamma(5, 2.2, log.rows)).astype(int), 0.1)
    log.number("revol_util", np.clip(r.normal(54, 24, log.rows), 0, 120).round(1), 0.3)
    log.add("pymnt_plan", "category", np.where(r.random(log.rows) < 0.03, "y", "n"))
    log.number("fips_pop", np.round(r.lognormal(10, 1.5, log.rows)).astype(int), 0.0)
    log.ids("msa", drawn(r, 200, 10180, 49740), 0.9, 0.3)
    log.ids("naics", drawn(r, 150, 111110, 928120), 0.9, 0.4)
    log.number("year", r.integers(2007, 2016, log.rows), 0.2, "number category")
    return log.done("loan_status", ("Fully Paid", "Charged Off"), at=15)


def games(seed=24):
    """Games: players, versions, binned ages, minutes of a day, times with AM and PM."""
    log = Log(seed)
    r = log.rng
    log.ids("player", drawn(r, 700, 76561190000, 76561199999), 0.7)
    log.ids("champion", drawn(r, 140, 1, 555), 0.7, 0.5)
    log.ids("map", [1, 10, 11, 12], 0.6, 0.2)
    log.ids("patch", ["13.1", "13.2", "13.3", "13.10", "13.11"], 0.3, 0.2, "category number")
    log.number("level", np.clip(r.geometric(0.02, log.rows), 1, 400), 0.3)
    log.number("kills", r.poisson(6, log.rows), 0.6, "number")
    log.number("gold", np.round(r.normal(11000, 3300, log.rows)).astype(int), 0.6)
    log.number("elo", np.round(r.normal(1500, 220, log.rows)).astype(int), 0.5)
    log.number("ping", np.round(r.lognormal(3.6, 0.5, log.rows)).astype(int), -0.3)
    log.number("winstreak", r.geometric(0.5, log.rows) - 1, 0.2, "number category")
    log.number("x", r.uniform(-180, 180, log.rows).round(5), 0.0)
    log.number(
        "age_bucket",
        r.choice([1, 18, 25, 35, 45, 50, 56], log.rows, p=[0.04, 0.18, 0.35, 0.2, 0.09, 0.09, 0.05]),
        0.2,
        "number category",
    )
    log.ids("skin", drawn(r, 250, 1000, 555000), 1.1, 0.4)
    log.ids("queue", [400, 420, 430, 440, 450, 700], 0.5, 0.3)
    log.ids("guild_hash", [f"{v:08x}" for v in drawn(r, 120, 0, 2**32)], 0.6, 0.4)
    log.add("premium", "category", np.where(r.random(log.rows) < 0.3, "TRUE", "FALSE"))
    log.number("damage", np.round(r.gamma(3, 6000, log.rows)).astype(int), 0.3)
    log.number("server_load", np.char.add(np.round(r.beta(4, 3, log.rows) * 100).astype(int).astype(str), "%"), 0.0)
    log.number("minute_of_day", r.integers(0, 1440, log.rows), 0.1)
    log.add(
        "started",
        "time",
        moments("2024-05-01", np.sort(r.integers(0, 40 * 86400, log.rows)), "s", "%m/%d/%Y %I:%M:%S %p"),
    )
    return log.done("win", at=17)


def listings(seed=25):
    """Flats: coordinates, prices with a sign, nights, years, districts, days of joining."""
    log = Log(seed)
    r = log.rng
    log.add("listing", "once", r.permutation(drawn(r, 3 * log.rows, 1000, 60_000_000)[: log.rows]))
    log.number("latitude", r.normal(40.7, 0.06, log.rows).round(5), 0.1)
    log.number("longitude", r.normal(-73.9, 0.05, log.rows).round(5), 0.1)
    log.ids("host", drawn(r, 600, 2000, 90_000_000), 0.8, 0.4)
    log.ids("neighborhood", np.arange(1, 73), 0.8, 0.5)
    log.number("price", np.char.add("$", np.char.mod("%.2f", r.lognormal(4.8, 0.7, log.rows))), 0.0)
    log.number(
        "bedrooms", r.choice([0, 1, 2, 3, 4, 5], log.rows, p=[0.1, 0.5, 0.22, 0.1, 0.05, 0.03]), 0.2, "number category"
    )
    log.number(
        "bathrooms", r.choice([1, 1.5, 2, 2.5, 3], log.rows, p=[0.7, 0.08, 0.15, 0.04, 0.03]), 0.1, "number category"
    )
    log.number(
        "minimum_nights",
        r.choice(
            [1, 2, 3, 4, 5, 7, 14, 28, 30, 60, 90, 365],
            log.rows,
            p=_shares(np.array([30, 25, 15, 7, 6, 5, 2, 2, 8, 0.5, 0.5, 0.2])),
        ),
        -0.2,
        "number category",
    )
    log.number("availability_365", np.where(r.random(log.rows) < 0.35, 0, r.integers(1, 366, log.rows)), 0.3)
    log.number("number_of_reviews", r.negative_binomial(0.5, 0.02, log.rows), 0.4)
    log.number(
        "reviews_per_month", np.where(r.random(log.rows) < 0.2, np.nan, r.exponential(1.3, log.rows).round(2)), 0.3
    )
    log.number(
        "host_response_rate",
        np.char.add(np.clip(r.normal(95, 12, log.rows), 0, 100).round().astype(int).astype(str), "%"),
        0.0,
    )
    log.number("sqft", np.where(r.random(log.rows) < 0.3, np.nan, np.round(r.normal(900, 300, log.rows), -1)), 0.2)
    log.number("yr_built", (1900 + r.beta(2, 1.5, log.rows) * 120).round().astype(int), 0.2)
    log.number("floor", np.minimum(r.geometric(0.25, log.rows), 30), 0.1, "number category")
    log.ids("zipcode", drawn(r, 150, 10001, 11697), 0.8, 0.4)
    log.ids("census_tract", drawn(r, 400, 100, 162100), 0.6, 0.4)
    log.ids("school_district", np.arange(1, 33), 0.5, 0.4)
    log.add("amenities", "list", joined(r, log.rows, ["Wifi", "TV", "Heating", "Pool", "Gym"], ","))
    log.ids("app_version", ["4.12.1", "4.12.2", "4.13.0", "5.0"], 1, 0.3)
    log.add("superhost", "category", np.where(r.random(log.rows) < 0.2, "t", "f"))
    log.number("host_since_days", r.integers(0, 4000, log.rows), 0.2)
    log.add("host_since", "time", moments("2009-01-01", r.integers(0, 4000, log.rows), "D", "%Y-%m-%d"))
    return log.done("instant_bookable", at=5)


def _shares(weights):
    return weights / weights.sum()


LOGS = (hotel, telecom, loans, games, listings)
