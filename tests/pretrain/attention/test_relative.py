"""The layer against the original formulation, which projects queries, keys and values of memory and segment at once.

Shape legend: B rows, L queries, M memory, K = M + L keys, W model width, I = HD.
"""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kernels.relative_attention import relative_attention
from pretrain.attention.relative import sinusoids
from pretrain.models import TransformerXLConfig
from pretrain.models.autoregressive.transformer_xl import Block

B, L, M, W, H, D = 2, 5, 7, 12, 3, 4
I = H * D  # noqa: E741
WINDOW_BL = (torch.arange(L) + M).expand(B, L).contiguous()


def block(norm: str, memory_of: str = "hidden_states") -> Block:
    config = TransformerXLConfig.model_validate({
        "kind": "transformer_xl", "vocab_size": 5, "num_layers": 1, "width": W, "num_heads": H, "head_width": D,
        "inner_width": 16, "segment_length": L, "memory_length": M, "norm": norm, "memory_of": memory_of,
        "share_biases": False,
    })  # fmt: skip
    made = Block(config).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return made


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    h_BLW, memory_BMW = (torch.randn(B, n, W, dtype=torch.float64) for n in (L, M))
    return h_BLW.requires_grad_(), memory_BMW, sinusoids(M + L, W, like=memory_BMW)


def originally(made: Block, h_BLW: Tensor, memory_BMW: Tensor, r_TW: Tensor) -> Tensor:
    """One product makes queries, keys and values of all K positions (Dai et al. 2019, released code: `qkv_net`)."""
    attention = made.attention
    context_BKW = torch.cat([memory_BMW, h_BLW], dim=1)
    if made.pre:
        context_BKW = made.attention_norm(context_BKW)
    weight = torch.cat([attention.query.weight, attention.key_value.weight])
    q, k, v = (context_BKW @ weight.T).unflatten(-1, (3, H, D)).unbind(2)
    r_THD = attention.distance(r_TW).unflatten(-1, (H, D))
    biases = made.biases
    assert biases is not None
    read = relative_attention(q[:, M:], k, v, r_THD, biases.u_HD, biases.w_HD, window_BL=WINDOW_BL, impl="reference")
    h_BLW = h_BLW + attention.output(read.flatten(2))
    if made.pre:
        return h_BLW + made.feed_forward(made.feed_forward_norm(h_BLW))
    h_BLW = made.attention_norm(h_BLW)
    return made.feed_forward_norm(h_BLW + made.feed_forward(h_BLW))


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_all_gradients_are_those_of_the_original(norm: str) -> None:
    """Those of memory's keys and values flow into the projections; without them the test fails."""
    made = block(norm)
    h_BLW, memory_BMW, r_TW = inputs()
    gradient_BLW = torch.randn(B, L, W, dtype=torch.float64)
    leaves = [h_BLW, *made.parameters()]
    ours, _ = made(h_BLW, memory_BMW, r_TW, None, WINDOW_BL)
    theirs = originally(made, h_BLW, memory_BMW, r_TW)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    found, wanted = (torch.autograd.grad(y, leaves, gradient_BLW) for y in (ours, theirs))
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-11)
    made.keeps_states = False  # what is wrong without the gradient of memory
    with torch.no_grad():
        normalised_BMW = made.attention_norm(memory_BMW) if made.pre else memory_BMW
        cached_BMI = made.attention.keys_and_values(normalised_BMW)
    same, _ = made(h_BLW, cached_BMI, r_TW, None, WINDOW_BL)
    torch.testing.assert_close(same, ours, rtol=0, atol=1e-12)
    weight = made.attention.key_value.weight
    (without,) = torch.autograd.grad(same, weight, gradient_BLW)
    (faithful,) = torch.autograd.grad(originally(made, h_BLW, memory_BMW, r_TW), weight, gradient_BLW)
    assert (without - faithful).norm() > 0.05 * faithful.norm()


def test_no_gradient_by_memory_is_formed() -> None:
    """All products are counted: memory has those by its weights, the segment those by its hidden states as well."""
    made = block("post")
    h_BLW, memory_BMW, r_TW = inputs()

    def flops(memory: Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            made(h_BLW, memory, r_TW, None, WINDOW_BL)[0].sum().backward()
        return int(counter.get_total_flops())

    by_memory = 2 * B * M * W * 2 * I
    assert flops(memory_BMW.clone().requires_grad_()) - flops(memory_BMW) == by_memory
