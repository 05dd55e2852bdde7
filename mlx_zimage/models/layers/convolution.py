"""Two-dimensional convolution without initial weights, and without Winograd's algorithm on Metal.

Notable:
- in 16 bit, MLX's Winograd kernels on Metal store their transforms in 16 bit: 33 times the rounding
  error of the direct sum, in a grid of 6 pixels. A flipped convolution with a flipped weight is the
  same sum, and MLX always computes it directly;
- a weight reads the same on every device, in (out, h, w, in). `store_flipped` changes its order in
  memory alone: the parameter becomes a view of a flipped copy, which costs nothing to flip again.
"""

import mlx.core as mx
from mlx import nn

from ... import device


class Conv2d(nn.Conv2d):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ):
        nn.Module.__init__(self)
        self.weight = mx.zeros((outputs, size, size, inputs))
        if bias:
            self.bias = mx.zeros((outputs,))
        self.stride, self.padding = (stride, stride), (padding, padding)
        self.dilation, self.groups = 1, 1

    def __call__(self, x: mx.array) -> mx.array:
        return self.convolve(x, self.padding)

    def convolve(self, x: mx.array, padding: tuple[int, int]) -> mx.array:
        """Convolve (B, H, W, C) with `padding` rows and columns of zeros around it."""
        if self.runs_flipped:
            weight = _flipped(self.weight)
            out = mx.conv_general(x, weight, padding=padding, flip=True)
        else:
            out = mx.conv2d(x, self.weight, self.stride, padding)
        return out + self.bias if "bias" in self else out

    @property
    def runs_flipped(self) -> bool:
        """Whether MLX would choose Winograd's algorithm here, at some sizes."""
        plain = self.weight.shape[1:3] == (3, 3) and self.stride == (1, 1)
        return plain and device.kind() == "metal"


def store_flipped(model: nn.Module) -> None:
    """Store the weights of a model's convolutions in the order that they are read in.

    Shapes and values stay what they are. Without it a model works, and flips a weight at each call.
    """
    for module in model.modules():
        if isinstance(module, Conv2d) and module.runs_flipped:
            module.weight = _flipped(mx.contiguous(_flipped(module.weight)))
            mx.eval(module.weight)


def _flipped(weight: mx.array) -> mx.array:
    return weight[:, ::-1, ::-1]
