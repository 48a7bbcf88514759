"""The rows of the table of keys, by subject. Each module declares what `Config` inherits."""
