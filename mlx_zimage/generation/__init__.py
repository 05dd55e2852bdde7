"""A request becomes a run, and a run becomes pictures."""
