"""Starts `tfrs-dlrm join-labels` in a checkout."""

from tfrs_dlrm.programs import launch

if __name__ == "__main__":
    launch.run("join-labels")
