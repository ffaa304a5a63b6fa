"""Synchronization with the broker: write its stream, close gaps, reconcile the ledgers, and assign orders to teams."""
