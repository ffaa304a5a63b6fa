"""The ledgers as tables for other programs: files to export, views to query, frames to compute with."""
