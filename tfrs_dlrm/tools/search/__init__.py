"""Tries models within a budget of time, and trains the best of them."""

from tfrs_dlrm.tools.search.run import search_and_train

__all__ = ["search_and_train"]
