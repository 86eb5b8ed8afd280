import collections
import os

import device  # before all that makes an array
import mlx.core as mx
import pytest
from cases import LOSSES, Entry
from hypothesis import settings

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
    """Mark as full all but each k-th case of a test that says so.

    k has no divisor in common with the numbers of losses, dtypes and so on, so the cases that are
    left go through all of each.
    """
    counts: collections.Counter[str] = collections.Counter()
    for item in items:
        mark = item.get_closest_marker("every")
        if mark is not None:
            name = item.nodeid.split("[")[0]
            if counts[name] % mark.args[0]:
                item.add_marker("full")
            counts[name] += 1


@pytest.fixture(autouse=True)
def _seeded() -> None:
    mx.random.seed(0)


@pytest.fixture(params=LOSSES)
def entry(request: pytest.FixtureRequest) -> Entry:
    """Every loss in turn."""
    return request.param
