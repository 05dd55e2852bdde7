"""Noise against numbers that torch printed on a CPU and on CUDA cards."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.errors import RequestError
from mlx_zimage.sampling.noise import GPUS, draw, gpu_profile, torch_cpu, torch_cuda

LATENTS_1024 = 16 * 128 * 128


def test_cpu_seed_42() -> None:
    found = torch_cpu(42, 64)[:4]
    assert found == pytest.approx([1.9269, 1.4873, 0.9007, -2.1055], abs=5e-5)
    assert torch_cpu(42, 7)[:4] == pytest.approx([0.3367, 0.1288, 0.2345, 0.2303], abs=5e-5)


def test_cpu_seeds_count_in_32_bits() -> None:
    assert np.array_equal(torch_cpu(5, 64), torch_cpu(2**32 + 5, 64))


@pytest.mark.parametrize("card", ["h100", "h200"])
@pytest.mark.parametrize(
    ("seed", "first"),
    [(42, [0.1940, 2.1614, -0.1721, 0.8491, -1.9244]), (0, [-0.9247, -0.4253, -2.6438])],
)
def test_cuda_seeds(card: str, seed: int, first: list[float]) -> None:
    found = torch_cuda(seed, LATENTS_1024, *GPUS[card])[: len(first)]
    assert found == pytest.approx(first, abs=5e-5)


@pytest.mark.parametrize(
    ("card", "threads"),
    [("h200", 262_144), ("a100", 221_184), ("4090", 196_608), ("3090", 125_952)],
)
def test_cuda_draws_in_rounds_of_the_cards_threads(card: str, threads: int) -> None:
    """A thread's first call fills one element of four rounds; more threads make longer rounds."""
    found = torch_cuda(7, LATENTS_1024, *GPUS[card])
    alone = torch_cuda(7, threads, *GPUS["b200"])  # fits into one round there
    assert np.array_equal(found[:threads], alone)
    if threads < LATENTS_1024:
        assert not np.array_equal(
            found[threads:], torch_cuda(7, LATENTS_1024, *GPUS["h200"])[threads:]
        )


def test_philox_as_published() -> None:
    """The known answers of Random123 for ten rounds of Philox4x32."""
    from mlx_zimage.sampling.noise import _philox

    zero = [int(word[0]) for word in _philox(0, np.array([0], np.uint64), 0)]
    assert zero == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = [int(w[0]) for w in _philox(2**64 - 1, np.array([2**64 - 1], np.uint64), 2**64 - 1)]
    assert ones == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("kind", ["torch-cpu", "torch-cuda:4090", "mlx"])
def test_statistics_and_shape(kind: str) -> None:
    found = np.array(draw(kind, 3, (2, 16, 64, 64)))
    assert found.shape == (2, 16, 64, 64)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert abs(found.mean()) < 0.01
    assert abs(found.std() - 1) < 0.01


@pytest.mark.parametrize("kind", ["torch-cpu", "torch-cuda:4090", "mlx"])
def test_one_draw_for_a_batch_or_one_each(kind: str) -> None:
    each = draw(kind, [3, 4], (2, 16, 4, 4))
    assert mx.array_equal(each[1:], draw(kind, 4, (1, 16, 4, 4)))
    assert not mx.array_equal(draw(kind, 3, (2, 16, 4, 4))[1:], each[1:])


def test_mlx_noise_leaves_the_global_state_alone() -> None:
    mx.random.seed(1)
    expected = mx.random.normal((3,)).tolist()
    mx.random.seed(1)
    draw("mlx", 9, (1, 4, 2, 2))
    assert mx.random.normal((3,)).tolist() == expected


def test_numpys_global_state_is_left_alone() -> None:
    np.random.seed(1)
    expected = np.random.rand()
    np.random.seed(1)
    draw("torch-cpu", 9, (1, 4, 2, 2))
    assert np.random.rand() == expected


def test_a_card_that_is_not_listed() -> None:
    assert gpu_profile("torch-cuda:84x1536") == GPUS["a6000"]
    for wrong in (
        "torch-cuda",
        "torch-cuda:",
        "torch-cuda:0x1536",
        "cuda:4090",
        "torch-cuda:84x",
        "torch-cuda:84x255",
    ):
        with pytest.raises(RequestError, match="noise must be 'torch-cpu'"):
            gpu_profile(wrong)
