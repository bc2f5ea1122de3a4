import numpy as np
import pytest

from harness import registry
from harness.method import configure


@pytest.fixture(scope="session")
def make():
    """make("ties", density=0.5): a configured built-in method."""
    return lambda name, **settings: configure(registry.method(name), settings)


NAMES = (
    "model.embed_tokens.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.1.mlp.up_proj.weight",
    "model.norm.weight",
)
SHAPES = ((5, 3), (4, 3), (3,), (4, 3), (3,))


def drawn(seed, kind):
    """A model of 45 elements. `grid` has few values, so ties, exact cancellations and zeros abound."""
    rng = np.random.default_rng(seed)
    model = {}
    for name, shape in zip(NAMES, SHAPES, strict=True):
        values = rng.integers(-3, 4, shape) / 8 if kind == "grid" else rng.normal(0, 1, shape)
        if kind == "sparse":
            values = values * (rng.random(shape) < 0.5)
        model[name] = values.astype(np.float32)
    return model


def statistics(seed, kind):
    """A non-negative statistic with a whole tensor of zeros, as embeddings of unseen tokens have."""
    model = {name: np.abs(values) for name, values in drawn(seed, kind).items()}
    if seed % 3 == 0:
        model[NAMES[0]] = np.zeros_like(model[NAMES[0]])
    return model
