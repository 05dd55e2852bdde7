"""Generation: a request becomes a run (plan), and runs become pictures (job).

plan -> job -> encode -> predict, loop -> decode. A feature sets a run's slots in plan; the loop
never learns its name.
"""
