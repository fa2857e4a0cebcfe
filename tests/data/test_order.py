"""Which samples a batch holds: nothing twice, nothing lost, and a function of seed and step."""

import numpy as np
import pytest

from harness.data.order import LANES, WIDE_LANES, WIDE_REACH, Pool, SampleOrder, Window, shares
from harness.errors import DataError
from harness.seeding import generator


def epoch(order, number=0):
    """The indexes of one epoch, (batches, batch_size)."""
    steps = range(number * order.per_epoch, (number + 1) * order.per_epoch)
    taken = [order.take(step) for step in steps]
    assert all((epochs == number).all() for epochs, _ in taken)
    return np.stack([places for _, places in taken])


def windowed(counts, batch_size, reach, seed=0):
    return SampleOrder([Pool(0, sum(counts), Window(reach, tuple(counts)))], batch_size, seed)


def test_without_shards_an_epoch_is_one_permutation_of_its_seed():
    order = SampleOrder([Pool(0, 23)], 5, 7)
    expected = generator(7, "order", 1).permutation(23)[:20].reshape(4, 5)
    assert order.per_epoch == 4
    assert (epoch(order, 1) == expected).all()


@pytest.mark.parametrize("batch_size", [1, 6, 8, 32])
@pytest.mark.parametrize("reach", [1, 10, 1_000])
@pytest.mark.parametrize("counts", [[64], [10, 0, 30, 1, 25], [3] * 40])
def test_a_windowed_epoch_shows_nothing_twice_and_drops_less_than_a_batch(
    counts, reach, batch_size
):
    order = windowed(counts, batch_size, reach)
    seen = epoch(order).reshape(-1)
    assert order.per_epoch == sum(counts) // batch_size
    assert len(set(seen.tolist())) == len(seen) == order.per_epoch * batch_size
    assert set(seen.tolist()) <= set(range(sum(counts)))


def test_a_step_is_the_same_whether_or_not_those_before_it_were_asked_for():
    whole, late = windowed([50] * 6, 16, 20), windowed([50] * 6, 16, 20)
    expected = [whole.take(step)[1].tolist() for step in range(60)]
    assert [late.take(step)[1].tolist() for step in (59, 3, 40)] == [
        expected[59], expected[3], expected[40]
    ]  # fmt: skip


def test_epochs_and_seeds_differ():
    order, other = windowed([50] * 4, 8, 20), windowed([50] * 4, 8, 20, seed=1)
    assert epoch(order, 0).tolist() != epoch(order, 1).tolist()
    assert epoch(order, 0).tolist() != epoch(other, 0).tolist()


def test_a_window_reads_each_lane_shard_by_shard():
    # 16 shards in 8 lanes: two each, so with a reach of 1 no lane mixes its shards.
    batches = epoch(windowed([40] * 16, 16, 1)) // 40
    for lane in batches.reshape(-1, LANES, 2).transpose(1, 0, 2).reshape(LANES, -1):
        assert (lane[:40] == lane[0]).all()
        assert (lane[40:] == lane[-1]).all()
    assert len(set(batches[0].tolist())) == LANES


@pytest.mark.parametrize(("quota", "lanes"), [(4096, 64), (1024, 64), (1000, 50), (7, 7), (71, 1)])
def test_a_wide_window_has_as_many_lanes_as_share_a_batch_evenly(quota, lanes):
    assert Window(1, (100,), WIDE_LANES).lanes(quota) == lanes


def test_a_wide_window_mixes_64_shards_from_the_first_batch_on():
    # 200 sorted shards of 2,000: what the default mixes 11 to 40 of, and fewest as an epoch begins
    counts = (2_000,) * 200
    mixed = {}
    for name, window in {
        "wide": Window(WIDE_REACH, counts, WIDE_LANES),
        "default": Window(10_000, counts),
    }.items():
        order = SampleOrder([Pool(0, sum(counts), window)], 4096, 0)
        batches = epoch(order) // 2_000
        assert len(batches) == sum(counts) // 4096
        mixed[name] = min(len(set(batch.tolist())) for batch in batches)
    assert mixed["wide"] >= 64 > mixed["default"]


def test_a_wide_epoch_shows_nothing_twice_and_reads_each_lane_shard_by_shard():
    window = Window(5, (30,) * 40, WIDE_LANES)
    order = SampleOrder([Pool(0, 1_200, window)], 100, 3)
    seen = epoch(order)
    assert len(set(seen.reshape(-1).tolist())) == 1_200
    lanes = seen.reshape(12, 50, 2).transpose(1, 0, 2).reshape(50, -1) // 30
    assert all(len(set(lane.tolist())) <= 2 for lane in lanes)  # 24 samples of shards of 30


def test_a_sample_is_put_off_by_no_more_than_the_reach():
    seen = epoch(windowed([1_000], 1, 50)).reshape(-1)
    moved = np.arange(1_000) - seen
    assert np.abs(moved).max() < 50
    assert np.abs(moved).mean() > 5


def test_equal_shares_of_a_batch_read_shards_of_their_own():
    # A process of two has four of the eight lanes, and so half of the shards.
    batches = epoch(windowed([64] * 16, 16, 30)) // 64
    first, second = set(batches[:, :8].ravel().tolist()), set(batches[:, 8:].ravel().tolist())
    assert len(first) == len(second) == 8
    assert not first & second


def test_weights_are_shares_of_every_batch():
    order = SampleOrder([Pool(0, 100), Pool(100, 20)], 10, 0, [0.7, 0.3])
    assert order.per_epoch == 12
    for step in range(50):
        epochs, places = order.take(step)
        small = places >= 100
        assert small.sum() == 3
        assert len(set(places.tolist())) == 10
        assert set(epochs[small]) == {step // 6}  # 20 samples are 6 batches of 3
        assert set(epochs[~small]) == {step // 14}
    of_process = order.take(0)[1][:5]
    assert 1 <= (of_process >= 100).sum() <= 2


@pytest.mark.parametrize(
    ("batch_size", "weights", "expected"),
    [
        (8, [1, 1], [4, 4]),
        (8, [0.5, 0.3, 0.2], [4, 2, 2]),  # 4, 2.4, 1.6
        (7, [1, 1], [4, 3]),
        (100, [99, 1], [99, 1]),
    ],
)
def test_shares_are_whole_and_sum_to_the_batch(batch_size, weights, expected):
    assert shares(batch_size, weights) == expected


def test_a_share_of_no_sample_is_refused():
    with pytest.raises(
        DataError, match=r"source 2 of data\.path has weight 1, which is 0\.079 samples"
    ):
        shares(8, [100, 1])


def test_a_source_smaller_than_its_share_is_refused():
    with pytest.raises(DataError, match="3 samples, fewer than the 5"):
        SampleOrder([Pool(0, 100), Pool(100, 3)], 10, 0, [1, 1])
