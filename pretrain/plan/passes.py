"""One forward and backward of a micro-batch without numbers.

The model is built of fake tensors (shape and dtype, no storage) and run. The batch is real, since models branch on it;
its tokens follow Zipf's law, as adaptive softmaxes need less for rare tokens.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from data_pipeline.batch import Batch, PairBatch, TokenBatch, VectorBatch
from kernels.dry_run import LAUNCHING, dry_run
from pretrain.contract import Model
from pretrain.engines.engine import DTYPES, enable_activation_checkpointing, freeze_others
from pretrain.experiment import Experiment
from pretrain.kernels_config import UsesKernel
from pretrain.models import ModelConfig, Seq2SeqConfig
from pretrain.models.vectors import VectorModelConfig
from pretrain.plan.gathering import Calls
from pretrain.plan.ledger import Held, Ledger, Pass

TYPICAL_LENGTH = 32
"""Of sources and targets, whose configuration gives no length: a guess, on which count, operations and activations
depend."""

FEW_BLOCKS = (2, 3, 4)
"""Of a model of more than twice as many blocks as the last of these so many are run (the first of them only where the
others do not tell), and the others continued from them: in less time, and with the same result."""


class Passes:
    """Those of one model, made when they are asked for."""

    def __init__(self, model: Model, config: ModelConfig, *, on_gpu: bool = False) -> None:
        self.model, self.config = model, config
        self.running = dry_run if on_gpu else nullcontext
        blocks = blocks_of(model)
        self.blocks = blocks if blocks is not None and len(blocks) > 2 * FEW_BLOCKS[-1] else None
        self.elements = sum(weight.numel() for weight in self.blocks[0].parameters()) if self.blocks else 0
        """Of a block."""
        self.are_alike: dict[str, bool] = {}
        """By player, once looked at: whether a pass of more blocks follows from those of few."""
        self.block: dict[str, Block] = {}
        """By player: what a block adds, where one pass tells that."""

    def of(self, rows: int, player: str) -> Pass:
        """What `trace` finds."""
        with self.running():
            return self._of(rows, player)

    def _of(self, rows: int, player: str) -> Pass:
        if self.blocks is None or self.are_alike.get(player) is False:
            return trace(self.model, self.config, rows, player)
        few, more, most = FEW_BLOCKS
        found = self._of_few(more, rows, player)
        block = self.block[player].within(found) if player in self.block else None
        if block is None and player not in self.are_alike:
            longer = self._of_few(most, rows, player)
            block = block_between(found, longer, self.elements).one_earlier()
            if block == block.within(longer) == block.within(found):
                self.block[player] = block
            else:
                block = block_between(self._of_few(few, rows, player), found, self.elements)
            self.are_alike[player] = continued(found, block, blocks=1) == longer
        elif block is None:
            block = block_between(self._of_few(few, rows, player), found, self.elements)
        if not self.are_alike[player]:
            return trace(self.model, self.config, rows, player)
        return continued(found, block, blocks=len(self.blocks) - more)

    def calls(self) -> Calls:
        """The modules of a forward; of blocks the first one alone is run."""
        with self.running():
            if self.blocks is None:
                return self._calls()
            self.model.blocks = self.blocks[:1]
            try:
                found = self._calls()
            finally:
                self.model.blocks = self.blocks
        of_block = [name.removeprefix("blocks.0") for name in found if f"{name}.".startswith("blocks.0.")]
        begins = found.index("blocks.0")
        every = [f"blocks.{number}{name}" for number in range(len(self.blocks)) for name in of_block]
        return (*found[:begins], *every, *found[begins + len(of_block) :])

    def _calls(self) -> Calls:
        found: list[str] = []
        with ExitStack() as stack:
            for name, module in self.model.named_modules():
                stack.callback(module.register_forward_pre_hook(_noting(found, name)).remove)
            stack.enter_context(torch.random.fork_rng())
            stack.enter_context(torch.no_grad())
            batch, carry = typical_batch(self.config, 1), self.model.initial_carry(1)
            self.model(batch, carry, player=self.model.players[0], step=0)
        return tuple(found)

    def _of_few(self, blocks: int, rows: int, player: str) -> Pass:
        """Of the model's first blocks alone."""
        assert self.blocks is not None
        self.model.blocks = self.blocks[:blocks]
        try:
            return trace(self.model, self.config, rows, player)
        finally:
            self.model.blocks = self.blocks


def _noting(found: list[str], name: str) -> Callable[[nn.Module, Any], None]:
    return lambda module, arguments: found.append(name)


@dataclass(frozen=True, slots=True)
class Block:
    """What one block more adds to a pass."""

    kept: int
    """Bytes that forward keeps for its backward."""
    late: int
    """Bytes by which the fullest moment of forward grows, from the second block on."""
    elements: int
    ends: int
    """Moments of backward up to where passes of more and fewer blocks are alike no more."""
    moments: int
    """Of backward, of one block."""

    def one_earlier(self) -> "Block":
        """As between two passes of one block less each."""
        return replace(self, ends=self.ends - self.moments)

    def within(self, found: Pass) -> "Block | None":
        """The block of another pass of as many blocks, of which only the bytes differ; None where it does not tell.

        It tells them by two blocks that follow each other: the one that is later in backward holds less by what it
        keeps, and from the second block on forward is fullest in the last one or after it, so that it grows by that.
        """
        one = found.backward[max(self.ends - self.moments, 0) : self.ends]
        next_one = found.backward[self.ends : self.ends + self.moments]
        if not len(one) == len(next_one) == self.moments:
            return None
        kept = {a.total - b.total for a, b in zip(one, next_one, strict=True)}
        grown = {b.complete - a.complete for a, b in zip(one, next_one, strict=True)}
        if self.late != self.kept or len(kept) != 1 or grown != {self.elements}:
            return None
        return replace(self, kept=min(kept), late=min(kept))


def block_between(less: Pass, more: Pass, elements: int) -> Block:
    """The block, of so many elements, that `more` has and `less` has not."""
    kept = more.kept - less.kept
    pairs = enumerate(zip(less.backward, more.backward, strict=False))
    ends = next((moment for moment, (a, b) in pairs if _shift(a, kept, 0) != b), 0)
    return Block(kept, more.late - less.late, elements, ends, len(more.backward) - len(less.backward))


def continued(found: Pass, block: Block, *, blocks: int) -> Pass:
    """The pass of a model with so many blocks more.

    In backward each block holds less by what it keeps than the one that follows it in the model, and by then the
    gradients of that one are complete.
    """
    kept, ends = block.kept, block.ends
    one = found.backward[max(ends - block.moments, 0) : ends]
    backward = [_shift(held, blocks * kept, 0) for held in found.backward[:ends]]
    for number in range(1, blocks + 1):
        backward += [_shift(held, (blocks - number) * kept, number * block.elements) for held in one]
    backward += [_shift(held, 0, blocks * block.elements) for held in found.backward[ends:]]
    return Pass(found.kept + blocks * kept, found.early, found.late + blocks * block.late, tuple(backward))


def _shift(held: Held, total: int, complete: int) -> Held:
    return Held(held.total + total, held.complete + complete)


def trace(model: Model, config: ModelConfig, rows: int, player: str) -> Pass:
    """The pass of one micro-batch of so many rows; the same for a fake model as for a real one."""
    model.train()
    freeze_others(model, player)
    ledger = Ledger(next((weight.fake_mode for weight in model.parameters() if isinstance(weight, FakeTensor)), None))
    with ExitStack() as stack:
        for weight in model.parameters():
            if weight.requires_grad:
                stack.callback(weight.register_post_accumulate_grad_hook(ledger.complete_gradient).remove)
        stack.enter_context(torch.random.fork_rng())
        torch.manual_seed(0)
        batch, carry = typical_batch(config, rows), model.initial_carry(rows)
        ledger.leave_out([*model.parameters(), *model.buffers(), *(carry or {}).values()])
        ledger.enter(batch_tensors(batch))
        stack.enter_context(ledger)
        early: list[int] = []
        blocks = blocks_of(model)
        if blocks is not None and len(blocks) > 1:
            begins = blocks[1].register_forward_pre_hook(
                lambda *_: early.append(ledger.restart()) if not early else None
            )
            stack.callback(begins.remove)
        with saved_tensors_hooks(ledger.save, lambda tensor: tensor):
            loss = model(batch, carry, player=player, step=0)
        late = ledger.restart() - ledger.leave_out((loss.carry or {}).values())
        kept = ledger.saved_bytes()
        ledger.restart()
        loss.total.backward()
    backward = tuple(Held(total, complete) for complete, total in ledger.most.items())
    return Pass(kept, early[0] if early else 0, late, backward)


def blocks_of(model: Model) -> nn.ModuleList | None:
    """The blocks of a model that has some, one after the other."""
    blocks = getattr(model, "blocks", None)
    return blocks if isinstance(blocks, nn.ModuleList) else None


def fake_model(experiment: Experiment, *, on_gpu: bool = False) -> Model:
    """The experiment's model in its precision, without storage; `on_gpu`: told to use the kernels that it would use on
    a GPU, and to be run under `dry_run`."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = experiment.model.build()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(DTYPES[experiment.engine.precision])
    if experiment.engine.activation_checkpointing:
        enable_activation_checkpointing(model)
    for module in model.modules() if on_gpu else ():
        kernel = getattr(module, "kernel", None)
        if kernel in LAUNCHING and isinstance(module, UsesKernel) and module.kernel_unsupported() is None:
            module.impl = "reference" if experiment.kernels.of(kernel) == "reference" else "triton"
    return model


def typical_batch(config: ModelConfig, rows: int) -> Batch:
    """A micro-batch as the model reads it, with made-up contents from torch's default generator."""
    ids_R = torch.zeros(rows, dtype=torch.int64)
    if isinstance(config, VectorModelConfig):
        return VectorBatch(torch.rand(rows, math.prod(config.shape)).round(), ids_R, ids_R)
    if isinstance(config, Seq2SeqConfig):
        tokens_RL = torch.randint(config.vocab_size, (rows, TYPICAL_LENGTH))
        return PairBatch(tokens_RL, ids_R + TYPICAL_LENGTH, tokens_RL.clone(), tokens_RL.clone(), ids_R.clone())
    length = config.length or 1
    tokens_RL = (config.vocab_size ** torch.rand(rows, length + 1)).long() - 1
    age_RL = torch.arange(length).expand(rows, -1)
    return TokenBatch(tokens_RL[:, :-1].contiguous(), tokens_RL[:, 1:].contiguous(), age_RL, ids_R)


def batch_tensors(batch: Batch) -> list[Tensor]:
    return [getattr(batch, field.name) for field in fields(batch)]
