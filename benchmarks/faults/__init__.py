"""Programs that kill programs at random moments, and check what they leave behind."""
