"""python -m tfrs_dlrm.tools.doctor: what is installed and attached, and which strategies can run here."""

from __future__ import annotations

import argparse
import json
import sys

from tfrs_dlrm.tools.doctor.machine_report import examine


def main() -> None:
    """Prints the findings; exit code 0 where at least one_device can run."""
    parser = argparse.ArgumentParser("python -m tfrs_dlrm.tools.doctor", description=__doc__.partition(": ")[2])
    parser.add_argument("--tpu", default="local", help="which one: local, its NAME, or grpc://HOST:PORT")
    parser.add_argument("--quick", action="store_true", help="without loading TensorFlow, which takes seconds")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    report = examine(options.tpu, load=not options.quick)
    print(json.dumps(report.to_dict(), indent=2) if options.json else report.text())
    sys.exit(0 if report.healthy else 1)


if __name__ == "__main__":
    main()
