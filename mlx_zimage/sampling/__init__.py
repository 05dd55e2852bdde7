"""Numbers without weights: schedules, samplers, guidance and noise."""
