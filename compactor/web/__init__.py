"""The API and the page: one HTTP server for orders, trades, events, health and metrics."""
