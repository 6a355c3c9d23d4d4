"""The files of request logs that are whole."""

from __future__ import annotations

from collections.abc import Sequence

from tfrs_dlrm.data.raw.file_patterns import expand
from tfrs_dlrm.serving.request_logs.request_log import UNFINISHED
from tfrs_dlrm.stores import is_store_url


def finished_logs(logs: Sequence[str]) -> list[str]:
    """Returns the files of a `RequestLog` that are whole, in the order of `expand`; those in progress are left out.

    Args:
      logs: paths, directories and glob patterns.

    Raises:
      FileNotFoundError: a log does not exist, or no file is whole yet.
      ValueError: a path is in an object store, or a file is empty.
    """
    for path in logs:
        if is_store_url(path):
            raise ValueError(f"{path}: request logs are read from a disk, not from an object store; copy them first")
    files = [path for path in expand(logs) if not path.endswith(UNFINISHED)]
    if not files:
        raise FileNotFoundError(
            f"{', '.join(logs)}: only files in progress, whose names end in {UNFINISHED}; wait for the server, which"
            " finishes one at 64 MiB, after 10 minutes, or when it ends"
        )
    return files
