"""Names of served models: what URLs, directories of versions, YAML and Kubernetes take."""

from __future__ import annotations

import hashlib
import os
import re

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SERVED_NAME = re.compile(r"[^/:\x00-\x1f\x7f]{1,200}")  # more than `_NAME`, as TF Serving serves any name
_MOST_OF_SERVICE = 63  # characters of a DNS label
_DIGEST = 6


def model_name(output: str) -> str:
    """Returns the name of the model whose versions are in `output`: the last part of the path or address.

    Raises:
      ValueError: the name cannot stand in a URL, or servers would take it for a version.
    """
    name = os.path.basename(os.path.abspath(output)) if "://" not in output else output.rstrip("/").rpartition("/")[2]
    if name.isascii() and name.isdigit():
        raise ValueError(
            f"--output={output}: the model would be called {name!r}, and servers take a directory of this name for a"
            f" version; give another last part, such as model-{name}"
        )
    if not _NAME.fullmatch(name):
        better = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "model"
        better = f"model-{better}" if better.isdigit() else better
        raise ValueError(
            f"--output={output}: the model would be called {name!r}, which URLs cannot hold; names begin with a letter"
            f" or digit and go on with these, dots, dashes and underscores: give another last part, such as {better}"
        )
    return name


def check_served_name(name: str) -> None:
    """Raises ValueError if a server cannot serve a model by this name: in URLs, metrics and as a directory of logs."""
    if not _SERVED_NAME.fullmatch(name) or name in (".", ".."):
        raise ValueError(
            f"the model name {name[:200]!r} cannot stand in a URL and name a directory; a name has 1 to 200 characters"
            " without '/', ':' and control characters, and is not '.' or '..': give the model such a name"
        )


def service_name(name: str) -> str:
    """Returns the name of a Kubernetes service for a model: lower-case letters, digits and dashes, at most 63.

    If it differs from the model's name, it ends in a digest of that, so that two models have two services.
    """
    service = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    service = service if service[:1].isalpha() else f"model-{service}".rstrip("-")
    if service == name and len(service) <= _MOST_OF_SERVICE:
        return service
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    return f"{service[: _MOST_OF_SERVICE - 1 - _DIGEST].rstrip('-')}-{digest}"
