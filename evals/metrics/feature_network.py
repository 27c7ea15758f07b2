"""A feature network that needs no download, for distances between sets of images.

Two kinds, of the same shape:

- *trained* on the labelled reference data: it sees what tells the classes apart and hardly sees noise that leaves an
  image readable. Take it wherever there are labels.
- *random*, its weights drawn by a seed: it sees pixels and their neighbourhoods. For data without labels.

On scikit-learn's digits the trained one finds the loss of half of the classes worse than noise of 0.3, the random one
(and the pixels themselves) the other way round; the tests hold this. Numbers of different networks cannot be
compared, hence `fingerprint` belongs to every protocol. The bits of a trained network are those of one machine and
number of threads: `save` it, and `load` it elsewhere.

Shape legend: R images of a batch, N all, C channels, H height, W width, F features.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.config import BadInput
from evals.metrics.batches import Rows, in_blocks
from pretrain.rng import seed_at

BLOCK = 256
"""Images in a forward pass: fixed, so that features do not depend on how images were batched."""


class FeatureNetwork(nn.Module):
    """Two convolutions, the second of stride 2, averaged over 2 x 2 regions, and a dense layer; ReLU after each."""

    def __init__(self, channels: int, *, width: int = 32, num_features: int = 64) -> None:
        super().__init__()
        self.channels = channels
        self.near = nn.Conv2d(channels, width, 3, padding=1)
        self.far = nn.Conv2d(width, 2 * width, 3, padding=1, stride=2)
        self.dense = nn.Linear(8 * width, num_features)

    def forward(self, images_RCHW: Tensor) -> Tensor:
        """[R, F]"""
        hidden = F.relu(self.far(F.relu(self.near(images_RCHW))))
        return F.relu(self.dense(F.adaptive_avg_pool2d(hidden, 2).flatten(1)))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names, shapes and bytes of all weights."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.state_dict().items()):
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        save_file(self.state_dict(), path)


def load_feature_network(path: Path) -> FeatureNetwork:
    """As saved; sizes are read from the weights."""
    weights = load_file(path)
    width, channels = weights["near.weight"].shape[:2]
    network = FeatureNetwork(channels, width=width, num_features=len(weights["dense.bias"]))
    network.load_state_dict(weights)
    return network.eval()


def random_feature_network(channels: int, *, seed: int) -> FeatureNetwork:
    """Weights by seed; torch's default generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_at(seed, "feature network"))
        return FeatureNetwork(channels).eval()


def train_feature_network(
    images_NCHW: Tensor, labels_N: Tensor, *, seed: int, epochs: int = 30, rows: int = 64, learning_rate: float = 1e-3
) -> FeatureNetwork:
    """Trained as a classifier by Adam on cross-entropy, in float32 on the CPU; the classifying layer is dropped.

    Take the *training* split: samples and held-out data must be new to it alike.
    """
    _check(images_NCHW, labels_N)
    images_NCHW = images_NCHW.detach().to("cpu", torch.float32)
    network = random_feature_network(images_NCHW.shape[1], seed=seed)
    generator = torch.Generator().manual_seed(seed_at(seed, "order of the feature network's images"))
    classes = int(labels_N.max()) + 1
    head = torch.zeros(classes, network.dense.out_features, requires_grad=True)
    optimizer = torch.optim.Adam([*network.parameters(), head], lr=learning_rate)
    with torch.enable_grad():
        for _ in range(epochs):
            for chosen_R in torch.randperm(len(images_NCHW), generator=generator).split(rows):
                loss = F.cross_entropy(network(images_NCHW[chosen_R]) @ head.T, labels_N[chosen_R])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return network.requires_grad_(False)


def _check(images_NCHW: Tensor, labels_N: Tensor) -> None:
    if images_NCHW.ndim != 4 or labels_N.shape != images_NCHW.shape[:1] or len(labels_N) == 0:
        shapes = f"{tuple(images_NCHW.shape)} and {tuple(labels_N.shape)}"
        raise BadInput(f"images and labels have shapes {shapes}; must be [N, C, H, W] and [N], N at least 1")
    if labels_N.dtype != torch.int64 or int(labels_N.min()) < 0:
        raise BadInput(f"labels are {labels_N.dtype}, from {labels_N.min()}; must be int64 and not negative")


@torch.no_grad()
def features_of(network: FeatureNetwork, images: Rows) -> Iterator[Tensor]:
    """Features [R, F] of images [N, C, H, W] (or batches), block by block."""
    weight = network.near.weight
    for images_RCHW in in_blocks(images, BLOCK):
        if images_RCHW.ndim != 4 or images_RCHW.shape[1] != network.channels:
            rule = f"must be [rows, {network.channels}, height, width]"
            raise BadInput(f"images have shape {tuple(images_RCHW.shape)}; for this feature network they {rule}")
        yield network(images_RCHW.to(weight.device, weight.dtype))
