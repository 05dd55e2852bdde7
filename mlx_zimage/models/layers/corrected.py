"""A quantized layer whose packed numbers other arrays correct, as other programs' files have them.

`y = W (x * input_scale) * output_scale + side_up (side_down x)`: W is packed, and may be rotated;
each of the other arrays may be absent. The side path sees the input before its scale and rotation,
and so does an adapter: to both the layer is one matrix, which `rows` returns.
"""

import mlx.core as mx

from .quantized import QuantizedLinear


class CorrectedLinear(QuantizedLinear):
    def add_corrections(
        self, rows: int, width: int, rank: int, input_scale: bool, output_scale: bool
    ) -> None:
        """Give the layer the parameters that its weights will be loaded into."""
        if rank:
            self.side_down, self.side_up = mx.zeros((rank, width)), mx.zeros((rows, rank))
        if input_scale:
            self.input_scale = mx.ones((width,))
        if output_scale:
            self.output_scale = mx.ones((rows,))

    def product(self, x: mx.array) -> mx.array:
        scaled = x * self.input_scale if "input_scale" in self else x
        out = super().product(scaled)
        if "output_scale" in self:
            out = out * self.output_scale
        if "side_down" in self:
            out = out + (x @ self.side_down.T) @ self.side_up.T
        return out

    def rows(self, start: int, stop: int) -> mx.array:
        by_row = {n: self[n][start:stop] for n in ("side_up", "output_scale") if n in self}
        other = {n: self[n] for n in ("side_down", "input_scale") if n in self}
        return corrected(super().rows(start, stop), by_row | other)


def corrected(matrix: mx.array, corrections: dict[str, mx.array]) -> mx.array:
    """Return some rows of the matrix that a corrected layer stands for, in float32.

    `matrix` are the unpacked rows, rotated back, and so are the corrections that go by rows.
    """
    arrays = {name: array.astype(mx.float32) for name, array in corrections.items()}
    matrix = matrix.astype(mx.float32)
    if "output_scale" in arrays:
        matrix = matrix * arrays["output_scale"][:, None]
    if "input_scale" in arrays:
        matrix = matrix * arrays["input_scale"]
    if "side_down" in arrays:
        matrix = matrix + arrays["side_up"] @ arrays["side_down"]
    return matrix
