"""What must be true after the orders of a run are done, computed from events and ledgers alone."""
