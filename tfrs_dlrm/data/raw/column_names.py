"""What the name of a column says about its values, in any convention: `userId`, `user_id`, `USER-ID`, `User ID`.

A name that says nothing, which is the usual case, leaves the question to the values.
"""

from __future__ import annotations

import re
from typing import Literal


def words(name: str) -> list[str]:
    """Returns the words of a name, in lower case: `ToCoupon_GEQ5min` is to, coupon, geq, min."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return [word for word in re.split(r"[^a-z]+", parted.lower()) if word]


_IDS = frozenset(
    words(
        "id ids uid uuid guid gid pid sid cid aid fid user item code codes zip zipcode zipcodes postcode postal"
        " hash hashed key keys ip ips ipv sku asin isbn ean upc type class category cat segment cluster bucket"
        " name title app device os channel browser site page campaign publisher advertiser creative store shop"
        " city country region state brand product customer carrier model version language"
    )
)
# Written in one word: `deviceid`, `zipcode`; but a bid, the paid and a grid are no ids.
_ENDINGS = re.compile(
    "(?:user|item|device|site|app|ad|ads|campaign|advertiser|publisher|page|session|product|query|doc|document|movie"
    "|video|song|track|artist|author|seller|shop|store|brand|category|cat|city|region|country|model|member|customer"
    "|client|account|order|request|impression|creative|banner|slot|hotel|event|visitor|cookie|anime|news|url|domain|host"
    "|placement|browser|channel|source|node|post|article|group|area|zone|type|class|row|log|record)ids?"
    "|[a-z]+(?:code|hash|zip)"
)
_NUMBERS = frozenset(
    words(
        "price prices cost costs amount amt revenue income salary wage balance budget spend spent fee tax"
        " discount age ages year years count counts cnt total sum avg average mean median max min std qty"
        " quantity days hours minutes mins seconds secs millis ms duration elapsed length len width height weight"
        " distance km miles meters score ratio percent percentage pct share probability prob lat lon lng latitude"
        " longitude temperature altitude speed views visits clicks impressions purchases orders likes followers"
        " sales stock votes bids bid bytes words chars cents usd eur recency frequency"
    )
)
_FIRST_NUMBERS = frozenset(words("n num nb cnt count total sum avg mean max min days hours minutes seconds"))
# Names under which a new value is drawn every few rows, and never comes back.
_ONCE = frozenset(
    words("session request impression event row record log query search transaction order click bid auction")
)


def said_by_name(name: str) -> Literal["id", "number", ""]:
    """Says whether a name is that of ids, or of numbers; empty if it tells neither."""
    parts = words(name)
    if not parts:
        return ""
    last = parts[-1]
    if last in _IDS or _ENDINGS.fullmatch(last):
        return "id"
    return "number" if last in _NUMBERS or (len(parts) > 1 and parts[0] in _FIRST_NUMBERS) else ""


def named_for_once(name: str) -> bool:
    """Whether the ids of a name end with a session, a request or the like."""
    parts = words(name)
    return bool(_ONCE & {*parts, *(re.sub("ids?$", "", word) for word in parts)})
