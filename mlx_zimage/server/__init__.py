"""A local server: one model, one queue, and the APIs and the page that share them.

Requests of every API become an `Order` (`orders.py`), which `Service` (`service.py`) judges and
queues. One thread (`owner.py`) opens the model and runs every generation; what happens reaches the
event loop as plain data, and `jobs.py` hands it to whoever follows. This package needs the extra
`server`, and uses the public face of the library alone.
"""
