"""The memory that a training step takes, told before the first.

Parameters, moments and gradients are counted exactly, as are the base's weights. The arrays of the
forward and backward pass are counted in the stream's size; how many of them exist at once was
measured on a CPU (tests/training/test_estimate.py).
"""

from dataclasses import dataclass

from ..models.transformer_config import SEQUENCE_MULTIPLE, TransformerConfig

COPIES = 16  # bytes of a parameter in float32: its value, two moments and the gradient
UPDATED = 45  # those, the new value and moments, and what they are computed from
KEPT = 25.0  # arrays of the stream that a block keeps for its gradient
RECOMPUTED = 2.5  # the same, where it is computed again
BACKWARD = 20.0  # more that exist while a block's gradient is computed
SCORES = 1.0, 3.0  # arrays of attention scores beside either


@dataclass(frozen=True)
class StepSize:
    """The sizes that decide a step's memory."""

    batch: int
    image_tokens: int  # of the largest picture
    caption_tokens: int  # of the longest caption
    parameters: int  # numbers that are trained
    checkpointing: bool

    def bytes(self, config: TransformerConfig, number: int, *, unpacks: bool = False) -> int:
        """Return the bytes of a step beside the base; a number of the stream takes `number`.

        `unpacks`: whether packed layers are unpacked for their products, and stay so for the
        gradient.
        """
        length = _padded(self.image_tokens) + _padded(self.caption_tokens)
        stream = self.batch * length * config.dim
        scores = self.batch * config.n_heads * length**2
        matrices = 4 * config.dim**2 + 3 * config.dim * config.hidden_dim if unpacks else 0
        block = KEPT * stream + SCORES[0] * scores + matrices
        blocks = config.n_layers + config.n_refiner_layers
        backward = BACKWARD * stream + SCORES[1] * scores
        if self.checkpointing:
            # The refiners of image and caption are independent, and are computed again together.
            arrays = RECOMPUTED * stream * blocks + 2 * (block + backward)
        else:
            arrays = block * blocks + backward
        working = int(arrays * number)
        return max(COPIES * self.parameters + working, UPDATED * self.parameters)


def _padded(tokens: int) -> int:
    return -(-tokens // SEQUENCE_MULTIPLE) * SEQUENCE_MULTIPLE
