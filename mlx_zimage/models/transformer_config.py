"""transformer/config.json: the shape of the model, and how large its positions let pictures be."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .. import configs
from ..errors import CheckpointError, RequestError

# Fixed in the reference class and absent from config.json.
ADALN_WIDTH = 256  # the timestep embedding, where dim is not narrower
PATCH_SIZE = 2  # the pipeline's, of those a checkpoint may hold embedders for
SEQUENCE_MULTIPLE = 32  # sequences are padded to it


@dataclass(frozen=True)
class TransformerConfig:
    """The fields of transformer/config.json that shape the model."""

    in_channels: int  # of the latents
    dim: int
    n_layers: int  # of the joint stream
    n_refiner_layers: int  # each, for image and caption alone
    n_heads: int
    norm_eps: float
    qk_norm: bool
    cap_feat_dim: int  # width of the text encoder's hidden state
    rope_theta: float
    t_scale: float  # the model's time 0..1 is multiplied by it before the sinusoid
    axes_dims: tuple[int, ...]  # rotary widths for (caption, row, column)
    axes_lens: tuple[int, ...]  # how many positions each axis has
    all_patch_size: tuple[int, ...] = (2,)
    all_f_patch_size: tuple[int, ...] = (1,)
    siglip_feat_dim: int | None = None
    has_target_time: bool = False  # a second timestep embedder; known by its keys, in no config

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], where: str = "transformer/config.json"
    ) -> "TransformerConfig":
        config = configs.read(cls, data, where)
        configs.at_most(config, 256, where, "n_layers", "n_refiner_layers")
        if config.siglip_feat_dim is not None:
            raise CheckpointError(
                f"{where}: 'siglip_feat_dim' must be null, not {config.siglip_feat_dim}; "
                "this is an Omni checkpoint, which cannot be run yet"
            )
        if config.rope_theta <= 0:
            raise CheckpointError(f"{where}: 'rope_theta' must be above 0, not {config.rope_theta}")
        if config.dim % config.n_heads or config.head_dim != sum(config.axes_dims):
            raise CheckpointError(
                f"{where}: dim / n_heads must equal the sum of axes_dims, not "
                f"{config.dim} / {config.n_heads} against {config.axes_dims}"
            )
        if len(config.axes_dims) != 3 or len(config.axes_lens) != 3:
            raise CheckpointError(f"{where}: axes_dims and axes_lens must each have three entries")
        if any(width % 2 for width in config.axes_dims):
            raise CheckpointError(f"{where}: axes_dims must be even, not {config.axes_dims}")
        frames = (1,) * len(config.all_patch_size)
        if PATCH_SIZE not in config.all_patch_size or config.all_f_patch_size != frames:
            raise CheckpointError(
                f"{where}: all_patch_size must hold {PATCH_SIZE}, and all_f_patch_size a 1 for "
                f"each, not {config.all_patch_size} and {config.all_f_patch_size}"
            )
        return config

    def with_keys(self, keys: Iterable[str]) -> "TransformerConfig":
        """Return the config of a checkpoint with these keys: some show what no config says."""
        return replace(self, has_target_time=any(key.startswith("t_embedder_2.") for key in keys))

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def hidden_dim(self) -> int:
        return int(self.dim / 3 * 8)  # as the reference rounds it

    @property
    def adaln_dim(self) -> int:
        return min(self.dim, ADALN_WIDTH)

    def block_flops(self, length: int) -> int:
        """Return the multiplications and additions of one block over a sequence of one picture."""
        matrices = 4 * self.dim**2 + 3 * self.dim * self.hidden_dim
        return 2 * length * matrices + 4 * length**2 * self.dim

    @property
    def patch_size(self) -> int:
        return PATCH_SIZE

    @property
    def max_caption_tokens(self) -> int:
        """The most tokens whose padded length leaves the caption axis a position for the image."""
        return (self.axes_lens[0] - 2) // SEQUENCE_MULTIPLE * SEQUENCE_MULTIPLE

    def check_caption(self, shape: tuple[int, ...]) -> None:
        """Refuse an embedding of another width, or of more tokens than there are positions."""
        width, most = self.cap_feat_dim, self.max_caption_tokens
        if len(shape) != 2 or shape[1] != width or not 0 < shape[0] <= most:
            raise RequestError(
                f"a prompt embedding must have the shape (1 to {most}, {width}), not {shape}"
            )

    def check_size(self, height: int, width: int) -> None:
        """Refuse latents with more rows or columns than the rotary axes have positions."""
        rows, columns = (lens * self.patch_size for lens in self.axes_lens[1:])
        if height > rows or width > columns:
            raise RequestError(
                f"an image may be at most {columns} latents wide and {rows} high, "
                f"not {width} x {height}; ask for a smaller one"
            )
