"""How fast the compactor is, beside what else could do its work."""
