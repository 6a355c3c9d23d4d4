"""How this package is installed: what error messages tell people to run."""

from pathlib import Path

_HOME = Path(__file__).resolve().parents[2]


def install_command(extra: str = "") -> str:
    """Returns the pip command that installs an extra of this package, from the checkout in use, if any.

    Without an extra, it installs the package itself.
    """
    suffix = f"[{extra}]" if extra else ""
    if not (_HOME / "setup.py").is_file():
        return f"pip install 'tfrs-dlrm{suffix}'"
    return f"pip install -e '{'.' if Path.cwd() == _HOME else _HOME}{suffix}'"
