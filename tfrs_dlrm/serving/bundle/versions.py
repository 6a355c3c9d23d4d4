"""The versions of a served model: directories named 1, 2, ... on a disk or below an address."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable

from absl import logging

from tfrs_dlrm.stores import PUBLISHED_FILE, Store, is_store_url, join, local_copy, unpublish

# Servers take a version with this file for a whole one, so it is written last and removed first.
COMPLETING = ("saved_model.pb",)


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
    return {int(name): join(output, name) for name in sorted(filter(_is_number, names), key=int)}


def whole_versions(output: str) -> list[int]:
    """Returns the numbers of the versions that are whole bundles, in order.

    Raises:
      StoreError: the store cannot be reached or refuses.
    """
    if not is_store_url(output):
        found = find_versions(output).items()
        return [number for number, path in found if os.path.isfile(os.path.join(path, *COMPLETING))]
    names = Store(output).files().keys()
    return [number for number in _published(names) if f"{number}/{COMPLETING[0]}" in names]


def next_version(output: str) -> int:
    """Returns the number of the next version."""
    return 1 + max(find_versions(output), default=0)


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
    whole = whole_versions(output)
    old = whole[:-keep]
    if is_store_url(output) and whole:
        # Also the versions whose removal was interrupted.
        half = set(_published(Store(output).files())) - set(whole)
        old = sorted({*old, *(n for n in half if n < whole[-1])})
    removed = []
    for number in old:
        path = join(output, str(number))
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


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _published(names: Iterable[str]) -> list[int]:
    """Returns the numbers of versions with a list of their files."""
    found = [n.split("/")[0] for n in names if n.endswith(f"/{PUBLISHED_FILE}") and n.count("/") == 1]
    return sorted(int(name) for name in filter(_is_number, found))
