"""What people see: the command line. It parses, calls one job, and shows the result; no rule lives here."""
