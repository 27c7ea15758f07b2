"""Which weights ZeRO stage 3 gathers in a forward and backward, and how many are whole at a time.

As DeepSpeed 0.19.8 does it (`runtime/zero/partitioned_param_coordinator.py`) once it has seen in which order modules
run. Before each module, forward and backward, its weights are gathered, and ahead of time a bucket of those that follow
in that order. After it they are let go, unless their next use is less than REUSE_DISTANCE elements away, or the
gathering ahead has passed it. Small weights (`whole_below`) are whole always; those that no module uses in a forward of
its own (tied embeddings) from the beginning to the end.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pretrain.engines import DeepSpeedEngineConfig
from pretrain.engines.deepspeed import REUSE_DISTANCE

MOST_WHOLE = 1_000_000_000
"""Elements beyond which nothing is gathered ahead: DeepSpeed's default of `stage3_max_live_parameters`."""


@dataclass(frozen=True, slots=True)
class Gathering:
    """Elements of a model's weights."""

    gathered: int
    """In the forward and backward of one micro-batch."""
    most_whole: int
    """At one time, beside the small ones."""
    small: int
    """Gathered once, after the update."""


NOTHING = Gathering(0, 0, 0)

Calls = tuple[str, ...]
"""Modules by name, in the order in which their forwards begin."""


def gathering(sizes: dict[str, int], calls: Calls, engine: DeepSpeedEngineConfig) -> Gathering:
    """Of weights by name, in a model whose modules run in this order."""
    used = {name: [weight for weight in sizes if weight.rpartition(".")[0] == name] for name in calls if name}
    elsewhere = set(sizes).difference(*used.values())
    used[""] = [weight for weight in sizes if weight in elsewhere]
    order = [used[name] for name in _order(calls, recomputes=engine.activation_checkpointing)]
    small = {weight for weight, size in sizes.items() if size <= engine.whole_below}
    return _Coordinator(sizes, order, small, elsewhere, min(engine.bucket_size, sum(sizes.values()))).run()


def _order(calls: Calls, *, recomputes: bool) -> Iterator[str]:
    """The modules of a forward, then of its backward: every module before those in it, the last of them first."""
    yield from calls
    yield from _backward("", calls, recomputes=recomputes)


def _backward(name: str, calls: Calls, *, recomputes: bool) -> Iterator[str]:
    yield name
    inside = tuple(call for call in calls if call != name and (not name or call.startswith(f"{name}.")))
    if recomputes and name.rpartition(".")[0] == "blocks":
        yield from (name, *inside)
        recomputes = False
    children = [call for call in inside if not any(call.startswith(f"{other}.") for other in inside)]
    for child in reversed(children):
        yield from _backward(child, inside, recomputes=recomputes)


@dataclass(slots=True)
class _Coordinator:
    """Goes through the steps of one forward and backward."""

    sizes: dict[str, int]
    order: Sequence[Sequence[str]]
    """The weights that each step uses."""
    small: set[str]
    stay: set[str]
    """Once whole, to the end."""
    bucket: int
    whole: set[str] = field(default_factory=set)
    gathered: int = 0
    now_whole: int = 0
    most_whole: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    """Weight -> the step up to which its uses were looked at."""

    def run(self) -> Gathering:
        queue = deque((weight, step) for step, used in enumerate(self.order) for weight in used)
        begins = [0]
        for used in self.order:
            begins.append(begins[-1] + sum(self.sizes[weight] for weight in used))
        uses: dict[str, list[int]] = {}
        for weight, step in queue:
            uses.setdefault(weight, []).append(step)
        for step, used in enumerate(self.order):
            for weight in used:
                self._gather(weight)
            self._skip(queue, {weight for weight in used if self.seen.get(weight, -1) < step})
            self._gather_ahead(queue)
            for weight in used:
                following = next((use for use in uses[weight] if use > step), None)
                is_near = following is not None and begins[following] - begins[step + 1] < REUSE_DISTANCE
                if not is_near and self.seen[weight] <= step + 1:
                    self._let_go(weight)
        return Gathering(self.gathered, self.most_whole, sum(self.sizes[weight] for weight in self.small))

    def _skip(self, queue: deque[tuple[str, int]], wanted: set[str]) -> None:
        """The uses in hand need not be gathered ahead any more."""
        while queue and wanted:
            weight, step = queue.popleft()
            self.seen[weight] = step
            wanted.discard(weight)

    def _gather_ahead(self, queue: deque[tuple[str, int]]) -> None:
        most, ahead = min(MOST_WHOLE - self.now_whole, self.bucket), 0
        while queue and ahead < most:
            weight, step = queue.popleft()
            self.seen[weight] = max(self.seen.get(weight, -1), step)
            ahead += self._gather(weight)

    def _gather(self, weight: str) -> int:
        if weight in self.whole or weight in self.small:
            return 0
        size = self.sizes[weight]
        self.whole.add(weight)
        self.gathered += size
        self.now_whole += size
        self.most_whole = max(self.most_whole, self.now_whole)
        return size

    def _let_go(self, weight: str) -> None:
        if weight in self.whole and weight not in self.stay:
            self.whole.remove(weight)
            self.now_whole -= self.sizes[weight]
