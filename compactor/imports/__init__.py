"""Imports: captured Alpaca messages and files of the old layout become events in the ledgers."""
