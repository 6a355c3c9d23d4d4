"""Programs that train along streams, with kills in between."""
