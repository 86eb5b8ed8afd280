"""The switch ``exportable()``, and losses of one's own inside."""

import asyncio
import threading

import mlx.core as mx
import pytest
from cases import BY_NAME, exports, nested

import smoothloss as sl


def fair(**given: object) -> sl.Loss:
    c = sl.Threshold("c", default=1.0, open_low=True)
    return sl.Loss(
        "fair_loss",
        lambda r, c: c * mx.abs(r) - c * c * mx.log1p(mx.abs(r) / c),
        thresholds=[c],
        **given,  # type: ignore[arg-type]
    )


psi = lambda r, c: r / (1 + mx.abs(r) / c)
psi_prime = lambda r, c: 1 / mx.square(1 + mx.abs(r) / c)
by_c = lambda r, c: mx.abs(r) - 2 * c * mx.log1p(mx.abs(r) / c) + mx.abs(r) / (1 + mx.abs(r) / c)
psi_c = lambda r, c: r * mx.abs(r) / mx.square(c + mx.abs(r))
OWN = {
    "rho alone": {},
    "psi": {"psi": psi},
    "psi and its slope": {"psi": psi, "psi_prime": psi_prime},
    "first derivatives": {"psi": psi, "partials": {"c": by_c}},
    "mixed": {"psi": psi, "psi_prime": psi_prime, "partials": {"c": by_c, ("r", "c"): psi_c}},
    "threshold alone": {"partials": {"c": by_c}},
}


@pytest.mark.parametrize("given", OWN)
def test_own_losses(given: str) -> None:
    """With as many derivatives as you like to give: MLX takes the others."""
    own, whole = fair(**OWN[given]), fair(**OWN["mixed"])
    r, y, c = mx.array([0.3, -2.0, 5.0]), mx.zeros(3), mx.array([0.5, 1.0, 2.0])
    for order in [(), (0,), (2,), (0, 0), (0, 2), (2, 0), (2, 2)]:
        f = lambda loss, order=order: nested(lambda *row: loss(*row, reduction="none"), order)
        with sl.exportable():
            inside = f(own)(r, y, c)
            assert exports(lambda f=f: f(own)(r, y, c))
        assert mx.allclose(inside, f(whole)(r, y, c), 1e-5, 1e-6), order


def test_derivatives_that_are_given_are_used() -> None:
    wrong = sl.Loss("wrong", mx.square, psi=lambda r: 7 * r, psi_prime=lambda r: 11 + 0 * r)
    f = lambda x: wrong(x, mx.zeros(2), reduction="sum")
    x = mx.array([1.0, 2.0])
    with sl.exportable():
        assert [f(x).item(), mx.grad(f)(x).tolist()] == [5, [7, 14]]
        assert mx.grad(lambda x: mx.grad(f)(x).sum())(x).tolist() == [11, 11]


def test_a_second_derivative_that_is_nan_spoils_nothing_else() -> None:
    loss = sl.Loss("square", mx.square, psi=lambda r: 2 * r, psi_prime=lambda r: 2 * r / r)
    f = lambda x: loss(x, mx.zeros(2), reduction="sum")
    with sl.exportable():
        value, g = mx.value_and_grad(f)(mx.array([0.0, 3.0]))
    assert [value.item(), g.tolist()] == [9, [0, 6]]


def test_a_loss_that_ignores_the_residual_has_its_shape() -> None:
    loss = sl.Loss("one_loss", lambda r: 1.0)
    x = mx.ones((2, 3))
    for reduction, want in (("none", [[1] * 3] * 2), ("sum", 6), ("mean", 1)):
        with sl.exportable():
            assert loss(x, x, reduction=reduction).tolist() == want


def graph() -> bool:
    x = mx.ones(3)
    return exports(lambda: mx.grad(lambda x: sl.huber_loss(x, x, reduction="sum"))(x))


def test_the_switch_ends_with_its_block() -> None:
    assert not graph()
    with sl.exportable():
        with sl.exportable():
            assert graph()
        assert graph()
        with pytest.raises(KeyError), sl.exportable():
            raise KeyError
        assert graph()
    assert not graph()


def test_the_switch_as_a_decorator() -> None:
    @sl.exportable()
    def inside(n: int) -> bool:
        """Say so."""
        return graph() and (not n or inside(n - 1))

    assert inside(2)
    assert inside(0)
    assert (inside.__name__, inside.__doc__) == ("inside", "Say so.")
    assert not graph()


def test_the_switch_holds_for_its_thread_and_task() -> None:
    found: list[bool] = []
    with sl.exportable():
        thread = threading.Thread(target=lambda: found.append(graph()))
        thread.start()
        thread.join()
    assert found == [False]

    async def one() -> bool:
        with sl.exportable():
            await asyncio.sleep(0.01)
            return graph()

    async def other() -> bool:
        await asyncio.sleep(0.005)
        return graph()

    async def main() -> list[bool]:
        return await asyncio.gather(one(), other())

    assert asyncio.run(main()) == [True, False]


def test_a_form_of_ones_own_is_used_for_ordinary_numbers() -> None:
    one = sl.Threshold("c", default=1.0)
    loss = sl.Loss(
        "own", lambda r, c: c * r * r, thresholds=[one], psi=lambda r, c: 2 * c * r,
        plain=lambda r, c: 9 * c * r * r,
    )  # fmt: skip
    x, y = mx.array([2.0]), mx.zeros(1)
    with sl.exportable():
        for c, want in ((0.5, 18), (0.0, 0), (mx.array(0.5), 2)):
            assert loss(x, y, c, "sum").item() == want
    assert loss(x, y, 0.5, "sum").item() == 2
    with pytest.raises(TypeError, match=r"Loss: `plain` of own is of type int"):
        sl.Loss("own", mx.square, plain=3)


@pytest.mark.parametrize("name", ["cauchy_loss", "huber_loss"])
def test_third_derivatives_are_0(name: str) -> None:
    f = nested(lambda x: BY_NAME[name].function(x, mx.zeros(2), reduction="none"), (0, 0, 0))
    with sl.exportable():
        assert f(mx.array([0.3, 2.0])).tolist() == [0, 0]
