"""What the tests of attentions share."""

import secrets

import pytest
import torch


@pytest.fixture(autouse=True)
def fresh_seed() -> None:
    """Identities hold for any numbers: draw some that nobody has seen; pytest prints the seed when a test fails."""
    seed = secrets.randbits(31)
    print(f"torch.manual_seed({seed})")
    torch.manual_seed(seed)
