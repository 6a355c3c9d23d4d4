"""Exports the accepted model of an update as the next version of the served one."""

from __future__ import annotations

from tfrs_dlrm.serving.bundle.manifest import read_manifest
from tfrs_dlrm.serving.bundle.versions import newest_version, remove_old, whole_versions
from tfrs_dlrm.serving.exporting.export import ExportOptions, export


def export_once(run: str, output: str, version: int, keep: int) -> None:
    """Exports a run as a version, unless an interrupted call has done it.

    The version has the signatures and the storage of tables of the newest one before it.

    Args:
      run: the directory of the run.
      output: the directory of the versions, or its address.
      version: the number that the next version has.
      keep: how many of the newest versions stay; 0 deletes none.

    Raises:
      ValueError: the exported model disagrees with the trained one.
      OSError: the disk is full, or `output` cannot be written.
    """
    if version in whole_versions(output):
        if keep:
            remove_old(output, keep)
        return
    export(run, output, "best", _options(output, keep))


def _options(output: str, keep: int) -> ExportOptions:
    if not whole_versions(output):
        return ExportOptions(keep=keep or None)
    before = read_manifest(newest_version(output))
    return ExportOptions(before.context, before.tables["storage"], keep or None)
