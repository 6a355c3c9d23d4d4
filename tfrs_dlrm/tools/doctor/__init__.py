"""Which strategies can run on this machine with what is installed, and why the others cannot.

Nothing in here loads TensorFlow into this process: with the wrong packages that can end the process, or take minutes.

    tfrs-dlrm doctor
"""

from tfrs_dlrm.tools.doctor.tpu_check import check_tpu

__all__ = ["check_tpu"]
