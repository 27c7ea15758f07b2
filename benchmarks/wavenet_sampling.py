"""What a WaveNet's cache saves in sampling: one step of each layer a sample against the whole forward for each sample.

    python -m benchmarks.wavenet_sampling

20 layers (dilations 1 to 512, twice: van den Oord et al. 2016, https://arxiv.org/abs/1609.03499), one wave, one thread,
one process, float64, the same random weights; processor seconds for waves of 1,000, 4,000 and 16,000 samples:

    ours        each layer's last inputs are kept, and a sample computes one step of each
    (a) whole   for every sample, the forward over all samples before it (what a model without a cache does)
    (b) field   for every sample, the forward over the 2,047 samples that it depends on, or as many as there are

Ours is measured whole. (a) and (b) take minutes to hours, so they are EXTRAPOLATED: one forward is timed at several
lengths (the least of five timings, which favours them on a machine that others use too), the cost of a length between
two of them is taken to lie on the line between theirs, and the sum over all samples is the cost of the wave. (a) is
also run in full over the first `WHOLE` samples, and printed beside what the same pieces say of those.

Results are the same if, at samples spread over each wave, the parameters of the cached step differ from those of the
full forward over the samples before by rounding alone.
"""

import time
from bisect import bisect_left

import torch
from torch import Tensor

from benchmarks.table import Figure, conclude
from pretrain.models.autoregressive.wavenet import WaveNet, WaveNetConfig

LENGTHS = (1_000, 4_000, 16_000)
MEASURED = (1, 100, 300, 600, 1_000, 1_500, 2_047, 4_000, 8_000, 16_000)
"""Lengths at which one forward is timed."""
REPEATS = 5
WHOLE = 300
GOAL = 50.0
"""Times faster than (a), at 4,000 samples."""
ROUNDING = 1e-12
DILATIONS = tuple(2**power for power in range(10)) * 2


def build(length: int) -> WaveNet:
    torch.manual_seed(0)
    config = WaveNetConfig(
        kind="wavenet", length_of_wave=length, residual_features=32, skip_features=64, dilations=DILATIONS
    )
    return config.build().double().eval()


def seconds_of_forwards(model: WaveNet) -> dict[int, float]:
    """The least seconds of one forward that gives the last sample's distribution, by length."""
    x_1T, found = torch.rand(1, max(MEASURED), dtype=torch.float64), {}
    for length in MEASURED:
        timings = []
        for _ in range(REPEATS):
            begun = time.process_time()
            model.parameters_of(x_1T[:, :length], None)
            timings.append(time.process_time() - begun)
        found[length] = min(timings)
    return found


def between(found: dict[int, float], length: int) -> float:
    """Seconds of a forward of this length, on the line between its measured neighbours."""
    if length in found:
        return found[length]
    above = bisect_left(MEASURED, length)
    low, high = MEASURED[above - 1], MEASURED[above]
    return found[low] + (found[high] - found[low]) * (length - low) / (high - low)


def extrapolated(found: dict[int, float], length: int, most: int) -> float:
    """Seconds of a wave whose every sample takes a forward over at most so many samples."""
    return sum(between(found, min(t, most)) for t in range(1, length + 1))


def sampled(model: WaveNet) -> tuple[Tensor, float]:
    """A wave by the cache, and its seconds."""
    begun = time.process_time()
    wave_1T = model.sample(1)
    return wave_1T, time.process_time() - begun


def sampled_without_cache(model: WaveNet, length: int) -> float:
    """Seconds of (a), run in full."""
    begun = time.process_time()
    x_1T = torch.zeros(1, length, dtype=torch.float64)
    for t in range(length):
        x_1T[:, t] = model.draw_one(model.parameters_of(x_1T[:, : t + 1], None)[:, -1])
    return time.process_time() - begun


def difference(model: WaveNet, wave_1T: Tensor) -> float:
    """The largest between the parameters of cached steps and of full forwards, at ten samples."""
    length = wave_1T.shape[1]
    places = {length * part // 10 for part in range(10)} | {length - 1}
    cache, before_NF, worst = model.cache(1, None), None, 0.0
    for t in range(length):
        cached_1P = model.head(cache.advance(before_NF))
        if t in places:
            full_1P = model.parameters_of(wave_1T[:, : t + 1], None)[:, -1]
            worst = max(worst, float((cached_1P - full_1P).abs().max()))
        before_NF = model.step_input(wave_1T[:, t])
    return worst


@torch.no_grad()
def main() -> None:
    """All lengths, the shortest first."""
    torch.set_num_threads(1)
    found = seconds_of_forwards(build(max(LENGTHS)))
    worst, figures = 0.0, []
    full = sampled_without_cache(build(WHOLE), WHOLE)
    notes = [
        f"(a) in full over {WHOLE} samples {full:.2f} s, extrapolated {extrapolated(found, WHOLE, WHOLE):.2f} s",
        f"{'samples':>8} {'ours s':>8} {'ms/sample':>10} {'(a) whole s':>12} {'faster':>9} {'(b) field s':>12} "
        f"{'faster':>9} {'difference':>11}",
    ]
    for length in LENGTHS:
        model = build(length)
        wave_1T, ours = sampled(model)
        apart = difference(model, wave_1T)
        worst = max(worst, apart)
        whole = extrapolated(found, length, length)
        field = extrapolated(found, length, model.config.receptive_field)
        notes.append(
            f"{length:8,} {ours:8.2f} {1e3 * ours / length:10.3f} {whole:12,.1f} {whole / ours:8,.1f}x {field:12,.1f} "
            f"{field / ours:8,.1f}x {apart:11.1e}"
        )
        print(notes[-1], flush=True)
        if length == 4_000:
            figures.append(Figure("ours / (a) whole at 4,000 samples", ours / whole, 1 / GOAL))
    conclude("wavenet_sampling", figures, same=worst < ROUNDING, notes=notes)


if __name__ == "__main__":
    main()
