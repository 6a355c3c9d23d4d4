"""Whether the rows that come next are still there."""

from __future__ import annotations

from collections.abc import Mapping

from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.reader import Range, StreamError

_ANEW = "start a new run: another --workdir, and config.train.warm_start to take over the weights"


def check_there(address: StreamAddress, begins: Mapping[int, int], bounds: Mapping[int, Range]) -> None:
    """Makes sure that no row between what was trained on and what is left is gone.

    Args:
      address: of the topic.
      begins: by partition, the next offset.
      bounds: see `Reader.bounds`.

    Raises:
      StreamError: some rows are gone, or the topic is another one.
    """
    for partition, offset in begins.items():
        if partition not in bounds:
            raise StreamError(
                f"{address}: partition {partition} is not there any more; was the topic made anew? Then {_ANEW}"
            )
        first, end = bounds[partition]
        where = f"{address}: partition {partition}"
        if offset < first:
            raise StreamError(
                f"{where}: {first - offset:,} rows that were not trained on are gone: the checkpoint goes on at offset"
                f" {offset}, and the oldest that is left is {first}. Let the topic keep its messages for longer than a"
                f" trainer may be away. To go on without these rows, {_ANEW}"
            )
        if offset > end:
            raise StreamError(
                f"{where}: the checkpoint goes on at offset {offset}, and the topic ends at {end}; was it made anew?"
                f" Then {_ANEW}"
            )
