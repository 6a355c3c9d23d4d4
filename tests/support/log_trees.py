"""A directory as Spark, Hive and people leave it, and which of its files patterns name."""

PLACED = (
    "_SUCCESS",
    "empty/_SUCCESS",
    "empty/nothing.csv",
    ".hidden.csv",
    "_metadata",
    "_underscore.csv",
    "x.csv",
    ".x.csv.crc",
    "part.crc",
    "_temporary/0/part.csv",
    "_delta_log/00000.json",
    ".git/a.csv",
    "day=1/a.tsv",
    "day=1/b.tsv",
    "day=1/_committed_123",
    "day=1/_started_123",
    "day=2/a.tsv",
    "day=2/hour=00/a.tsv",
    "day=2/hour=00/deep/er/a.tsv",
)
EMPTY = ("_SUCCESS", "empty/_SUCCESS", "empty/nothing.csv")
_BELOW_2 = ("day=2/a.tsv", "day=2/hour=00/a.tsv", "day=2/hour=00/deep/er/a.tsv")
_ALL = ("_underscore.csv", "day=1/a.tsv", "day=1/b.tsv", *_BELOW_2, "x.csv")
PATTERNS: dict[str, tuple[str, ...]] = {
    "": _ALL,  # a directory means the data files in it
    "**": _ALL,
    "*": _ALL,  # and so does one that a pattern matches
    "**/*": _ALL,
    "*.csv": ("_underscore.csv", "x.csv"),
    "day=*/*.tsv": ("day=1/a.tsv", "day=1/b.tsv", "day=2/a.tsv"),
    "day=[2-9]": _BELOW_2,
    "day=[2-9]/?.tsv": ("day=2/a.tsv",),
    "**/*.tsv": ("day=1/a.tsv", "day=1/b.tsv", *_BELOW_2),
    "day=2/**/a.tsv": _BELOW_2,
    "**/er/**": ("day=2/hour=00/deep/er/a.tsv",),
    "**/deep/**/a.tsv": ("day=2/hour=00/deep/er/a.tsv",),
    "**/**/b.tsv": ("day=1/b.tsv",),
    "day=1/a**": ("day=1/a.tsv",),
    ".*": (".git/a.csv", ".hidden.csv", ".x.csv.crc"),
    "_meta*": ("_metadata",),
    "*.crc": ("part.crc",),
    "day=1/_committed_123": ("day=1/_committed_123",),
    "_temporary/0/*": ("_temporary/0/part.csv",),
}


def place(directory):
    """Writes the files below a directory."""
    for path in PLACED:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text("" if path in EMPTY else "1")
