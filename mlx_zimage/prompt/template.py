"""The chat template that Z-Image was trained on: no system prompt, no thinking block.

The prompt goes in as it is; spaces and line ends are not stripped.
"""


def chat(prompt: str) -> str:
    """Return the text that is tokenized for a prompt."""
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


PROMPT_START = chat("").index("<|im_end|>")
"""The position of the prompt in `chat`'s text."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The same template in the language of transformers, for a tokenizer_config.json."""
