"""Shows what a prepared log holds, and what is suspicious in it; see docs/guides/keeping-up.md.

`examine` compares the `profile.json` of prepared directories, and a request log. `text` and `page` show the findings.
"""
