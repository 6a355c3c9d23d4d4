"""The objects below one address, through pyarrow's file systems, which load when a store is first used."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import os
import secrets
import urllib.parse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import google_crc32c

from tfrs_dlrm.stores.errors import StoreError, retried
from tfrs_dlrm.stores.urls import StoreUrl, join

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

CHUNK_BYTES = 8 << 20
_S3_VARIABLES = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"),
)


@dataclasses.dataclass(frozen=True)
class StoredObject:
    """The size and age of an object.

    Attributes:
      bytes: its size.
      modified_ns: the time of writing, in nanoseconds since 1970.
    """

    bytes: int
    modified_ns: int


class Store:
    """The objects below one address. Operations are repeated after temporary errors.

    Credentials are found as by the cloud's tools: in the environment, `~/.aws`, the machine's role, or Google's
    application default credentials. `AWS_ENDPOINT_URL` selects another S3 server, such as MinIO;
    `STORAGE_EMULATOR_HOST` an emulator of Google Cloud Storage.

    Args:
      address: `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`.

    Raises:
      ValueError: the address is of an unknown kind.
      StoreError: from all methods, if the store cannot be reached or refuses.
    """

    def __init__(self, address: str):
        self._address = StoreUrl.parse(address)
        self.address = str(self._address)
        if self._address.scheme == "s3":
            self._fs = _s3(self._address.bucket, tuple(os.environ.get(v, "") for v in _S3_VARIABLES))
        else:
            self._fs = _gcs(os.environ.get("STORAGE_EMULATOR_HOST", ""))

    def files(self) -> dict[str, StoredObject]:
        """Lists all objects by their names below the address.

        Raises:
          StoreError: the bucket does not exist.
        """
        from pyarrow.fs import FileSelector, FileType

        root = self._address.path

        def list_all() -> dict[str, StoredObject]:
            found = self._fs.get_file_info(FileSelector(root, allow_not_found=True, recursive=True))
            if not found and self._fs.get_file_info(self._address.bucket).type == FileType.NotFound:
                raise StoreError(f"{self.address}: the bucket {self._address.bucket!r} does not exist; make it first")
            files = [f for f in found if f.is_file and not f.path.endswith("/")]
            return {f.path[len(root) + 1 :]: StoredObject(f.size, f.mtime_ns or 0) for f in files}

        return retried(f"listing {self.address}", list_all)

    def find(self, name: str) -> StoredObject | None:
        """Looks up an object; returns None if it does not exist."""

        def look() -> StoredObject | None:
            found = self._fs.get_file_info(self._path(name))
            return StoredObject(found.size, found.mtime_ns or 0) if found.is_file else None

        return retried(f"looking for {join(self.address, name)}", look)

    def read(self, name: str) -> bytes:
        """Reads a whole object.

        Raises:
          FileNotFoundError: the object does not exist.
        """

        def read() -> bytes:
            with self._fs.open_input_file(self._path(name)) as file:
                return file.read()

        return self._existing(name, read)

    def write(self, name: str, data: bytes) -> None:
        """Writes an object, which becomes visible as a whole."""
        retried(f"writing {join(self.address, name)}", lambda: self._write(name, iter([data])))

    def upload(self, path: str, name: str, advance: Callable[[int], None] | None = None) -> tuple[int, str]:
        """Writes a local file as an object; returns its size and CRC32C in hexadecimal.

        Args:
          path: the file.
          name: of the object.
          advance: called with the number of bytes of each part; repeated parts count again.

        Raises:
          FileNotFoundError: the file does not exist.
        """

        def upload() -> tuple[int, str]:
            crc, size = google_crc32c.Checksum(), 0

            def chunks() -> Iterator[bytes]:
                nonlocal size
                with open(path, "rb") as file:
                    while chunk := file.read(CHUNK_BYTES):
                        crc.update(chunk)
                        size += len(chunk)
                        yield chunk
                        if advance:
                            advance(len(chunk))

            self._write(name, chunks())
            return size, crc.digest().hex()

        return retried(f"writing {join(self.address, name)}", upload)

    def download(self, name: str, path: str, advance: Callable[[int], None] | None = None) -> tuple[int, str]:
        """Writes an object to a local file, which becomes visible when it is complete; returns its size and CRC32C.

        Raises:
          FileNotFoundError: the object does not exist.
        """
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        part = f"{path}.part-{secrets.token_hex(4)}"

        def download() -> tuple[int, str]:
            crc, size = google_crc32c.Checksum(), 0
            with self._fs.open_input_file(self._path(name)) as file, open(part, "wb") as out:
                while chunk := file.read(CHUNK_BYTES):
                    out.write(chunk)
                    crc.update(chunk)
                    size += len(chunk)
                    if advance:
                        advance(len(chunk))
            return size, crc.digest().hex()

        try:
            found = self._existing(name, download)
            os.replace(part, path)
        finally:
            if os.path.exists(part):
                os.remove(part)
        return found

    def read_at(self, name: str, position: int, size: int) -> tuple[bytes, tuple[int, Any]]:
        """Reads bytes of an object, fewer at its end; also returns a tag, which changes with the object."""

        def read() -> tuple[bytes, tuple[int, Any]]:
            with self._fs.open_input_file(self._path(name)) as file:
                tags = {key.lower(): value for key, value in (file.metadata() or {}).items()}
                data = file.read_at(min(size, max(0, file.size() - position)), position)
                return data, (file.size(), tags.get("etag"))

        return self._existing(name, read)

    def remove(self, name: str) -> None:
        """Removes an object if it exists."""

        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._fs.delete_file(self._path(name))

        retried(f"removing {join(self.address, name)}", remove)

    def _write(self, name: str, chunks: Iterator[bytes]) -> None:
        first = next(chunks, b"")
        with self._fs.open_output_stream(self._path(name), compression=None) as out:
            try:
                out.write(first)
                for chunk in chunks:
                    out.write(chunk)
            except BaseException:
                # The client closes a stream in any case, which completes the object with the bytes so far.
                with contextlib.suppress(OSError):
                    out.close()
                with contextlib.suppress(OSError):
                    self._fs.delete_file(self._path(name))
                raise

    def _path(self, name: str) -> str:
        return f"{self._address.path}/{name}" if name else self._address.path

    def _existing(self, name: str, action: Callable[[], Any]) -> Any:
        where = join(self.address, name) if name else self.address
        try:
            return retried(f"reading {where}", action)
        except FileNotFoundError as e:
            raise FileNotFoundError(f"{where}: the object does not exist") from e


@functools.lru_cache
def _s3(bucket: str, variables: tuple[str, ...]) -> FileSystem:
    """Returns one client per bucket and environment, since making a client asks for credentials."""
    from pyarrow import ArrowException
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    known = dict(zip(_S3_VARIABLES, variables, strict=True))
    options: dict[str, Any] = {}
    endpoint = known["AWS_ENDPOINT_URL_S3"] or known["AWS_ENDPOINT_URL"]
    region = known["AWS_REGION"] or known["AWS_DEFAULT_REGION"]
    if endpoint:
        parts = urllib.parse.urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        options |= {"endpoint_override": parts.netloc + parts.path.rstrip("/"), "scheme": parts.scheme}
        region = region or "us-east-1"
    elif not region:
        try:
            region = resolve_s3_region(bucket)
        except (OSError, ArrowException) as e:
            raise StoreError(f"s3://{bucket}: its region is not known; set AWS_REGION [{str(e)[:200]}]") from e
    retry = AwsStandardS3RetryStrategy(max_attempts=2)
    return S3FileSystem(region=region, connect_timeout=10, request_timeout=20, retry_strategy=retry, **options)


@functools.lru_cache
def _gcs(emulator: str) -> FileSystem:
    from pyarrow.fs import GcsFileSystem

    limit = datetime.timedelta(seconds=10)
    if not emulator:
        return GcsFileSystem(retry_time_limit=limit)
    parts = urllib.parse.urlsplit(emulator if "://" in emulator else f"http://{emulator}")
    return GcsFileSystem(anonymous=True, endpoint_override=parts.netloc, scheme=parts.scheme, retry_time_limit=limit)
