"""LoRAs on a loaded model: what they change, and that nothing else changes."""
