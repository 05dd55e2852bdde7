"""Numbers without weights: schedules, the Euler step, guidance and noise."""
