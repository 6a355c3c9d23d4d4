"""Starts `tfrs-dlrm input-service` in a checkout."""

from tfrs_dlrm.programs import launch

if __name__ == "__main__":
    launch.run("input-service")
