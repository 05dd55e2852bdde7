"""What a machine does with Z-Image: measured, with random weights or a model's own."""
