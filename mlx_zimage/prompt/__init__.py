"""Prompts: the chat template, the tokenizer, and a cache of embeddings."""
