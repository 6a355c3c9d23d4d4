"""URLs of object stores: s3://BUCKET/PREFIX and gs://BUCKET/PREFIX."""

from __future__ import annotations

import dataclasses
import os

SCHEMES = {"s3": "S3", "gs": "Google Cloud Storage"}


def is_store_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the URL of a store, of a known kind or not, rather than a local path."""
    return "://" in os.fspath(path)


def join(base: str, name: str) -> str:
    """Joins a path, local or in a store, and a name below it."""
    return f"{base.rstrip('/')}/{name}" if is_store_url(base) else os.path.join(base, name)


def split_object(address: str) -> tuple[str, str]:
    """Splits the URL of an object into the URL of its parent and its name below it.

    Raises:
      ValueError: the URL names no object.
    """
    found = StoreUrl.parse(address)
    base, _, name = found.prefix.rpartition("/")
    if not name:
        raise ValueError(f"{address}: this is a bucket; give an object in it")
    return str(StoreUrl(found.scheme, found.bucket, base)), name


@dataclasses.dataclass(frozen=True)
class StoreUrl:
    """A place in a store.

    Attributes:
      scheme: one of `SCHEMES`.
      bucket: the name of the bucket.
      prefix: the common beginning of the objects' names, without slashes around it; empty for the whole bucket.
    """

    scheme: str
    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> StoreUrl:
        """Parses a URL.

        Raises:
          ValueError: the text is no URL, or of an unsupported kind of store.
        """
        scheme, found, rest = text.partition("://")
        if not found or scheme not in SCHEMES:
            known = " and ".join(f"{s}:// ({name})" for s, name in SCHEMES.items())
            raise ValueError(f"{text}: {known} are supported; for other stores, mount the bucket and give its path")
        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise ValueError(f"{text}: names no bucket; {scheme}://BUCKET/PREFIX is needed")
        if any(part in ("", ".", "..") for part in prefix.strip("/").split("/")) and prefix.strip("/"):
            raise ValueError(f"{text}: empty, '.' and '..' are no names in a store; remove them")
        return cls(scheme, bucket, prefix.strip("/"))

    @property
    def path(self) -> str:
        """The path in pyarrow's file systems."""
        return f"{self.bucket}/{self.prefix}" if self.prefix else self.bucket

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"
