"""Full and adaptive vocabularies as distributions; the adaptive one against its definition, token by token.

Shape legend: B rows, L positions, E embedding width, W model width, V vocabulary.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from data_pipeline.batch import IGNORED
from pretrain.layers.vocabulary import (
    AdaptiveVocabulary,
    AdaptiveVocabularyConfig,
    FullVocabulary,
    FullVocabularyConfig,
    Vocabulary,
)

VOCABULARY, WIDTH = 17, 6
ADAPTIVE = [
    pytest.param({"cutoffs": [5, 9], "div_val": 1, "embedding_width": 6}, id="equal widths"),
    pytest.param({"cutoffs": [5, 9], "div_val": 1, "embedding_width": 4}, id="narrow"),
    pytest.param({"cutoffs": [5, 9], "div_val": 2, "embedding_width": 6}, id="ever narrower"),
    pytest.param({"cutoffs": [5, 9], "div_val": 2, "embedding_width": 6, "tied": False}, id="untied"),
    pytest.param(
        {"cutoffs": [3, 4, 16], "div_val": 2, "embedding_width": 8, "tie_projections": "none"}, id="own projections"
    ),
    pytest.param(
        {"cutoffs": [1], "div_val": 3, "embedding_width": 6, "tie_projections": "all"}, id="shared projections"
    ),
]


def randomised(vocabulary: Any) -> Any:
    vocabulary.double()
    with torch.no_grad():
        for parameter in vocabulary.parameters():
            parameter.normal_()
    return vocabulary


def adaptive(**settings: Any) -> AdaptiveVocabulary:
    return randomised(AdaptiveVocabularyConfig(kind="adaptive", **settings).build(VOCABULARY, WIDTH))


def full(**settings: Any) -> FullVocabulary:
    return randomised(FullVocabularyConfig(**settings).build(VOCABULARY, WIDTH))


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)


def check_distribution(vocabulary: Vocabulary) -> None:
    """Probabilities sum to one, and the loss of a label is what the logits say of it."""
    hidden = torch.randn(4, 7, WIDTH, dtype=torch.float64)
    labels = torch.cat([torch.randint(VOCABULARY, (25,)), torch.tensor([4, 5, 9])]).view(4, 7)
    log_prob = vocabulary.logits(hidden).log_softmax(-1)
    assert_equal(vocabulary.nats(hidden, labels), -log_prob.gather(-1, labels[..., None])[..., 0])


@pytest.mark.parametrize("settings", ADAPTIVE)
def test_adaptive_nats_are_those_of_its_logits(settings: dict[str, Any]) -> None:
    vocabulary = adaptive(**settings)
    check_distribution(vocabulary)
    total = vocabulary.logits(torch.randn(5, WIDTH, dtype=torch.float64)).exp().sum(-1)
    assert_equal(total, torch.ones_like(total))


@pytest.mark.parametrize("tied", [True, False])
def test_full_nats_are_those_of_its_logits(tied: bool) -> None:
    check_distribution(full(tied=tied))


def by_definition(vocabulary: AdaptiveVocabulary, config: dict[str, Any], h_W: Tensor) -> Tensor:
    """[V] probabilities: the softmax over head tokens and clusters, times the softmax within a cluster."""
    edges = [0, *config["cutoffs"], VOCABULARY]
    tables = vocabulary.embeddings if config.get("tied", True) else vocabulary.outputs

    def narrow(cluster: int) -> Tensor:
        if vocabulary.projections is None:
            return h_W
        own = {"none": True, "all_but_first": cluster == 0, "all": False}[
            config.get("tie_projections", "all_but_first")
        ]
        return (vocabulary.output_projections if own else vocabulary.projections)[cluster].T @ h_W

    head = [tables[0][token] @ narrow(0) + vocabulary.bias[token] for token in range(edges[1])]
    head += [
        row @ narrow(0) + bias for row, bias in zip(vocabulary.cluster_weight, vocabulary.cluster_bias, strict=True)
    ]
    head_p = torch.stack(head).softmax(0)
    parts = [head_p[: edges[1]]]
    for cluster in range(1, len(edges) - 1):
        ids = range(edges[cluster], edges[cluster + 1])
        scores = [tables[cluster][i - ids.start] @ narrow(cluster) + vocabulary.bias[i] for i in ids]
        parts.append(head_p[edges[1] + cluster - 1] * torch.stack(scores).softmax(0))
    return torch.cat(parts)


@pytest.mark.parametrize("settings", ADAPTIVE)
def test_adaptive_probabilities_are_the_definition(settings: dict[str, Any]) -> None:
    vocabulary, h_W = adaptive(**settings), torch.randn(WIDTH, dtype=torch.float64)
    assert_equal(vocabulary.logits(h_W).exp(), by_definition(vocabulary, settings, h_W))


def test_a_token_in_the_wrong_cluster_fails() -> None:
    vocabulary = adaptive(**ADAPTIVE[2].values[0])
    vocabulary.starts = tuple(start + (start > 0) for start in vocabulary.starts)
    with pytest.raises((AssertionError, IndexError, RuntimeError, ValueError)):
        check_distribution(vocabulary)


@pytest.mark.parametrize("settings", ADAPTIVE)
def test_adaptive_embedding_is_a_row_of_its_clusters_table(settings: dict[str, Any]) -> None:
    vocabulary, edges = adaptive(**settings), [0, *settings["cutoffs"], VOCABULARY]
    tokens = torch.randperm(VOCABULARY).repeat(2)[: 2 * 15].view(2, 15)
    embedded = vocabulary.embed(tokens)
    for token, row_W in zip(tokens.flatten().tolist(), embedded.flatten(0, 1), strict=True):
        cluster = max(c for c in range(len(edges) - 1) if edges[c] <= token)
        row = vocabulary.embeddings[cluster][token - edges[cluster]]
        if vocabulary.projections is not None:
            row = vocabulary.projections[cluster] @ row
        assert_equal(row_W, row * math.sqrt(WIDTH))


@pytest.mark.parametrize("vocabulary", [adaptive(**ADAPTIVE[2].values[0]), full()], ids=["adaptive", "full"])
def test_ignored_labels_cost_nothing_and_give_no_gradient(vocabulary: Vocabulary) -> None:
    hidden = torch.randn(6, WIDTH, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2, IGNORED, 12, IGNORED, 7, 16])
    nats = vocabulary.nats(hidden, labels)
    kept = labels != IGNORED
    assert nats[~kept].tolist() == [0.0, 0.0]
    assert_equal(nats[kept], vocabulary.nats(hidden[kept], labels[kept]))
    (slope,) = torch.autograd.grad(nats.sum(), hidden)
    assert (slope.abs().amax(-1) > 0).tolist() == kept.tolist()
    assert vocabulary.nats(hidden, torch.full_like(labels, IGNORED)).tolist() == [0.0] * 6


def test_every_weight_gets_a_gradient_whatever_the_tokens() -> None:
    """So that no worker waits for a gradient that another has not got."""
    vocabulary = adaptive(**ADAPTIVE[3].values[0])
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    vocabulary.nats(vocabulary.embed(tokens), tokens).sum().backward()
    assert all(parameter.grad is not None for parameter in vocabulary.parameters())


def test_gradients_of_the_adaptive_loss() -> None:
    vocabulary, labels = adaptive(**ADAPTIVE[2].values[0]), torch.tensor([0, 16, IGNORED, 5])
    hidden = torch.randn(4, WIDTH, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: vocabulary.nats(h, labels), (hidden,))
    token = torch.tensor([3, 8, 11, 3])
    weights = [vocabulary.embeddings[1], vocabulary.projections[2], vocabulary.bias, vocabulary.cluster_weight]

    def loss(*_: Tensor) -> Tensor:
        return vocabulary.nats(vocabulary.embed(token).tanh(), labels)

    assert torch.autograd.gradcheck(loss, tuple(weights))


def test_tied_weights_are_one_parameter() -> None:
    sizes = {tied: sum(p.numel() for p in full(tied=tied).parameters()) for tied in (True, False)}
    assert sizes[False] - sizes[True] == VOCABULARY * WIDTH
    base = {"cutoffs": [5, 9], "div_val": 2, "embedding_width": 6}
    counts = {
        ties: sum(p.numel() for p in adaptive(**base, tie_projections=ties).parameters())
        for ties in ("all", "all_but_first", "none")
    }
    assert counts["all_but_first"] - counts["all"] == WIDTH * 6
    assert counts["none"] - counts["all"] == WIDTH * (6 + 3 + 1)


def test_low_precision_logits_are_float32() -> None:
    for vocabulary in (adaptive(**ADAPTIVE[2].values[0]), full()):
        vocabulary.bfloat16()
        hidden = vocabulary.embed(torch.tensor([[1, 8, 15]]))
        assert hidden.dtype == torch.bfloat16
        assert vocabulary.logits(hidden).dtype == torch.float32
        assert vocabulary.nats(hidden, torch.tensor([[8, IGNORED, 2]])).dtype == torch.float32


def with_gradients(vocabulary: AdaptiveVocabulary, hidden: Tensor, labels: Tensor) -> list[Tensor]:
    """Nats, embeddings, and the gradients of both by every weight and by the hidden states."""
    leaf = hidden.detach().requires_grad_()
    nats, embedded = vocabulary.nats(leaf, labels), vocabulary.embed(labels.clamp(min=0))
    weights = torch.linspace(0.5, 1.5, labels.numel(), dtype=hidden.dtype, device=hidden.device).view(labels.shape)
    total = (nats * weights).sum() + (embedded * weights[..., None]).square().sum()
    return [nats, embedded, *torch.autograd.grad(total, [leaf, *vocabulary.parameters()])]


@pytest.mark.parametrize("settings", ADAPTIVE)
def test_routing_without_counts_is_the_same(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary, hidden = adaptive(**settings), torch.randn(3, 8, WIDTH, dtype=torch.float64)
    labels = torch.randint(VOCABULARY, (3, 8))
    labels[0, ::3] = IGNORED
    for given in (labels, torch.zeros_like(labels)):  # all clusters, or the first alone
        counted = with_gradients(vocabulary, hidden, given)
        with monkeypatch.context() as patch:
            patch.setattr(AdaptiveVocabulary, "_counts", lambda *_: False)
            masked = with_gradients(vocabulary, hidden, given)
        for one, other in zip(masked, counted, strict=True):
            assert_equal(one, other)


def test_routing_without_counts_runs_on_the_fused_kernel() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vocabulary, labels = adaptive(**ADAPTIVE[2].values[0]).float().to(device), torch.randint(VOCABULARY, (2, 9))
    hidden, labels = torch.randn(2, 9, WIDTH, device=device), labels.to(device)
    vocabulary.impl = "reference"
    expected = with_gradients(vocabulary, hidden, labels)
    vocabulary.impl = "triton"
    for one, other in zip(with_gradients(vocabulary, hidden, labels), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_routing_without_counts_reads_no_number_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without data show it: whoever waits for a count has none to read."""
    vocabulary = adaptive(**ADAPTIVE[2].values[0]).to("meta")
    hidden = torch.empty(2, 9, WIDTH, dtype=torch.float64, device="meta", requires_grad=True)
    labels = torch.empty(2, 9, dtype=torch.int64, device="meta")
    total = vocabulary.nats(hidden, labels).sum() + vocabulary.embed(labels).sum()
    assert all(g.is_meta for g in torch.autograd.grad(total, [hidden, *vocabulary.parameters()]))
    monkeypatch.setattr(AdaptiveVocabulary, "_counts", lambda *_: True)
    with pytest.raises((RuntimeError, NotImplementedError)):
        vocabulary.nats(hidden, labels)
