"""The numbers that a device computes in."""

import torch


def narrow(device: str) -> torch.autocast:
    """Return the context of a forward pass: bfloat16, but for CPUs that only imitate it.

    Without its instructions a matrix product takes 24 times as long as in float32, and a
    convolution 90 times.
    """
    fast = device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device, torch.bfloat16, enabled=fast)
