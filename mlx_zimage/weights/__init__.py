"""Numbers in files: tensors, safetensors, and other programs' forms."""
