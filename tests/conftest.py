import collections

import mlx.core as mx
import pytest
from cases import LOSSES, Entry
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
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
