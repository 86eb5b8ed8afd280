"""A training script in PyTorch and its port to MLX: the same losses at each of 200 steps.

Two scripts in float32, from the same weights on the same batches: a box regressor with Adam, and a
regression with outliers with SGD, which unlike Adam feels the scale of the gradient. They differ by
rounding, which smooth models and modest rates keep from growing: to 5e-6, over 100 seeds of each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

import smoothloss as sl

torch = pytest.importorskip("torch")
F = torch.nn.functional
torch.set_num_threads(1)  # so that every run adds in the same order

TOLERANCE = 1e-4
STEPS, BATCHES, BATCH_SIZE = 200, 10, 32

Data = tuple[np.ndarray, np.ndarray]


class TorchBoxes(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.conv2 = torch.nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = torch.nn.Linear(16 * 7 * 7, 4)

    def forward(self, x: Any) -> Any:
        # No ReLU: where rounding flips one, the gradient jumps, and one run in twelve is 3e-3 off.
        x = F.silu(self.conv1(x))
        x = F.silu(self.conv2(x))
        return self.head(x.flatten(1))


class MLXBoxes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16 * 7 * 7, 4)

    def __call__(self, x: mx.array) -> mx.array:
        x = nn.silu(self.conv1(x))
        x = nn.silu(self.conv2(x))
        return self.head(x.transpose(0, 3, 1, 2).flatten(1))  # in the order of PyTorch's weights


def to_mlx(a: np.ndarray) -> mx.array:
    """Images, and the weights of convolutions, are NCHW in PyTorch and NHWC in MLX."""
    return mx.array(a.transpose(0, 2, 3, 1) if a.ndim == 4 else a)


def mlx_name(name: str) -> str:
    """The modules of a Sequential are themselves its attributes in PyTorch, a list in MLX."""
    return f"layers.{name}" if name[0].isdigit() else name


def train_torch(model: Any, optimizer: Any, criterion: Any, batches: list[Data]) -> np.ndarray:
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = criterion(model(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def train_mlx(model: Any, optimizer: Any, criterion: Any, batches: list[Data]) -> np.ndarray:
    optimizer.init(model.trainable_parameters())
    state = [model.state, optimizer.state]
    value_and_grad = nn.value_and_grad(model, lambda x, y: criterion(model(x), y))

    @partial(mx.compile, inputs=state, outputs=state)
    def step(x: mx.array, y: mx.array) -> mx.array:
        loss, gradients = value_and_grad(x, y)
        optimizer.update(model, gradients)
        return loss

    losses = []
    for x, y in batches:
        loss = step(to_mlx(x), to_mlx(y))
        mx.eval(loss, state)
        losses.append(loss.item())
    return np.array(losses)


def rectangles(rng: np.random.Generator, n: int) -> Data:
    """Noisy images of one rectangle, and its corners."""
    low = rng.uniform(0, 0.5, (n, 2))
    high = low + rng.uniform(0.2, 0.5, (n, 2))
    grid = (np.arange(28) + 0.5) / 28
    x, y = ((low[..., None] < grid) & (grid < high[..., None])).swapaxes(0, 1)
    image = y[:, None, :, None] & x[:, None, None, :]
    return image + rng.normal(0, 0.3, image.shape), np.concatenate([low, high], 1)


def outliers(rng: np.random.Generator, n: int) -> Data:
    """A curved surface under noise of infinite variance."""
    x = rng.normal(size=(n, 8))
    y = x @ rng.normal(size=(8, 1)) + x[:, :1] * x[:, 1:2]
    return x, y + 0.2 * rng.standard_t(2, (n, 1))


class Script(NamedTuple):
    data: Callable[[np.random.Generator, int], Data]
    beta: float
    torch_model: Any
    mlx_model: Any
    torch_optimizer: Any
    mlx_optimizer: Any


SCRIPTS = {
    "boxes": Script(
        rectangles,
        0.1,
        TorchBoxes,
        MLXBoxes,
        # Not 0.999: MLX takes 1 - 0.999^t in float32, 1e-5 off, and so would the losses be.
        lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.9, 0.99)),
        lambda: optim.Adam(1e-3, betas=[0.9, 0.99], bias_correction=True),
    ),
    "outliers": Script(
        outliers,
        0.5,
        lambda: torch.nn.Sequential(
            torch.nn.Linear(8, 64), torch.nn.SiLU(), torch.nn.Linear(64, 1)
        ),
        lambda: nn.Sequential(nn.Linear(8, 64), nn.SiLU(), nn.Linear(64, 1)),
        lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9),
        lambda: optim.SGD(0.03, momentum=0.9),
    ),
}


def train(
    script: Script, seed: int, torch_criterion: Any, mlx_criterion: Any, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both runs, from the same weights on the same batches."""
    rng = np.random.default_rng(seed)
    x, y = (a.astype(np.float32) for a in script.data(rng, BATCHES * BATCH_SIZE))
    epoch = list(zip(np.split(x, BATCHES), np.split(y, BATCHES), strict=True))
    batches = [epoch[i % BATCHES] for i in range(steps)]
    theirs, ours = script.torch_model(), script.mlx_model()
    state = theirs.state_dict()
    weights = {k: rng.normal(0, 0.1, w.shape).astype(np.float32) for k, w in state.items()}
    theirs.load_state_dict({k: torch.tensor(w) for k, w in weights.items()})
    ours.load_weights([(mlx_name(k), to_mlx(w)) for k, w in weights.items()])
    optimizer = script.torch_optimizer(theirs.parameters())
    want = train_torch(theirs, optimizer, torch_criterion, batches)
    return want, train_mlx(ours, script.mlx_optimizer(), mlx_criterion, batches)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_the_same_run(script: Script, seed: int) -> None:
    criterion, inside = torch.nn.SmoothL1Loss(beta=script.beta), []
    criterion.register_forward_hook(
        lambda _, xy, __: inside.append(((xy[0] - xy[1]).abs() < script.beta).float().mean())
    )
    want, got = train(script, seed, criterion, sl.SmoothL1Loss(beta=script.beta), STEPS)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE)
    # It learns, and residuals come in from beyond beta.
    assert want[-BATCHES:].mean() < want[:BATCHES].mean() / 4
    assert min(inside) < 0.25 and max(inside) > 0.75


def other_gradient(x: mx.array, y: mx.array, beta: float) -> mx.array:
    """The right loss, with the gradient of a beta that is 5 % off."""
    right, wrong = (sl.smooth_l1_loss(x, y, b) for b in (beta, 1.05 * beta))
    return wrong + mx.stop_gradient(right - wrong)


WRONG = {
    "beta": lambda x, y, beta: sl.smooth_l1_loss(x, y, 1.05 * beta),
    "sum": lambda x, y, beta: sl.smooth_l1_loss(x, y, beta, "sum"),
    "huber": lambda x, y, beta: sl.huber_loss(x, y, beta, "mean"),
    "gradient": other_gradient,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_wrong_loss_is_another_run(script: Script, wrong: Callable[..., mx.array]) -> None:
    criterion = torch.nn.SmoothL1Loss(beta=script.beta)
    want, got = train(script, 0, criterion, partial(wrong, beta=script.beta), 40)
    assert max(abs(got / want - 1)) > 10 * TOLERANCE
