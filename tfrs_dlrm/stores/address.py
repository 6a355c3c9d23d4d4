"""Addresses of object stores: s3://BUCKET/PREFIX and gs://BUCKET/PREFIX."""

from __future__ import annotations

import dataclasses
import os

SCHEMES = {"s3": "S3", "gs": "Google Cloud Storage"}


def is_store_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the address of a store, of whatever kind, and not a local one."""
    return "://" in os.fspath(path)


def join(base: str, name: str) -> str:
    """A path below another, local or in a store."""
    return f"{base.rstrip('/')}/{name}" if is_store_url(base) else os.path.join(base, name)


def split_object(address: str) -> tuple[str, str]:
    """The address of what an object is in, and its name there.

    Raises:
      ValueError: it is none of an object.
    """
    found = StoreUrl.parse(address)
    base, _, name = found.prefix.rpartition("/")
    if not name:
        raise ValueError(f"{address}: a bucket, and no object in it")
    return str(StoreUrl(found.scheme, found.bucket, base)), name


@dataclasses.dataclass(frozen=True)
class StoreUrl:
    """Where in which store.

    Attributes:
      scheme: one of `SCHEMES`.
      bucket: its name.
      prefix: of the names of the objects, without slashes around it; empty for all of the bucket.
    """

    scheme: str
    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> StoreUrl:
        """Reads an address.

        Raises:
          ValueError: it is none, or of a kind of store that is not known here.
        """
        scheme, found, rest = text.partition("://")
        if not found or scheme not in SCHEMES:
            known = " and ".join(f"{s}:// ({name})" for s, name in SCHEMES.items())
            raise ValueError(f"{text}: {known} are supported; for other stores, mount the bucket and give its path")
        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise ValueError(f"{text}: there is no bucket; {scheme}://BUCKET/PREFIX is needed")
        if any(part in ("", ".", "..") for part in prefix.strip("/").split("/")) and prefix.strip("/"):
            raise ValueError(f"{text}: empty, '.' and '..' are no names in a store")
        return cls(scheme, bucket, prefix.strip("/"))

    @property
    def path(self) -> str:
        """As pyarrow's file systems name it."""
        return f"{self.bucket}/{self.prefix}" if self.prefix else self.bucket

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"
