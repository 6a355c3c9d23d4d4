"""Finds out which strategies can run on this machine with the installed packages, and why others cannot.

It never loads TensorFlow into this process: with the wrong packages that can end the process, or take minutes.

    tfrs-dlrm doctor
"""

from tfrs_dlrm.tools.doctor.tpu_check import check_tpu

__all__ = ["check_tpu"]
