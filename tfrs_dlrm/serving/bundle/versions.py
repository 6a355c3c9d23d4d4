"""The versions of a served model: directories named 1, 2, ... on a disk or below an address."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from absl import logging

from tfrs_dlrm.stores import PUBLISHED_FILE, Store, is_store_url, join, local_copy, unpublish

# What servers take for the sign that a version is whole.
LAST = ("saved_model.pb",)


def versions_in(output: str) -> list[int]:
    """The numbers of the versions, in order; in a store also of those that are not whole.

    Raises:
      StoreError: the store cannot be reached or refuses.
    """
    if is_store_url(output):
        names = {name.split("/")[0] for name in Store(output).files() if "/" in name}
    else:
        names = set(os.listdir(output) if os.path.isdir(output) else [])
    return sorted(int(n) for n in names if n.isascii() and n.isdecimal())


def whole_versions(output: str) -> list[int]:
    """Those of `versions_in` that are bundles and can be served.

    Raises:
      StoreError: the store cannot be reached or refuses.
    """
    if not is_store_url(output):
        return [n for n in versions_in(output) if os.path.isfile(os.path.join(output, str(n), *LAST))]
    names = Store(output).files().keys()
    return [n for n in _published(names) if f"{n}/{LAST[0]}" in names]


def next_version(output: str) -> int:
    """The number of the next version."""
    return 1 + max(versions_in(output), default=0)


def remove_old(output: str, keep: int) -> list[str]:
    """Deletes all but the newest versions; directories and objects that are no bundle stay.

    On a disk each is renamed first, so that no server sees half of one; in a store it loses first what makes it whole.

    Args:
      output: the directory of the versions, or their address.
      keep: how many to keep, at least 1.

    Returns:
      The paths of those that are gone.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}; at least 1, the version that was just written, has to stay")
    whole = whole_versions(output)
    old = whole[:-keep]
    if is_store_url(output) and whole:
        # Also those whose removal was interrupted.
        half = set(_published(Store(output).files())) - set(whole)
        old = sorted({*old, *(n for n in half if n < whole[-1])})
    gone = []
    for number in old:
        path = join(output, str(number))
        if is_store_url(output):
            unpublish(path, first=LAST)
        else:
            temporary = os.path.join(output, f"removed-{number}")
            os.rename(path, temporary)
            shutil.rmtree(temporary)
        gone.append(path)
    return gone


def fetch_newest(address: str, keep: int) -> dict[int, str]:
    """Local copies of the newest whole versions below an address, by number.

    One that is damaged is named in the log and left out.

    Raises:
      StoreError: the store cannot be reached or refuses.
    """
    found: dict[int, str] = {}
    for number in reversed(whole_versions(address)):
        if len(found) == keep:
            break
        try:
            found[number] = local_copy(join(address, str(number)))
        except ValueError as e:
            logging.error("%s; the version before it is taken", e)
        except FileNotFoundError:
            pass  # removed since it was listed
    return found


def local_version(path: str) -> str:
    """A local copy of a bundle at an address, or of the newest version below it; a local path is returned as it is.

    Raises:
      ValueError: there is none, or it is damaged.
      StoreError: the store cannot be reached or refuses.
    """
    if not is_store_url(path):
        return path
    if Store(path).find(PUBLISHED_FILE):
        return local_copy(path)
    found = fetch_newest(path, 1)
    if not found:
        raise ValueError(f"{path}: there is no bundle, and no version of one below it, as tfrs-dlrm export publishes")
    return next(iter(found.values()))


def _published(names: Iterable[str]) -> list[int]:
    """The numbers of versions with a list of what is in them."""
    found = [n.split("/")[0] for n in names if n.endswith(f"/{PUBLISHED_FILE}") and n.count("/") == 1]
    return sorted(int(n) for n in found if n.isascii() and n.isdecimal())
