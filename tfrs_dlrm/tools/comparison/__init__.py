"""Models beside each other: trained on the same data with several seeds, tuned within a budget, and measured alike."""

from tfrs_dlrm.tools.comparison.comparison_report import draw, summary, table
from tfrs_dlrm.tools.comparison.contestants import Contestant, contestants
from tfrs_dlrm.tools.comparison.run import Options, compare
from tfrs_dlrm.tools.comparison.sizes import sizes

__all__ = ["Contestant", "Options", "compare", "contestants", "draw", "sizes", "summary", "table"]
