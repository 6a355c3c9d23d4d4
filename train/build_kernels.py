"""Starts `tfrs-dlrm kernels` in a checkout."""

from tfrs_dlrm.programs import launch

if __name__ == "__main__":
    launch.run("kernels")
