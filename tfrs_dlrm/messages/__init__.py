"""What error messages share: similar names, and commands that install what is missing. Loads nothing."""
