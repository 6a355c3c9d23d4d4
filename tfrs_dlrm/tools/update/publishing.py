"""Exports the accepted model of an update as the next version of the served one."""

from __future__ import annotations

import dataclasses
import os

from tfrs_dlrm.schema import Schema
from tfrs_dlrm.serving.bundle.manifest import BundleManifest, read_manifest
from tfrs_dlrm.serving.bundle.versions import find_versions, remove_old, whole_versions
from tfrs_dlrm.serving.exporting.export import ExportOptions, export
from tfrs_dlrm.stores import local_copy
from tfrs_dlrm.training.workdir import Workdir


def export_once(run: str, output: str, version: int, keep: int) -> int:
    """Exports a run as a version, unless an interrupted call has done it.

    The version has the signatures and the storage of tables of the newest one before it.

    Args:
      run: the directory of the run.
      output: the directory of the versions, or its address.
      version: the number that the next version had before the first call.
      keep: how many of the newest versions stay; 0 deletes none.

    Returns:
      The number of the version.

    Raises:
      ValueError: the exported model disagrees with the trained one.
      OSError: the disk is full, or `output` cannot be written.
    """
    home = Workdir(run)
    if version in whole_versions(output) and _manifest(output, version).checkpoint == _checkpoint(home):
        if keep:
            remove_old(output, keep)
        return version
    options = dataclasses.replace(next_options(output, home.schema()), keep=keep or None)
    return int(os.path.basename(export(run, output, "best", options).path))


def next_options(output: str, schema: Schema) -> ExportOptions:
    """Returns the contents of the newest whole version, for the next one.

    Args:
      output: the directory of the versions, or its address.
      schema: of the model. A context that it cannot have is left out.

    Raises:
      ValueError: the manifest of that version cannot be read.
    """
    whole = whole_versions(output)
    if not whole:
        return ExportOptions()
    before = _manifest(output, whole[-1])
    known = {given.name for given in schema.inputs} | {f.name for f in (*schema.dense, *schema.categorical)}
    context = before.context if known.issuperset(before.context) else ()
    return ExportOptions(context, before.tables.get("storage", ExportOptions.storage))


def _manifest(output: str, version: int) -> BundleManifest:
    return read_manifest(local_copy(find_versions(output)[version]))


def _checkpoint(home: Workdir) -> str:
    return os.path.basename(home.checkpoint("best"))
