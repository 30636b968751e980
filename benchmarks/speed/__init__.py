"""How fast, against what a user would take instead and against the limit: see `__main__.py`."""
