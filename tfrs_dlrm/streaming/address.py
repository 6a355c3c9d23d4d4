"""The address of a stream: kafka://HOST:PORT[,HOST:PORT...]/TOPIC?parameter=value&..."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from tfrs_dlrm.messages import did_you_mean

SCHEME = "kafka://"
FORMATS = ("json", "tsv", "csv")
STARTS = ("earliest", "latest")
READERS = ("", "confluent", "tensorflow_io")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_SECRETS = ("password", "secret", "token", "jaas", ".pem", "oauthbearer.config")


@dataclasses.dataclass(frozen=True)
class StreamAddress:
    """The address of a stream of rows, and their format.

    Attributes:
      servers: HOST or HOST:PORT of some brokers, separated by commas.
      topic: of raw rows with their labels.
      format: of a message: `json`, an object with a field for each column of the schema; or `tsv` or `csv`, one line.
      columns: the names of the fields of a line; by default `text.columns` of the schema.
      absent: how to read a field that a JSON object lacks: `malformed` or `missing`.
      start: where a run without a checkpoint begins: with the `earliest` row that is left, or after the `latest`.
      reader: `confluent` or `tensorflow_io`; empty for the one that works with the TensorFlow here.
      dead_letter: a topic that malformed messages are also sent to, in addition to the quarantine file.
      client_config: a file of settings of librdkafka, NAME=VALUE in each line, such as credentials.
      settings: further settings of librdkafka: the parameters with a dot in their name.
    """

    servers: str
    topic: str
    format: str = "json"
    columns: tuple[str, ...] = ()
    absent: str = "malformed"
    start: str = "earliest"
    reader: str = ""
    dead_letter: str = ""
    client_config: str = ""
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, address: str) -> StreamAddress:
        """Reads an address.

        Raises:
          ValueError: naming the part that is wrong, and what is possible.
        """
        parts = urllib.parse.urlsplit(address)
        if parts.scheme != "kafka" or not parts.netloc or parts.fragment:
            raise ValueError(f"{address!r} is not a stream address; kafka://HOST:PORT/TOPIC is needed")
        if "@" in parts.netloc:
            raise ValueError(
                f"kafka://...@{parts.netloc.rpartition('@')[2]}: credentials must not be in an address, which is"
                " kept in config.json; write them to a file and give client_config=FILE"
            )
        topic = urllib.parse.unquote(parts.path.removeprefix("/"))
        if not _TOPIC.fullmatch(topic):
            wanted = "up to 249 letters, digits, dots, underscores and hyphens are needed behind the hosts"
            raise ValueError(f"{address!r}: {topic!r} is no name of a topic; {wanted}")
        pairs = urllib.parse.parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        return cls(parts.netloc, topic, **_parameters(pairs))

    def __str__(self) -> str:
        """Returns the address without parameters, for messages."""
        return f"{SCHEME}{self.servers}/{self.topic}"


def _parameters(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {"settings": {}}
    choices = {"format": FORMATS, "absent": ("malformed", "missing"), "start": STARTS, "reader": READERS[1:]}
    known = (*choices, "columns", "dead_letter", "client_config")
    for name, value in pairs:
        if name in found or name in found["settings"]:
            raise ValueError(f"{name} is given twice in the address of the stream")
        if any(secret in name.lower() for secret in _SECRETS):
            raise ValueError(f"{name} must not be in an address, which is kept in config.json; use client_config=FILE")
        if "." in name:
            found["settings"][name] = value
        elif name not in known:
            hint = did_you_mean(name, known) or f"known are {', '.join(known)}, and settings of librdkafka with a dot"
            raise ValueError(f"the address of a stream has no parameter {name!r}; {hint}")
        elif name in choices and value not in choices[name]:
            raise ValueError(f"{name}={value!r} in the address of the stream: choose one of {', '.join(choices[name])}")
        elif name == "dead_letter" and not _TOPIC.fullmatch(value):
            raise ValueError(f"dead_letter={value!r} in the address of the stream is no name of a topic")
        else:
            found[name] = tuple(filter(None, value.split(","))) if name == "columns" else value
    return found
