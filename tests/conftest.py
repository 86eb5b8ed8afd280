import collections
import os

import device  # before all that makes an array
import mlx.core as mx
import pytest
from cases import LOSSES, Entry
from hypothesis import settings

# Of mlx.nn.losses: what most programs call.
SHARED = {"l1_loss", "mse_loss", "smooth_l1_loss", "huber_loss", "log_cosh_loss"}

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_sessionstart() -> None:
    """No failure where an emulation can't be had, but one in CI, which promises the run."""
    if device.IMPOSSIBLE:
        pytest.exit(device.IMPOSSIBLE, returncode=int("CI" in os.environ))


def pytest_report_header() -> str:
    return f"device: {device.DESCRIPTION}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    thin_out(items)
    config.hook.pytest_deselected(items=[item for item in items if not runs_here(item)])
    items[:] = filter(runs_here, items)


def runs_here(item: pytest.Item) -> bool:
    """Whether the device has what a case needs."""
    marked = lambda name: item.get_closest_marker(name) is not None
    callspec = getattr(item, "callspec", None)
    parameters = callspec.params.values() if callspec else ()
    dtypes = [v for v in parameters if isinstance(v, mx.Dtype)]
    wide = mx.float64 in dtypes or marked("float64")
    return not (
        (wide and not device.FLOAT64)
        or (marked("cpu") and not device.CPU)
        or (marked("large_sums") and device.NAME == "emulated-gpu")
    )


def thin_out(items: list[pytest.Item]) -> None:
    """Mark as full what `make test` leaves out.

    Of a test that says so, all but each k-th case. Of the others that go over the losses, four of
    five cases, but of the losses that MLX has too, none. k and 5 have no divisor in common with the
    numbers of losses, dtypes and so on, so the tests go through all of each.
    """
    counts: collections.Counter[str] = collections.Counter()
    for item in items:
        name, mark = item.nodeid.split("[")[0], item.get_closest_marker("every")
        callspec = getattr(item, "callspec", None)
        loss = callspec.params.get("entry") if callspec else None
        if mark is not None:
            full = counts[name] % mark.args[0]
        elif isinstance(loss, Entry) and loss.name not in SHARED:
            full = (counts[name] + len(name)) % 5 > 0  # others in each test
        else:
            continue
        counts[name] += 1
        if full:
            item.add_marker("full")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    mx.random.seed(0)


@pytest.fixture(params=LOSSES)
def entry(request: pytest.FixtureRequest) -> Entry:
    """Every loss in turn."""
    return request.param
