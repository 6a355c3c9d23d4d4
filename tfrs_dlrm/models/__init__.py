"""Ranking models."""

from tfrs_dlrm.models.dlrm import DLRM
from tfrs_dlrm.models.ranking import RankingModel

__all__ = ["DLRM", "RankingModel"]
