"""LoRA files: read into changes of layers, attached to a loaded model, or merged into weights."""
