"""The peer process of a member of an ensemble: it drives the core (`zkd/zab`)."""
