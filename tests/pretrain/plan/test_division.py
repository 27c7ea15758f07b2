"""How workers share a step's rows: by hand, and for every number of workers up to a few hundred."""

import pytest

from pretrain.experiment import BatchConfig
from pretrain.plan.division import Division, divide

XL = BatchConfig(micro_batches=16, rows=8)
GPT = BatchConfig(micro_batches=128, rows=4)


@pytest.mark.parametrize(
    ("batch", "workers", "expected"),
    [
        (XL, 1, (16, 8, "as given")),
        (XL, 8, (16, 8, "as given")),
        (XL, 64, (64, 2, "other micro-batches")),
        (XL, 128, (128, 1, "other micro-batches")),
        (XL, 1024, (1024, 1, "larger batch")),  # 1,024 rows for 128
        (XL, 3, (129, 1, "larger batch")),  # 43 rows each, for 42.7
        (GPT, 128, (128, 4, "as given")),
        (GPT, 256, (256, 2, "other micro-batches")),
        (GPT, 384, (384, 2, "larger batch")),  # 2 rows each, for 1.3
        (GPT, 16384, (16384, 1, "larger batch")),
    ],
)
def test_by_hand(batch: BatchConfig, workers: int, expected: tuple[int, int, str]) -> None:
    assert divide(batch, workers) == Division(workers, *expected)


@pytest.mark.parametrize("batch", [XL, GPT, BatchConfig(micro_batches=6, rows=5), BatchConfig(micro_batches=1, rows=7)])
@pytest.mark.parametrize("fewest", [1, 2])
def test_every_number_of_workers_shares_equally(batch: BatchConfig, fewest: int) -> None:
    given = batch.micro_batches * batch.rows
    for workers in range(1, 300):
        found = divide(batch, workers, fewest_rows=fewest)
        in_all = found.micro_batches * found.rows
        assert found.micro_batches % workers == 0
        assert found.each == found.micro_batches // workers
        assert fewest <= found.rows <= batch.rows
        if found.kind == "as given":
            assert (found.micro_batches, found.rows) == (batch.micro_batches, batch.rows)
        elif found.kind == "other micro-batches":
            assert in_all == given
            assert batch.micro_batches % workers
        else:
            assert in_all >= given
            shares = [each for each in range(1, in_all // workers) if each * workers >= given]
            assert not any(divides(each, fewest, batch.rows) for each in shares), "fewer rows would have done"


def divides(number: int, least: int, most: int) -> bool:
    return any(number % rows == 0 for rows in range(least, most + 1))
