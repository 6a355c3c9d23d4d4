"""Raw files cut into units of work that processes on other machines can begin with, without reading what comes before.

A unit is one segment of a plain text or Parquet file, or a whole .gz file, which can only be read from its beginning.
Where the segments of a text file begin is known once its line breaks are counted, a stretch of the file here and a
stretch there; `stretches` says which there are, `look` counts, `units` puts the answers together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_dlrm.data.raw import raw_files, segments, sources
from tfrs_dlrm.data.raw.sources import BlockStart, is_compressed, is_parquet
from tfrs_dlrm.stores import StoreError

_PIECES_PER_STRETCH = 16


@dataclasses.dataclass(frozen=True)
class WorkUnit:
    """What one task reads.

    Attributes:
      file: the number of the file.
      place: of the first block of the one segment to read; None stands for all segments of the file.
      size: bytes of the file that belong to it.
    """

    file: int
    place: BlockStart | None
    size: int

    @property
    def first_segment(self) -> str:
        """The name of the first segment."""
        return segments.segment_name(self.file, self.place.index // segments.BLOCKS_PER_SEGMENT if self.place else 0)


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A part of a file to look at: of plain text the bytes from `begin` to `end`, of other files everything."""

    file: int
    begin: int
    end: int


def stretches(paths: Sequence[str], sizes: Sequence[int]) -> list[Stretch]:
    """All that has to be looked at, in order."""
    found = []
    for file, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        plain = not is_parquet(path) and not is_compressed(path)
        step = sources.BLOCK_BYTES * _PIECES_PER_STRETCH if plain else size
        found += [Stretch(file, begin, min(begin + step, size)) for begin in range(0, size, step)]
    return found


def look(path: str, stretch: Stretch) -> list[int]:
    """What a stretch holds.

    Returns:
      Of text, for each piece of `BLOCK_BYTES`, the number of its line breaks and the byte behind the last of them (0
      where there is none). Of Parquet, the rows of each row group; nothing where it cannot be read: the error is to
      come when it is this file's turn. Of .gz files nothing.
    """
    if is_compressed(path):
        return []
    if is_parquet(path):
        try:
            metadata = pq.read_metadata(raw_files.open_file(path))
        except StoreError:
            raise
        except (pa.ArrowException, OSError):
            return []
        return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    answer = []
    with raw_files.open_file(path) as file:
        file.seek(stretch.begin)
        for begin in range(stretch.begin, stretch.end, sources.BLOCK_BYTES):
            piece = file.read(min(sources.BLOCK_BYTES, stretch.end - begin))
            last = piece.rfind(b"\n")
            answer += [piece.count(b"\n"), begin + last + 1 if last >= 0 else 0]
    return answer


def units(file: int, path: str, size: int, answer: Sequence[int], header: bool) -> list[WorkUnit]:
    """The units of one file, in order.

    Args:
      file: its number.
      path: its path.
      size: its bytes.
      answer: what `look` said of its stretches, one after the other.
      header: whether a text file begins with the names of its columns.
    """
    if is_parquet(path):
        return _parquet_units(file, size, answer)
    places = _text_places(size, answer, header) if answer else []
    firsts = [place for place in places if place.index % segments.BLOCKS_PER_SEGMENT == 0]
    if len(firsts) < 2:
        return [WorkUnit(file, None, size)]
    ends = [place.offset for place in firsts[1:]] + [size]
    return [WorkUnit(file, place, end - place.offset) for place, end in zip(firsts, ends, strict=True)]


def _text_places(size: int, answer: Sequence[int], header: bool) -> list[BlockStart]:
    """Where the blocks begin, as `sources.blocks` cuts them."""
    places: list[BlockStart] = []
    offset, line = 0, 1
    for piece, (breaks, end) in enumerate(zip(answer[::2], answer[1::2], strict=True)):
        if piece == 0 and header and breaks:
            line, breaks = 2, breaks - 1
            if not breaks:
                offset = end
        if breaks:
            places.append(BlockStart(len(places), line, offset, piece * sources.BLOCK_BYTES))
            line, offset = line + breaks, end
    if offset < size:  # a last line without a line break
        places.append(BlockStart(len(places), line, offset, size))
    return places


def _parquet_units(file: int, size: int, rows_of_groups: Sequence[int]) -> list[WorkUnit]:
    found, index, row, total = [], 0, 1, sum(rows_of_groups)
    for group, rows in enumerate(rows_of_groups):
        for batch in range(-(-rows // sources.BLOCK_ROWS)):
            if index % segments.BLOCKS_PER_SEGMENT == 0:
                found.append(BlockStart(index, row + batch * sources.BLOCK_ROWS, group, batch))
            index += 1
        row += rows
    if not found:
        return [WorkUnit(file, None, size)]
    ends = [place.first_row for place in found[1:]] + [row]
    shares = [size * (end - place.first_row) // total for place, end in zip(found, ends, strict=True)]
    return [WorkUnit(file, place, share) for place, share in zip(found, shares, strict=True)]
