"""Compares models: trained on the same data with several seeds, tuned within a budget, and measured equally."""

from tfrs_dlrm.tools.comparison.comparison_report import summary, table
from tfrs_dlrm.tools.comparison.contestants import Contestant, contestants, sizes
from tfrs_dlrm.tools.comparison.run import ComparisonOptions, compare

__all__ = ["ComparisonOptions", "Contestant", "compare", "contestants", "sizes", "summary", "table"]
