"""Errors of object stores: which are temporary, how often to try again, and advice for the user."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from absl import logging

T = TypeVar("T")
# Attempts per operation. The wait between two attempts doubles each time: about 6 seconds in all. The store's client
# repeats each request once more.
ATTEMPTS = 6
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0
# After so many seconds no attempt begins: a store that accepts connections but never answers takes 40 seconds each.
LIMIT = 60.0

_LOGIN = "check the credentials: they come from the environment (AWS_ACCESS_KEY_ID, ~/.aws, the machine's role, ...)"
# Codes and words in messages of pyarrow's clients for errors that stay, and what to do about each.
_LASTING = {
    "NO_SUCH_BUCKET": "the bucket does not exist; make it first",
    "NoSuchBucket": "the bucket does not exist; make it first",
    "ExpiredToken": "the credentials have expired; renew them, and run the same command again",
    "EXPIRED_TOKEN": "the credentials have expired; renew them, and run the same command again",
    "INVALID_ACCESS_KEY_ID": f"the store does not know the access key; {_LOGIN}",
    "SIGNATURE_DOES_NOT_MATCH": f"the secret key does not fit; {_LOGIN}",
    "INVALID_CLIENT_TOKEN_ID": _LOGIN,
    "MISSING_AUTHENTICATION_TOKEN": _LOGIN,
    "ACCESS_DENIED": f"access is denied, or the credentials have expired; {_LOGIN}, and what they may do in the bucket",
    "PERMISSION_DENIED": f"access is denied; {_LOGIN}",
    "OAuth2 access token": "no credentials; log in (gcloud auth application-default login), or set"
    " GOOGLE_APPLICATION_CREDENTIALS",
    "UNAUTHENTICATED": f"no credentials; {_LOGIN}",
    "HTTP status 401": _LOGIN,
    "HTTP status 403": f"access is denied; {_LOGIN}",
    "HTTP status 404": "the address does not exist",
    "HTTP status 301": "the bucket is in another region; set AWS_REGION",
    "PERMANENT_REDIRECT": "the bucket is in another region; set AWS_REGION",
}


class StoreError(OSError):
    """A store could not be read or written; the message says what was tried and what to do."""


class _Retries:
    """The number of repeated operations of this process."""

    count = 0
    lock = threading.Lock()


def retries() -> int:
    """Returns how many operations of this process had to be tried again so far."""
    return _Retries.count


def retried(what: str, action: Callable[[], T]) -> T:
    """Runs an operation, and repeats it after a temporary error.

    Args:
      what: the operation, for messages, such as `reading s3://logs/day.tsv`.
      action: may be run several times.

    Raises:
      FileNotFoundError: the object does not exist.
      StoreError: a permanent error, or all attempts failed.
    """
    wait, begin = _FIRST_WAIT, time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except (FileNotFoundError, InterruptedError, StoreError):
            raise
        except OSError as e:
            lasting = next((advice for sign, advice in _LASTING.items() if sign in str(e)), "")
            if lasting:
                raise StoreError(f"{what}: {lasting} [{_short(e)}]") from e
            if attempt == ATTEMPTS or time.monotonic() - begin > LIMIT:
                hint = "is the store reachable? its address may be in AWS_ENDPOINT_URL"
                raise StoreError(f"{what}: failed {attempt} times; {hint} [{_short(e)}]") from e
            with _Retries.lock:
                _Retries.count += 1
            pause = wait * random.uniform(0.5, 1.0)
            text = "%s: attempt %d of %d failed (%s); the next in %.1f s"
            logging.warning(text, what, attempt, ATTEMPTS, _short(e), pause)
            time.sleep(pause)
            wait = min(2 * wait, _LONGEST_WAIT)
    raise AssertionError("not reached")


def _short(error: OSError) -> str:
    """Shortens the client's message; identifiers of requests are left out."""
    return re.sub(r" *\(Request ID: [^)]*\)", "", " ".join(str(error).split()))[:300]
