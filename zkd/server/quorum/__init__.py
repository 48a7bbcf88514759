"""Bytes and sockets between servers: elections, learners, snapshot streams. No protocol logic."""
