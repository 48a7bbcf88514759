"""Outside tests: zkd beside Apache ZooKeeper, and under input that no client sends."""
