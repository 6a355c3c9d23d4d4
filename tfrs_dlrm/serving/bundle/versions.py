"""The versions of a served model: directories named 1, 2, ... on a disk or below an address."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Collection, Iterable

from absl import logging

from tfrs_dlrm.stores import PUBLISHED_FILE, Store, is_store_url, join, local_copy, unpublish

# Servers take a version with this file for a whole one, so it is written last and removed first.
COMPLETING = ("saved_model.pb",)

_LARGEST = 2**63 - 1  # TF Serving's versions have 64 bits


def find_versions(output: str) -> dict[int, str]:
    """Returns the paths of the versions by number, in order; in a store also of incomplete versions.

    Raises:
      StoreError: the store cannot be reached or refuses.
    """
    names: set[str] = set()
    if is_store_url(output):
        names = {name.split("/")[0] for name in Store(output).files() if "/" in name}
    else:
        with contextlib.suppress(OSError), os.scandir(output) as entries:
            names = {entry.name for entry in entries if entry.is_dir()}
    return {number: join(output, name) for number, name in _by_number(output, names).items()}


def whole_versions(output: str) -> list[int]:
    """Returns the numbers of the versions that are whole bundles, in order.

    Raises:
      StoreError: the store cannot be reached or refuses.
    """
    return list(_whole(output))


def _whole(output: str) -> dict[int, str]:
    """Returns the paths of the versions that are whole bundles by number, in order."""
    if not is_store_url(output):
        found = find_versions(output).items()
        return {number: path for number, path in found if os.path.isfile(os.path.join(path, *COMPLETING))}
    names = Store(output).files().keys()
    published = _published(output, names).items()
    return {number: join(output, name) for number, name in published if f"{name}/{COMPLETING[0]}" in names}


def next_version(output: str) -> int:
    """Returns the number of the next version.

    Raises:
      ValueError: no number is left.
    """
    newest = max([0, *find_versions(output)])
    if newest == _LARGEST:
        raise ValueError(
            f"{output}: version {newest} is the largest that a server loads; rename it, or export elsewhere"
        )
    return newest + 1


def unfinished_version(output: str, version: int) -> str:
    """Returns the path of a version while it is written."""
    return os.path.join(output, f"unfinished-{version}")


def remove_unfinished_versions(output: str) -> None:
    """Removes what killed exports left: versions half written or half removed. Call it with the directory's lock."""
    for name in os.listdir(output):
        if name.startswith(("unfinished-", "removed-")) and version_number(name.partition("-")[2]) is not None:
            shutil.rmtree(os.path.join(output, name), ignore_errors=True)


def remove_old(output: str, keep: int) -> list[str]:
    """Deletes all but the newest versions; directories and objects that are no bundle stay.

    A directory is renamed first, so that no server sees half of it. In a store, the files that make a version whole are
    deleted first.

    Args:
      output: the directory of the versions, or their address.
      keep: how many to keep, at least 1.

    Returns:
      The paths that were deleted.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}; at least 1, the version that was just written, has to stay")
    whole = _whole(output)
    old = dict(list(whole.items())[:-keep])
    if is_store_url(output) and whole:
        # Also the versions whose removal was interrupted.
        published = _published(output, Store(output).files())
        half = {number: join(output, name) for number, name in published.items() if number not in whole}
        old = dict(sorted({**old, **{n: path for n, path in half.items() if n < max(whole)}}.items()))
    removed = []
    for number, path in old.items():
        if is_store_url(output):
            unpublish(path, first=COMPLETING)
        else:
            temporary = os.path.join(output, f"removed-{number}")
            os.rename(path, temporary)
            shutil.rmtree(temporary)
        removed.append(path)
    return removed


def fetch_newest(address: str, keep: int) -> dict[int, str]:
    """Copies the newest whole versions below an address to this machine; returns their paths by number.

    Damaged versions are logged and skipped.

    Raises:
      StoreError: the store cannot be reached or refuses.
    """
    return fetch_versions(address, lambda number, newer: newer < keep)


def fetch_versions(address: str, takes: Callable[[int, int], bool], others: Collection[int] = ()) -> dict[int, str]:
    """Copies whole versions below an address to this machine; returns their paths by number.

    Damaged versions are logged and skipped.

    Args:
      address: of the versions.
      takes: whether to copy a version, from its number and how many newer ones were copied.
      others: numbers of versions that are copied as well.

    Raises:
      StoreError: the store cannot be reached or refuses.
    """
    found: dict[int, str] = {}
    for number, path in reversed(_whole(address).items()):
        if not takes(number, len(found)) and number not in others:
            continue
        try:
            found[number] = local_copy(path)
        except ValueError as e:
            logging.error("%s; the version before it is taken", e)
        except FileNotFoundError:
            pass  # removed since it was listed
    return found


def newest_version(path: str) -> str:
    """Returns the directory of a version: `path`, or the newest version in it; copied first if it is in a store.

    Raises:
      ValueError: the bundle has no version, or a damaged one.
      StoreError: the store cannot be reached or refuses.
    """
    if is_store_url(path):
        if Store(path).find(PUBLISHED_FILE):
            return local_copy(path)
        copies = fetch_newest(path, 1)
        if not copies:
            raise ValueError(f"{path}: holds neither a bundle nor versions of one, as tfrs-dlrm export publishes")
        return next(iter(copies.values()))
    if not os.path.isdir(path):
        raise ValueError(f"{path} is no directory; give a bundle's version, or the directory of its versions")
    if any(os.path.exists(os.path.join(path, name)) for name in ("saved_model.pb", "assets.extra", "variables")):
        return os.path.abspath(path)
    versions = find_versions(path)
    if not versions:
        raise ValueError(
            f"{path} is no bundle and has no version (a directory called 1, 2, ...), as tfrs-dlrm export makes"
        )
    return os.path.abspath(versions[max(versions)])


def version_number(name: str) -> int | None:
    """Returns the number that a directory's name stands for; None if TF Serving would not load it.

    A name is a number of 64 bits in ASCII digits, as TensorFlow's `safe_strto64` reads it: a sign "-" and leading zeros
    are allowed.
    """
    digits = name.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits.lstrip("0")) <= len(str(_LARGEST))):
        return None
    number = int(digits.lstrip("0") or "0")  # Python refuses to read thousands of digits
    number = number if digits == name else -number
    return number if -_LARGEST - 1 <= number <= _LARGEST else None


def _by_number(place: str, names: Iterable[str]) -> dict[int, str]:
    """Returns the names of versions by number, in order; logs once what is passed over though it looks like one."""
    found: dict[int, str] = {}
    for name in sorted(names):  # of two names of one number the last is taken, as TF Serving does
        number = version_number(name)
        if number is None:
            if name.removeprefix("-").isdecimal():
                _pass_over(place, name, f"is no version: the number must be at most {_LARGEST}, in ASCII digits")
        else:
            if number in found:
                _pass_over(place, found[number], f"is not loaded: {name} is the same version")
            found[number] = name
    return dict(sorted(found.items()))


@functools.lru_cache(maxsize=1024)
def _pass_over(place: str, name: str, why: str) -> None:
    """Logs why a directory is passed over; the cache keeps it to one line for each."""
    logging.warning("%s %s", join(place, name), why)


def _published(place: str, names: Iterable[str]) -> dict[int, str]:
    """Returns, by number, the names of the versions with a list of their files."""
    found = [n.split("/")[0] for n in names if n.endswith(f"/{PUBLISHED_FILE}") and n.count("/") == 1]
    return _by_number(place, found)
