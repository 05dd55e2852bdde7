"""How far from the published pipeline we may be: relative L2 errors in float32.

Beside each stands the worst that was measured, on Linux x86-64, MLX 0.32.4 on its CPU backend with
OpenBLAS against torch 2.13.0 on a CPU. The room above it is for other backends' order of summation.
"""

TRANSFORMER = 1e-5  # 3.1e-6
TEXT_ENCODER = 5e-6  # 2.2e-6
VAE = 5e-6  # 1.3e-6
LATENTS = 1e-5  # 1.9e-6
PIXELS = 1e-3  # 4.3e-4: the share of 8-bit values off by one; none may be off by more
SCHEDULE = 1e-7  # 0
CPU_NOISE = 2e-7  # 5.1e-8
ADAPTED = 1e-5  # 6.6e-6: velocities with an adapter attached
LORA_FILES = 1e-6  # 1.0e-7: merged by PEFT, against float64, of an adapter's effect
LYCORIS = 5e-6  # 1.1e-6: outputs of its modules less the base's, so of the effect
