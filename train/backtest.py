"""Starts `tfrs-dlrm backtest` in a checkout."""

from tfrs_dlrm.programs import launch

if __name__ == "__main__":
    launch.run("backtest")
