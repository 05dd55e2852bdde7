"""The chat turn Z-Image was trained on: no system prompt, no thinking block, nothing stripped."""


def chat(prompt: str) -> str:
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


PROMPT_START = chat("").index("<|im_end|>")
"""Where the user's own text begins in the turn."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The same in transformers' language, for a tokenizer_config.json of our own making."""
