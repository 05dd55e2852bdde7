"""Keys and shapes of the official checkpoint, from the reference classes on its configuration.

python -m tests.parity.official        writes tests/official/*.keys anew
"""

import json
from pathlib import Path

OFFICIAL = Path(__file__).parent.parent / "official"
COMPONENTS = ("transformer", "text_encoder", "vae")


def key_list(part: str, folder: Path = OFFICIAL) -> dict[str, tuple[int, ...]]:
    lines = (folder / f"{part}.keys").read_text("utf-8").splitlines()
    pairs = (line.split(" ") for line in lines)
    return {key: tuple(map(int, shape.split("x"))) for key, shape in pairs}


def write_key_lists(folder: Path = OFFICIAL) -> None:
    import torch
    from diffusers import AutoencoderKL, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = {part: json.loads((OFFICIAL / f"{part}.json").read_text()) for part in COMPONENTS}
    with torch.device("meta"):  # shapes, no weights
        models = {
            "transformer": ZImageTransformer2DModel.from_config(config["transformer"]),
            "text_encoder": Qwen3ForCausalLM(Qwen3Config(**config["text_encoder"])),
            "vae": AutoencoderKL.from_config(config["vae"]),
        }
    for part, model in models.items():
        # A tied head is the embedding, and is not in the files.
        shapes = {k: tuple(v.shape) for k, v in model.state_dict().items() if k != "lm_head.weight"}
        lines = [f"{key} {'x'.join(map(str, shape))}" for key, shape in sorted(shapes.items())]
        (folder / f"{part}.keys").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    write_key_lists()
