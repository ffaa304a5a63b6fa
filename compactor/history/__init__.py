"""History: replay any past state, search for an order, tell its story, and compare two states."""
