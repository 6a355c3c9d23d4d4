"""Twelve logs of columns whose type is known: ids, numbers, times, lists and labels of every kind, made of a seed.

Each function returns a DataFrame, and by column which kinds are right: `number`, `category`, `list`, `time`, `once` for
ids that hardly ever come again (left out), `label`. Some columns have two right answers.
"""

import numpy as np
import pandas as pd

ROWS = 4000


class Log:
    """Columns, their kinds, and the logit of the label that they add up to."""

    def __init__(self, seed, rows=ROWS, mean=-1.0):
        self.rng, self.rows = np.random.default_rng(seed), rows
        self.logit = np.full(rows, float(mean))
        self.columns, self.kinds = {}, {}

    def add(self, name, kind, values):
        self.columns[name], self.kinds[name] = values, kind

    def ids(self, name, names, power=1.0, effect=0.6, kind="category"):
        """Adds ids: `names`, the k-th in a drawn order as frequent as k^-power, each with its effect on the label."""
        names = np.asarray(names)
        p = np.arange(1, len(names) + 1.0) ** -power
        which = self.rng.choice(len(names), self.rows, p=p / p.sum())
        order = self.rng.permutation(len(names))
        self.logit += effect * self.rng.standard_normal(len(names))[which]
        self.add(name, kind, names[order][which])

    def number(self, name, values, effect=0.4, kind="number"):
        """Adds numbers whose rank has an effect on the label."""
        rank = pd.Series(values).rank().to_numpy() / self.rows
        self.logit += effect * 3.5 * (rank - 0.5)
        self.add(name, kind, values)

    def done(self, label="click", values=(0, 1), at=0):
        """Returns the frame, with the label at a position, and the kinds."""
        ones = self.rng.random(self.rows) < 1 / (1 + np.exp(-self.logit))
        frame = pd.DataFrame(self.columns)
        frame.insert(at, label, np.where(ones, values[1], values[0]))
        return frame, self.kinds | {label: "label"}


def drawn(rng, n, low, high):
    """Returns n different whole numbers from low to high, in a drawn order."""
    found = np.unique(rng.integers(low, high, 3 * n))
    return rng.permutation(found)[:n]


def joined(rng, rows, words, separator):
    """Returns texts of one to three different words."""
    return np.array([separator.join(rng.choice(words, n, replace=False)) for n in rng.integers(1, 4, rows)])


def access(seed=1):
    """Access decisions: nothing but whole numbers, ids whose names say little."""
    log = Log(seed, mean=2.5)
    log.ids("RESOURCE", drawn(log.rng, 1500, 0, 312153), 0.9)
    log.ids("MGR_ID", drawn(log.rng, 1200, 25, 311696), 0.5)
    log.ids("ROLE_ROLLUP_1", drawn(log.rng, 110, 4292, 311178), 1.5)
    log.ids("ROLE_ROLLUP_2", drawn(log.rng, 160, 23779, 286791), 0.9)
    log.ids("ROLE_DEPTNAME", drawn(log.rng, 400, 4674, 286792), 0.7)
    log.ids("ROLE_TITLE", drawn(log.rng, 300, 117879, 311867), 1.0)
    log.ids("ROLE_FAMILY_DESC", drawn(log.rng, 900, 4673, 311867), 0.9)
    log.ids("ROLE_FAMILY", drawn(log.rng, 66, 3130, 308574), 1.1)
    log.ids("ROLE_CODE", drawn(log.rng, 300, 117880, 270691), 1.0)
    return log.done("ACTION")


def fraud(seed=2):
    """Clicks on ads for apps: low ids are frequent, one device has most of the rows, hardly any label is 1."""
    log = Log(seed, rows=8000, mean=-4.5)
    rng = log.rng
    log.ids("ip", drawn(rng, 3000, 1, 364778), 0.7, 0.3)
    crowd = np.minimum(drawn(rng, 160, 1, 700), drawn(rng, 160, 1, 700))
    log.ids("app", np.unique(crowd), 1.1, 1.2)
    device = np.array([1, 2, 0, 3032, 3543, 3866, 59, 16, 5, 6, 40, 21, 33, 37, 579, 1839, 2429, 1042, 97, 188])
    log.add("device", "category", rng.choice(device, log.rows, p=_falling([94, 4, 0.6, 0.4, 0.2], len(device))))
    log.ids("os", np.unique(rng.geometric(0.012, 200)), 1.2, 0.4)
    log.ids("channel", drawn(rng, 160, 3, 500), 0.8, 0.8)
    log.add("click_time", "time", _in_order(rng, log.rows, "2017-11-06", 3, "%Y-%m-%d %H:%M:%S"))
    return log.done("is_attributed", at=6)


def ctr(seed=3):
    """Clicks on banners: hours YYMMDDHH, codes of few values, hashed texts, anonymous whole numbers."""
    log = Log(seed)
    rng = log.rng
    log.add("id", "once", rng.integers(10**18, 9 * 10**18, log.rows).astype(np.uint64) * 2)
    log.add("hour", "time", np.char.add("141021", [f"{h:02d}" for h in np.sort(rng.integers(0, 24, log.rows))]))
    log.ids("C1", [1005, 1002, 1010, 1012, 1007, 1001, 1008], 2.5, 0.3)
    log.ids("banner_pos", [0, 1, 7, 2, 4, 5, 3], 2.0, 0.3)
    log.ids("site_id", [f"{v:08x}" for v in drawn(rng, 300, 0, 2**32)], 1.2)
    log.ids("app_domain", [f"{v:08x}" for v in drawn(rng, 90, 0, 2**32)], 1.4)
    log.add(
        "device_ip", "category", np.array([f"{v:08x}" for v in rng.integers(0, 2000, log.rows) * 2654435761 % 2**32])
    )
    log.ids("device_type", [1, 0, 4, 5], 1.5, 0.2)
    log.ids("C14", drawn(rng, 500, 375, 24052), 1.0, 0.8)
    log.ids("C15", [320, 300, 216, 728, 120, 1024, 480, 768], 2.5, 0.2)
    log.ids("C17", drawn(rng, 160, 112, 2758), 1.0, 0.5)
    log.ids("C18", [0, 3, 2, 1], 0.7, 0.4)
    log.ids("C19", drawn(rng, 60, 33, 1959), 1.0, 0.3)
    log.ids("C20", np.append(-1, 100000 + drawn(rng, 150, 0, 250)), 1.0, 0.3)
    log.ids("C21", drawn(rng, 55, 1, 255), 0.9, 0.5)
    return log.done("click", at=1)


def counts_and_hashes(seed=4):
    """A display log: counts of all sizes with gaps, some negative, and hashed texts."""
    log = Log(seed)
    rng = log.rng
    for i, (mean, shape) in enumerate(
        [(3, 0.4), (100, 0.5), (20, 0.6), (7, 1.5), (18000, 0.3), (110, 0.4), (16, 0.3), (12, 1.0)], 1
    ):
        values = rng.negative_binomial(shape, shape / (shape + mean), log.rows).astype(float)
        log.number(f"I{i}", values - 2 * (i == 2), 0.1 * (i % 4))
        log.columns[f"I{i}"] = np.where(rng.random(log.rows) < 0.05 * i, np.nan, log.columns[f"I{i}"])
    log.number("I9", np.floor(rng.lognormal(2, 2, log.rows)), 0.2)
    log.number("I10", rng.negative_binomial(0.7, 0.5, log.rows), 0.3)
    log.number("I12", rng.negative_binomial(0.3, 0.25, log.rows), 0.0)
    for i, size in enumerate([900, 400, 2500, 60, 12, 3, 1500], 1):
        log.ids(f"C{i}", [f"{v:08x}" for v in drawn(rng, size, 0, 2**32)], 1.1, 0.3)
    return log.done("label")


def shop(seed=5):
    """Offers of a shop: prices by product, counts, ratings, percentages, tags, sessions in their order."""
    log = Log(seed)
    rng = log.rng
    log.add("sessionId", "once", np.sort(rng.integers(0, log.rows, log.rows)) + 5_200_000)
    log.ids("productId", drawn(rng, 250, 10_000, 99_999), 0.8)
    products = pd.factorize(log.columns["productId"])[0]
    log.number("price", np.round(rng.lognormal(3.5, 1.0, 250))[products] - 0.01, -0.3)
    log.number("cents", (rng.lognormal(6, 1.2, log.rows)).round(), -0.3)
    log.number("n_views", rng.poisson(4, log.rows), 0.4)
    log.number("discount_pct", rng.choice([0, 5, 10, 15, 20, 25, 30, 50], log.rows), 0.3, "number category")
    log.number("stars", rng.choice([1, 2, 3, 4, 5], log.rows, p=[0.1, 0.1, 0.2, 0.35, 0.25]), 0.4, "number category")
    log.number("mean_rating", np.round(rng.normal(3.8, 0.5, log.rows), 2), 0.2)
    log.ids("warehouse", np.arange(1, 10), 0.4, 0.6)
    log.ids("SITE-ID", np.arange(1, 40), 0.6)
    log.add("brand", "category", np.char.add("b", rng.integers(0, 50, log.rows).astype(str)))
    log.add("in_stock", "category", rng.random(log.rows) < 0.8)
    log.add("tags", "list", joined(rng, log.rows, ["new", "sale", "eco", "gift", "kids"], ";"))
    return log.done("isBought", at=4)


def people(seed=6):
    """A survey: ages, incomes, years, weights of a sample, zip codes, binned ages, gaps in whole numbers."""
    log = Log(seed)
    rng = log.rng
    age = np.clip(rng.gamma(6, 7, log.rows) + 17, 17, 90).round()
    log.number("person_age", age.astype(int), 0.5)
    log.number("age_bin", np.digitize(age, [25, 35, 45, 55, 65]), 0.3, "number category")
    log.number("yearly", np.round(rng.lognormal(10.4, 0.6, log.rows) / 100).astype(int) * 100, 0.5)
    log.number("sample_weight", np.round(rng.lognormal(12, 0.5, log.rows)).astype(int), 0.0)
    log.number("gain", np.where(rng.random(log.rows) < 0.9, 0, rng.choice(drawn(rng, 90, 100, 20000), log.rows)), 0.4)
    log.number("birth_year", 2020 - age.astype(int), 0.0)
    log.number(
        "children", np.where(rng.random(log.rows) < 0.1, np.nan, rng.poisson(1.2, log.rows)), 0.3, "number category"
    )
    log.ids("zip", [f"{v:05d}" for v in drawn(rng, 300, 501, 99950)], 0.5)
    log.ids("zip_code", drawn(rng, 200, 10115, 99950), 0.5)
    log.ids("occupation", np.arange(1, 24), 0.5, 0.6)
    log.ids("sex", ["male", "female"], 0.1, 0.3)
    log.add("country", "left", np.full(log.rows, 49))
    return log.done("income", ("<=50K", ">50K"), at=12)


def rides(seed=7):
    """Rides: places as numbers, epochs, negative numbers, durations, and drivers as numbers with gaps."""
    log = Log(seed)
    rng = log.rng
    log.add("ride", "once", np.arange(880_000, 880_000 + log.rows))
    log.number("pickup_lat", rng.normal(48.1, 0.05, log.rows).round(6), 0.1)
    log.number("pickup_lng", rng.normal(11.5, 0.08, log.rows).round(6), 0.1)
    log.number("pickup_x", np.round(rng.normal(0, 20000, log.rows)).astype(int), 0.2)
    log.number("delta", np.round(rng.normal(0, 30, log.rows)).astype(int), 0.3)
    log.number("temperature", np.round(rng.normal(9, 8, log.rows)).astype(int), 0.2)
    log.number("waited", np.round(rng.gamma(2, 140, log.rows)).astype(int), 0.4)
    log.add("epoch", "time", np.sort(rng.integers(1_700_000_000, 1_701_000_000, log.rows)))
    log.add("epoch_ms", "time", np.sort(rng.integers(1_700_000_000_000, 1_701_000_000_000, log.rows)))
    drivers = drawn(rng, 200, 1000, 9000).astype(float)
    log.ids("driver", drivers, 0.5)
    log.columns["driver"] = np.where(rng.random(log.rows) < 0.1, np.nan, log.columns["driver"])
    log.ids("zone", np.arange(1, 60), 0.8, 0.6)
    log.ids("vehicle_type", np.arange(1, 7), 0.8)
    log.add("weekday", "category", rng.integers(0, 7, log.rows))
    log.add("hour", "category", rng.integers(0, 24, log.rows))
    return log.done("tipped", ("no", "yes"), at=14)


def films(seed=8):
    """Ratings of films: genres between blanks, years, users in the order of the file, a rating as the label."""
    log = Log(seed)
    rng = log.rng
    log.ids("userId", np.arange(1, 200), 0.5)
    log.ids("movieId", drawn(rng, 600, 1, 190_000), 0.9)
    log.number("year", 2018 - np.minimum(rng.geometric(0.06, log.rows), 90), 0.2)
    log.number("runtime", np.round(rng.normal(105, 18, log.rows)).astype(int), 0.2)
    log.number("votes", np.round(rng.lognormal(6, 1.6, log.rows)).astype(int), 0.5)
    log.add("genres", "list", joined(rng, log.rows, ["Action", "Comedy", "Drama", "Horror", "Romance", "War"], " "))
    log.add("cast", "list", joined(rng, log.rows, [f"a{i}" for i in range(40)], "|"))
    log.add("director", "category", np.char.add("Jane Roe ", rng.integers(0, 70, log.rows).astype(str)))
    frame, kinds = log.done("rating")
    noise = rng.normal(0, 1, log.rows)
    frame["rating"] = np.clip(np.round(3.5 + log.logit + noise), 1, 5).astype(int)
    return frame, kinds


def hashes(seed=9):
    """Ids as 64-bit hashes in hex and digits, hashed whole numbers, addresses as text and number."""
    log = Log(seed)
    rng = log.rng
    big = drawn(rng, 150, 2**55, 2**63 - 1)
    log.ids("u", [str(v) for v in big], 0.5)
    log.ids("hex", [f"{v:016x}" for v in big], 0.5)
    log.ids("bucketed", drawn(rng, 700, 0, 2**31), 0.7)
    log.ids("hashed", drawn(rng, 400, 0, 10_000), 0.7)
    log.ids("evenly", np.arange(300), 0.0, 0.9)
    log.ids("address", [f"10.{v >> 8 & 255}.{v & 255}.{v % 250}" for v in drawn(rng, 300, 0, 65536)], 0.6)
    log.ids("clientIp", drawn(rng, 400, 2**24, 2**32), 0.6)
    log.add("request", "once", np.array([f"{v:016x}" for v in rng.integers(0, 2**63, log.rows)]))
    log.add("trace", "once", rng.integers(10**9, 10**10, log.rows))
    log.add("position", "category number", rng.integers(1, 11, log.rows))
    log.number("lag", rng.integers(0, 3000, log.rows) ** 2 // 3000, 0.4)
    return log.done("converted", at=11)


def bank(seed=10):
    """Calls of a bank: balances below zero, durations, days since (-1 for never), codes without order."""
    log = Log(seed)
    rng = log.rng
    log.number("balance", np.round(rng.normal(300, 900, log.rows) + rng.lognormal(6, 1.2, log.rows)).astype(int), 0.3)
    log.number("seconds", np.round(rng.lognormal(5.3, 0.8, log.rows)).astype(int), 0.5)
    never = rng.random(log.rows) < 0.5
    log.number("pdays", np.where(never, -1, rng.gamma(3, 50, log.rows).round()).astype(int), 0.2)
    log.number("calls", rng.geometric(0.4, log.rows), -0.3, "number category")
    log.number("days_since_login", np.round(rng.exponential(60, log.rows)).astype(int), -0.3)
    log.number("rate", rng.normal(3, 1, log.rows).round(3), 0.2)
    log.number("score", np.clip(rng.normal(620, 80, log.rows), 300, 850).round().astype(int), 0.5)
    log.number("utilization", np.clip(rng.beta(2, 3, log.rows) * 100, 0, 100).round().astype(int), -0.4)
    log.ids("branch", np.arange(1, 120), 0.4, 0.7)
    log.ids("job", np.arange(1, 13), 0.5, 0.6)
    log.ids("merchant_category", drawn(rng, 90, 1000, 9999), 0.8, 0.5)
    log.add("housing", "category", rng.choice(["yes", "no"], log.rows))
    log.add("loan", "category", rng.choice(["yes", "no"], log.rows))
    log.add("date", "time", _in_order(rng, log.rows, "2024-01-01", 300, "%d.%m.%Y"))
    return log.done("y", at=14)


def devices(seed=11):
    """Phones: codes of operating systems 1 to 9, versions, batteries, screens, all as text; ids as floats."""
    log = Log(seed)
    rng = log.rng
    log.ids("system", np.arange(1, 10), 0.7, 0.7)
    log.ids("carrier", np.arange(1, 80), 0.9, 0.6)
    log.ids("campaignid", drawn(rng, 200, 1, 3000).astype(float), 0.8)
    log.ids("creative", drawn(rng, 600, 1, 8000).astype(float), 0.9)
    log.number("battery", np.clip(rng.normal(60, 25, log.rows), 1, 100).round().astype(int), 0.3)
    log.number("installed_apps", rng.negative_binomial(3, 0.05, log.rows), 0.3)
    log.number("free_mb", np.round(rng.lognormal(7, 1, log.rows)).astype(int), 0.2)
    log.number("sessions_7d", rng.negative_binomial(1, 0.1, log.rows), 0.4)
    log.number("bid", rng.lognormal(0, 0.7, log.rows).round(4), 0.2)
    log.ids("version", ["7.1.2", "8.0", "9", "10", "11.0.1", "12"], 0.5)
    log.add("stamp", "time", _in_order(rng, log.rows, "2026-03-01", 20, "%Y-%m-%dT%H:%M:%SZ"))
    frame, kinds = log.done("is_install", at=3)
    return frame.astype({name: str for name in ("system", "carrier", "battery", "installed_apps", "free_mb")}), kinds


def sensors(seed=12):
    """Numbers of every kind that tell the label little, next to ids that tell it nothing: only the values speak."""
    log = Log(seed)
    rng = log.rng
    log.number("a", np.round(rng.normal(500, 120, log.rows)).astype(int), 0.0)
    log.number("b", np.round(rng.lognormal(4, 1, log.rows)).astype(int), 0.0)
    log.number("c", rng.negative_binomial(0.5, 0.01, log.rows), 0.0)
    log.number("d", np.round(rng.exponential(10**5, log.rows)).astype(int), 0.0)
    log.number("e", np.round(rng.normal(0, 3, log.rows), 3), 0.0)
    log.number("f", np.round(rng.lognormal(9, 2, log.rows), -2).astype(int), 0.0)
    log.ids("g", drawn(rng, 500, 0, 50_000), 1.0, 0.0)
    log.ids("h", drawn(rng, 150, 0, 2_000), 1.0, 0.0)
    log.ids("i", drawn(rng, 800, 0, 10**9), 0.6, 0.0)
    log.ids("j", np.arange(1, 9), 0.8, 0.0)
    log.ids("k", drawn(rng, 1000, 0, 3_000), 1.1, 0.0)
    log.number("l", rng.integers(0, 1000, log.rows) / 4, 0.0)
    return log.done("target", at=12)


LOGS = (access, fraud, ctr, counts_and_hashes, shop, people, rides, films, hashes, bank, devices, sensors)


def _falling(head, n):
    p = np.append(head, np.full(n - len(head), 0.05))
    return p / p.sum()


def moments(start, offsets, unit, form):
    """Returns the texts of times: those of offsets in a unit, from a start on."""
    return (pd.Timestamp(start) + pd.to_timedelta(offsets, unit=unit)).strftime(form).to_numpy()


def _in_order(rng, rows, start, days, form):
    return moments(start, np.sort(rng.integers(0, days * 86400, rows)), "s", form)
