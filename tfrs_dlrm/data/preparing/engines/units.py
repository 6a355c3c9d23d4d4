"""Cuts raw files into units of work, which other machines can read without reading the file before them.

A unit is one segment of a plain text or Parquet file, or a whole file that can only be read from its beginning:
compressed, or in UTF-16. To find the segments of a text file, machines count the line breaks of its stretches in
parallel: `stretches` lists them, `look` counts, and `units` joins the answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.raw import raw_files, sources
from tfrs_dlrm.data.raw.sources import BlockStart

_PIECES_PER_STRETCH = 16


@dataclasses.dataclass(frozen=True)
class WorkUnit:
    """The piece of a file that one task reads.

    Attributes:
      file: the number of the file.
      start: of the first block of the one segment to read; None stands for all segments of the file.
      size: bytes of the file that belong to it.
    """

    file: int
    start: BlockStart | None
    size: int

    @property
    def first_segment(self) -> str:
        """The name of the first segment."""
        return prepare_job.segment_name(
            self.file, self.start.index // prepare_job.BLOCKS_PER_SEGMENT if self.start else 0
        )


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A part of a file to look at: the bytes from `begin` to `end` of plain text, or another file as a whole."""

    file: int
    begin: int
    end: int


def stretches(paths: Sequence[str], sizes: Sequence[int]) -> list[Stretch]:
    """Lists the stretches of all files, in order."""
    found = []
    for file, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        step = sources.BLOCK_BYTES * _PIECES_PER_STRETCH if _divided_as(path) == "text" else size
        found += [Stretch(file, begin, min(begin + step, size)) for begin in range(0, size, step)]
    return found


def look(path: str, stretch: Stretch) -> list[int]:
    """Counts the line breaks or rows of a stretch.

    Returns:
      For text, two numbers per piece of `BLOCK_BYTES`: its line breaks, and the byte behind the last of them (0 if
      it has none). For Parquet, the rows of each row group, or nothing if it cannot be read: the pass raises the
      error when it reaches the file. For compressed files nothing.
    """
    form = _divided_as(path)
    if not form:
        return []
    if form == "parquet":
        try:
            metadata = sources.parquet_file(path, sources.file_kind(path)).metadata
        except ValueError:
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
    """Makes the units of one file, in order.

    Args:
      file: its number.
      path: its path.
      size: its bytes.
      answer: the answers of `look` for its stretches, joined.
      header: whether a text file begins with the names of its columns.
    """
    form = _divided_as(path)
    if form == "parquet":
        return _parquet_units(file, size, answer)
    starts = _text_starts(size, answer, header) if form else []
    firsts = [start for start in starts if start.index % prepare_job.BLOCKS_PER_SEGMENT == 0]
    if len(firsts) < 2:
        return [WorkUnit(file, None, size)]
    ends = [start.offset for start in firsts[1:]] + [size]
    return [WorkUnit(file, start, end - start.offset) for start, end in zip(firsts, ends, strict=True)]


def _divided_as(path: str) -> str:
    """Returns `text` or `parquet`; empty if a file must be read from its beginning, or cannot be read."""
    try:
        kind = sources.file_kind(path)
    except (ValueError, FileNotFoundError):  # the task that reads it says what is wrong
        return ""
    return kind.content if kind.splittable else ""


def _text_starts(size: int, answer: Sequence[int], header: bool) -> list[BlockStart]:
    """Finds the beginnings of the blocks of `sources.blocks`."""
    starts: list[BlockStart] = []
    offset, line = 0, 1
    for piece, (breaks, end) in enumerate(zip(answer[::2], answer[1::2], strict=True)):
        if piece == 0 and header and breaks:
            line, breaks = 2, breaks - 1
            if not breaks:
                offset = end
        if breaks:
            starts.append(BlockStart(len(starts), line, offset, piece * sources.BLOCK_BYTES))
            line, offset = line + breaks, end
    if offset < size:  # a last line without a line break
        starts.append(BlockStart(len(starts), line, offset, size))
    return starts


def _parquet_units(file: int, size: int, rows_of_groups: Sequence[int]) -> list[WorkUnit]:
    found, index, row, total = [], 0, 1, sum(rows_of_groups)
    for group, rows in enumerate(rows_of_groups):
        for batch in range(-(-rows // sources.BLOCK_ROWS)):
            if index % prepare_job.BLOCKS_PER_SEGMENT == 0:
                found.append(BlockStart(index, row + batch * sources.BLOCK_ROWS, group, batch))
            index += 1
        row += rows
    if not found:
        return [WorkUnit(file, None, size)]
    ends = [start.first_row for start in found[1:]] + [row]
    shares = [size * (end - start.first_row) // total for start, end in zip(found, ends, strict=True)]
    return [WorkUnit(file, start, share) for start, share in zip(found, shares, strict=True)]
