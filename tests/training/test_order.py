"""The order of pictures and the noise of a pass."""

from collections import Counter

import numpy as np

from mlx_zimage.training.order import Noise, Order


def test_an_epoch_takes_every_picture_and_a_batch_one_size() -> None:
    sizes = ["a"] * 5 + ["b"] * 3 + ["c"]
    order = Order(sizes, batch=2, seed=7)
    assert order.per_epoch == 3 + 2 + 1
    for epoch in range(3):
        batches = [order.batch(epoch * 6 + i) for i in range(6)]
        assert all(len({sizes[i] for i in batch}) == 1 and len(batch) == 2 for batch in batches)
        counts = Counter(i for batch in batches for i in batch)
        assert set(counts) == set(range(9)) and sum(counts.values()) == 12
    assert [order.batch(i) for i in range(6)] != [order.batch(6 + i) for i in range(6)]


def test_a_pass_is_decided_by_its_number_alone() -> None:
    noise = Noise(3, "uniform", 3.0, 0.5)
    late = Order(["a"] * 9, 2, 3).batch(23)  # no earlier pass was asked for
    order = Order(["a"] * 9, 2, 3)
    assert [order.batch(i) for i in range(24)][-1] == late
    first, again = noise.draw(5, (2, 1, 2, 2)), noise.draw(5, (2, 1, 2, 2))
    assert (first.noise == again.noise).all() and (first.sigmas == again.sigmas).all()
    other = noise.draw(6, (2, 1, 2, 2))
    assert (first.noise != other.noise).all() and (first.sigmas != other.sigmas).all()


def test_levels_are_the_samplers_density() -> None:
    """Half of the uniform levels of shift 3 lie above 0.75: s/2 over 1 + (s - 1)/2."""
    draws = [Noise(0, "uniform", 3.0, 0.0).draw(i, (8,)).sigmas for i in range(500)]
    sigmas = np.concatenate(draws)
    assert sigmas.min() > 0 and sigmas.max() <= 1
    quartiles = [3 * u / (1 + 2 * u) for u in (0.25, 0.5, 0.75)]
    # Measured 0.0011; eight numbers spread evenly leave little to chance.
    np.testing.assert_allclose(np.quantile(sigmas, [0.25, 0.5, 0.75]), quartiles, atol=0.004)
    in_batch = np.sort(draws[0] / (3 - 2 * draws[0]))  # back before the shift: one in each eighth
    np.testing.assert_array_equal(np.ceil(in_batch * 8 - 1e-6), np.arange(1, 9))


def test_logit_normal_levels() -> None:
    draws = [Noise(0, "logit-normal", 1.0, 0.0).draw(i, (8,)).sigmas for i in range(500)]
    logits = np.log(np.concatenate(draws)) - np.log1p(-np.concatenate(draws))
    assert abs(logits.mean()) < 0.05 and abs(logits.std() - 1) < 0.05  # 4000 draws: 3 deviations


def test_captions_are_left_out_as_often_as_asked() -> None:
    noise = Noise(1, "uniform", 3.0, 0.1)
    share = np.mean([noise.draw(i, (4, 1)).dropped for i in range(1000)])
    assert abs(share - 0.1) < 0.015  # 4000 draws: 3 deviations
