"""The error of a file or frame without rows, of which other files may have some."""


class NoRowsError(ValueError):
    """A file or frame has no rows. Spark writes such files next to others, and an hour of a log may be empty."""
