"""Mutants: small changes of the code that money depends on, each of which some test has to notice."""
