"""Parts of error messages: similar names, and commands that install what is missing. Loads nothing."""
