"""Verification: compare everything on disk with the bytes of the log, and the log with its seals."""
