"""Everything that touches weight files."""
