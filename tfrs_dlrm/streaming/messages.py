"""Turns messages into encoded rows, by the parser and the encoder that `prepare` runs on files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.blocks import BlockEncoder
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.data.raw.typed_rows import TypedRows, parse
from tfrs_dlrm.data.reading.columns import Columns
from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.json_rows import JsonRows
from tfrs_dlrm.streaming.reader import MAX_BYTES, Message

# Characters of a malformed message in the quarantine file.
_SHOWN = 1000
_DELIMITERS = {"tsv": "\t", "csv": ","}


@dataclasses.dataclass(frozen=True)
class Malformed:
    """A message that is no row: its place, the reason, and its first bytes."""

    message: Message
    column: str
    reason: str

    @property
    def text(self) -> str:
        """The begin of the message; bytes that are no UTF-8 appear as escapes."""
        return self.message.value[:_SHOWN].decode("utf-8", "backslashreplace")

    def __str__(self) -> str:
        column = f", column {self.column!r}" if self.column else ""
        return f"partition {self.message.partition}, offset {self.message.offset}{column}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The rows of some messages.

    Attributes:
      columns: the encoded rows, in the order of the messages; None without rows.
      out_of_range: by feature, how many values have no row in their table.
      malformed: the messages that are no rows, in order.
      rows: the same rows before they were encoded; None without rows.
      block: the messages that they are of; None without one.
    """

    columns: Columns | None
    out_of_range: dict[str, int]
    malformed: list[Malformed]
    rows: TypedRows | None = None
    block: RawBlock | None = None

    def __len__(self) -> int:
        return 0 if self.columns is None else len(self.columns)


@dataclasses.dataclass(frozen=True)
class ReadMessages:
    """Messages that were read, and are still to be encoded.

    Attributes:
      messages: all of them.
      malformed: by place, those that are no rows.
      numbers: of each row of the block the place of its message.
      block: the others; None without one.
      rows: of the block.
    """

    messages: Sequence[Message]
    malformed: dict[int, Malformed]
    numbers: list[int]
    block: RawBlock | None
    rows: TypedRows | None


class Decoder:
    """Turns messages of a stream into encoded rows.

    Args:
      encoder: of a prepared directory.
      address: says how a message is laid out.

    Raises:
      ValueError: lines without known columns, or without columns that the schema reads.
    """

    def __init__(self, encoder: Encoder, address: StreamAddress):
        self._schema, self._address = encoder.schema, address
        self._encode = BlockEncoder(encoder)
        self._read_objects = JsonRows(encoder.schema, address.absent == "missing")
        text = encoder.schema.text
        self._columns = address.columns or text.columns
        self._delimiter = text.delimiter or _DELIMITERS.get(address.format, "")
        if address.format == "json":
            return
        if not self._columns:
            raise ValueError(
                f"{address}: lines of a stream have no header; list their columns in text.columns of the schema, or in"
                " the address: columns=NAME,NAME,..."
            )
        missing = [name for name in encoder.schema.columns if name not in self._columns]
        if missing:
            raise ValueError(f"{address}: no column {', '.join(map(repr, missing))} among {', '.join(self._columns)}")

    def __call__(self, messages: Sequence[Message]) -> Decoded:
        """The rows of some messages."""
        return self.encode(self.read(messages))

    def read(self, messages: Sequence[Message]) -> ReadMessages:
        """Reads messages, which takes no vocabulary."""
        malformed: dict[int, Malformed] = {}
        for i, message in enumerate(messages):
            if message.size > MAX_BYTES:
                malformed[i] = Malformed(message, "", f"{message.size:,} bytes; a row may have {MAX_BYTES:,}")
            elif not message.value:
                malformed[i] = Malformed(message, "", "the message is empty")
        numbers = [i for i in range(len(messages)) if i not in malformed]
        block, numbers = (self._objects if self._address.format == "json" else self._lines)(
            messages, numbers, malformed
        )
        rows = None if block is None else parse(block, self._schema)
        return ReadMessages(messages, malformed, numbers, block, rows)

    def encode(self, read: ReadMessages) -> Decoded:
        """Encodes messages that were read."""
        messages, malformed, block, rows = read.messages, dict(read.malformed), read.block, read.rows
        if block is None or rows is None:
            return Decoded(None, {}, [malformed[i] for i in sorted(malformed)])
        encoded = self._encode(block, rows)
        for bad in encoded.bad:
            i = read.numbers[bad.row - block.first_row]
            malformed[i] = Malformed(messages[i], bad.column, bad.reason)
        in_order = [malformed[i] for i in sorted(malformed)]
        if not len(encoded.table):
            return Decoded(None, encoded.out_of_range, in_order)
        good = rows if len(rows) == len(encoded.table) else rows.take(np.isin(rows.numbers, encoded.numbers))
        return Decoded(Columns.of(encoded.table, self._schema), encoded.out_of_range, in_order, good, block)

    def again(self, decoded: Decoded) -> Columns:
        """Encodes the rows once more, of which there are some, after the encoder's vocabularies changed."""
        if decoded.block is None or decoded.rows is None:
            raise ValueError("there are no rows to encode")
        return Columns.of(self._encode(decoded.block, decoded.rows).table, self._schema)

    def _lines(
        self, messages: Sequence[Message], numbers: list[int], malformed: dict[int, Malformed]
    ) -> tuple[RawBlock | None, list[int]]:
        """Returns a block of the messages in `numbers` that are one line each, and their numbers."""
        lines, kept = [], []
        for i in numbers:
            line = messages[i].value.removesuffix(b"\n").removesuffix(b"\r")
            if b"\n" in line or not line:
                what = "the message is empty" if not line else "a line break in the middle of the message"
                malformed[i] = Malformed(messages[i], "", what)
            else:
                lines.append(line)
                kept.append(i)
        if not lines:
            return None, kept
        data = b"\n".join(lines) + b"\n"
        quote = self._schema.text.quote
        return RawBlock(str(self._address), 0, 1, len(lines), data, self._columns, self._delimiter, quote), kept

    def _objects(
        self, messages: Sequence[Message], numbers: list[int], malformed: dict[int, Malformed]
    ) -> tuple[RawBlock | None, list[int]]:
        """Returns a block of the messages in `numbers` that are JSON objects of the schema, and their numbers."""
        found = self._read_objects([messages[i].value for i in numbers])
        for place, error in found.refused.items():
            i = numbers[place]
            malformed[i] = Malformed(messages[i], error.column, error.reason)
        kept = [numbers[place] for place in found.kept]
        if not kept:
            return None, kept
        return RawBlock(str(self._address), 0, 1, len(kept), found.table, self._schema.columns), kept
