"""Whether all files of a version are as its manifest lists them, and whether a directory without one lost it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from tfrs_dlrm.serving.bundle.manifest import MANIFEST, REFERENCE, BundleManifest, sha256_of
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.stores.files import crc32c

GRAPH = "saved_model.pb"
# The exporter writes it into the graph, so that a bundle without bundle.json is not taken for a plain SavedModel.
EXPORTER = "tfrs-dlrm bundle"
_AGAIN = "copy the version again"


def unfinished(path: str, manifest: BundleManifest) -> str:
    """Returns which file of the version is missing or of another size than listed; empty if there is none.

    Only sizes are compared: a copy under way is asked this at every look.
    """
    for name, listed in manifest.files.items():
        file = os.path.join(path, name)
        try:
            size = os.path.getsize(file)
        except OSError:
            return f"{name} is missing, which {MANIFEST} lists"
        if size != listed["bytes"]:
            return f"{name} has {size} bytes; {MANIFEST} says {listed['bytes']}"
    return ""


def check_whole(path: str, manifest: BundleManifest | None) -> None:
    """Reads all files of a version and compares them with its manifest.

    Args:
      path: the directory of the version.
      manifest: None for a directory without bundle.json, which is fine for a SavedModel that no export here wrote.

    Raises:
      ValueError: a file is missing, cut or changed, or the manifest is.
    """
    if not os.path.isfile(os.path.join(path, GRAPH)):
        raise ValueError(f"{path}: {GRAPH} is missing: {_AGAIN}")
    if manifest is None:
        _check_stranger(path)
        return
    if REFERENCE not in manifest.files:
        raise ValueError(f"{path}: {MANIFEST} does not list {REFERENCE}, whose scores are compared: export it again")
    problem = unfinished(path, manifest) or next(_changed(path, manifest.files), "")
    if problem:
        raise ValueError(f"{path}: {problem}: {_AGAIN}")


def _changed(path: str, files: Mapping[str, Any]) -> Iterator[str]:
    for name, listed in files.items():
        file = os.path.join(path, name)
        # CRC32C takes a tenth of the time of SHA-256. Earlier manifests have only the latter.
        kind, checksum = ("CRC32C", crc32c) if "crc32c" in listed else ("SHA-256", sha256_of)
        if checksum(file) != listed[kind.lower().replace("-", "")]:
            yield f"{name} was changed: its {kind} is not the one that {MANIFEST} lists"


def _check_stranger(path: str) -> None:
    """Refuses a SavedModel that is a bundle without its manifest, or no SavedModel."""
    try:
        with open(os.path.join(path, GRAPH), "rb") as f:
            saved = protos.saved_model.SavedModel.FromString(f.read())
    except DecodeError as e:
        raise ValueError(f"{path}: {GRAPH} is cut off or broken ({e}): {_AGAIN}") from e
    if any(graph.meta_info_def.meta_graph_version == EXPORTER for graph in saved.meta_graphs):
        raise ValueError(f"{path}: {MANIFEST} is missing, and tfrs-dlrm exported this version with it: {_AGAIN}")
