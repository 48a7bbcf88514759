"""All tests of zkd; `tests.X` is importable from the root of a checkout."""
