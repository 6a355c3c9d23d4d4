"""Exports a SavedModel after every N windows."""

from __future__ import annotations

import os

from tfrs_dlrm.config import StreamConfig
from tfrs_dlrm.data.encoding.encoder import free_vocabularies
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.serving.bundle.manifest import MANIFEST
from tfrs_dlrm.serving.bundle.versions import whole_versions
from tfrs_dlrm.serving.exporting.export import ExportOptions, export_model
from tfrs_dlrm.stores import join
from tfrs_dlrm.stores.files import read_json
from tfrs_dlrm.training.workdir import Workdir


class Bundles:
    """The exported versions of a run.

    Args:
      config: where they go, and how often.
      home: the directory of the run.
    """

    def __init__(self, config: StreamConfig, home: Workdir):
        self._output, self._every, self._keep = config.export_to, config.export_every_windows, config.export_keep
        self._home = home

    def export(self, model: RankingModel, checkpoint: str, window: int) -> str:
        """Exports the model if that is due and was not done before a kill; returns the path, or an empty string.

        Args:
          model: as it is in the checkpoint.
          checkpoint: its path.
          window: the last one done.

        Raises:
          ValueError, OSError: as `export_model`.
        """
        if not self._every or not window or window % self._every or self._newest() == os.path.basename(checkpoint):
            return ""
        encoder_dir = self._home.encoder_of(checkpoint)
        try:
            path, _ = export_model(model, encoder_dir, self._output, ExportOptions(keep=self._keep), checkpoint)
        finally:
            if self._home.admits_values:
                free_vocabularies(encoder_dir)
        return path

    def _newest(self) -> str:
        """Returns the name of the checkpoint that the newest version was made from."""
        versions = whole_versions(self._output)
        if not versions:
            return ""
        try:
            return str(read_json(join(join(self._output, str(versions[-1])), MANIFEST))["checkpoint"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # a manifest that is no object of JSON
            return ""
