"""LoRA training: pictures with captions become a small file that changes a model."""
