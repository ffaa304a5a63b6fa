"""Proofs: signing keys, signed heads, the witness, and inclusion and consistency proofs (format.md, section 8)."""
