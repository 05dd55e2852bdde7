"""Which layers are quantized, and the search for their scales."""
