"""A demo so small that a step of its training takes a moment."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

VAE = {"block_out_channels": [8, 8, 8, 8], "shift_factor": 0.1, "scaling_factor": 1.5}


def shrink(set_value: Callable[[Any, str, Any], None] = setattr) -> None:
    """Make the transformer and its batches small; `set_value` may be monkeypatch's."""
    from tools.train_demo import architecture, train_batches, train_model, train_transformer

    transformer = {**architecture.TRANSFORMER, "n_layers": 1}
    for module in (train_model, train_transformer):
        set_value(module, "TRANSFORMER", transformer)
    set_value(train_batches, "MAIN", (64, 64))
    set_value(train_batches, "OTHERS", ((64, 96),))
    for name, value in {"BATCHES": 3, "TURNS": 2, "WARM": 2}.items():
        set_value(train_transformer, name, value)


def prepare(out: Path) -> None:
    """Write what the transformer's training starts from: a VAE and a tokenizer, and a reader."""
    import torch
    from diffusers import AutoencoderKL
    from safetensors.torch import save_file

    from tools.train_demo import architecture, train_reader
    from tools.train_demo.tokenizer import train_tokenizer

    torch.manual_seed(0)
    AutoencoderKL.from_config({**architecture.VAE, **VAE}).save_pretrained(out / "vae")
    train_tokenizer(out / "tokenizer")
    save_file(train_reader.new_encoder().state_dict(), out / train_reader.FILE)


if __name__ == "__main__":
    # python -m tests.train_demo.tiny OUT STEPS: a run that a test may kill.
    from tools.train_demo import train_state, train_transformer

    shrink()
    train_state.CHECKPOINT_SECONDS = 0
    steps = int(sys.argv[2])
    done = train_transformer.train(Path(sys.argv[1]), steps, batch=2, compiled=False)
    sys.exit(0 if done else train_state.STOPPED)
