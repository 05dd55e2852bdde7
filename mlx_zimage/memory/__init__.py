"""How much memory a generation takes, and what is held when."""
