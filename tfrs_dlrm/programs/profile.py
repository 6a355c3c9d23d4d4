"""Shows what a prepared log holds, what is suspicious in it, and what has moved since another log or in requests."""

import os
import sys

from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__)
_DATA = FLAGS.string("data", None, "A prepared directory.", required=True)
_AGAINST = FLAGS.string("against", "", "An earlier prepared directory, to compare with.")
_REQUESTS = FLAGS.multi_string("requests", "A file, directory or glob of a server's request log; may be repeated.")
_OUTPUT = FLAGS.string("output", "", "An HTML file with pictures; by default none is written.")
_FAIL_ON = FLAGS.enum(
    "fail_on",
    "nothing",
    ["nothing", "drift", "anything"],
    "Ends with exit code 3 if the log differs from others (drift), or if anything is suspicious.",
)
FLAGS.stopped = lambda: "Nothing was written: the same command looks again."

SUSPICIOUS = 3


def main() -> None:
    """Prints the table and the findings, and writes the page."""
    from tfrs_dlrm.stores.files import check_writable_place, local_path, write_text
    from tfrs_dlrm.tools.profile.examine import examine
    from tfrs_dlrm.tools.profile.page import page
    from tfrs_dlrm.tools.profile.text import text

    output = local_path(_OUTPUT.value)
    if output:
        check_writable_place(os.path.dirname(output))
    report = examine(_DATA.value, _AGAINST.value, _REQUESTS.value)
    print(text(report))
    if output:
        os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
        write_text(output, page(report))
        print(f"\nWrote {output}.")
    wrong = [f for f in report.findings if _FAIL_ON.value == "anything" or f.is_drift]
    if wrong and _FAIL_ON.value != "nothing":
        sys.exit(SUSPICIOUS)
