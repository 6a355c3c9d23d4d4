"""What `prepare` says about each column of a log: `profile.json`."""
