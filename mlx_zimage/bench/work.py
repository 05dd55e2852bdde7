"""The least work that a request can cost, counted from the configs: multiplications and additions
in matrix products and attention. Sequences are padded to 32, as the published model has them."""

from ..checkpoint.checkpoint import Checkpoint
from ..models.blocks import TIMESTEP_HIDDEN, TIMESTEP_WIDTH
from ..models.transformer_config import SEQUENCE_MULTIPLE


def encoding(checkpoint: Checkpoint, tokens: int) -> int:
    """Count the text encoder over one prompt, without the last layer, which is not needed."""
    config = checkpoint.text_encoder
    return (config.num_hidden_layers - 1) * config.layer_flops(tokens)


def preparing(checkpoint: Checkpoint, tokens: int) -> int:
    """Count a caption's refiner, which runs once for each prompt."""
    config = checkpoint.transformer
    embedder = 2 * tokens * config.cap_feat_dim * config.dim
    return embedder + config.n_refiner_layers * config.block_flops(_padded(tokens))


def modulating(checkpoint: Checkpoint) -> int:
    """Count the scales and gates of one step."""
    config = checkpoint.transformer
    time = 2 * TIMESTEP_HIDDEN * (TIMESTEP_WIDTH + config.adaln_dim)
    widths = 4 * (config.n_refiner_layers + config.n_layers) + 1
    return time + 2 * config.adaln_dim * config.dim * widths


def forward(checkpoint: Checkpoint, tokens: int, width: int, height: int) -> int:
    """Count the transformer over one picture, its sides in pixels, with one caption."""
    config, multiple = checkpoint.transformer, checkpoint.image_multiple
    patches = (width // multiple) * (height // multiple)
    edges = 2 * 2 * patches * config.patch_size**2 * config.in_channels * config.dim
    refiners = config.n_refiner_layers * config.block_flops(_padded(patches))
    joint = config.block_flops(_padded(patches) + _padded(tokens))
    return edges + refiners + config.n_layers * joint


def _padded(tokens: int) -> int:
    return -(-tokens // SEQUENCE_MULTIPLE) * SEQUENCE_MULTIPLE
