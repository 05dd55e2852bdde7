"""Models by name: on this machine, or fetched from the Hub."""
