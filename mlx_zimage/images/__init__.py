"""Pictures: pixels, and files that hold the request that made them."""
