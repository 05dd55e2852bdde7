"""The chat turn Z-Image was trained on: no system prompt, no thinking block, nothing stripped."""


def chat(prompt: str) -> str:
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


PROMPT_START = chat("").index("<|im_end|>")
"""Where the user's own text begins in the turn."""
