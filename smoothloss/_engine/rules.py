"""Functions with rules of differentiation, which run on the device of the call.

MLX calls a rule when it differentiates. That may be outside of the ``mx.stream`` in which the
function was called, whereas MLX's own operations are differentiated on the device on which they
run. So a function with rules is made for one device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, cast

import mlx.core as mx

from .sums import Elementwise

Rule = Callable[..., Any]


def with_rules(value: Elementwise, vjp: Rule, jvp: Rule, vmap: Rule) -> Elementwise:
    """``value``, differentiated and mapped by the rules, on the present default device."""
    device = mx.default_device().type

    def there(rule: Rule) -> Rule:
        def run(*arguments: Any) -> Any:
            if mx.default_device().type is device:
                return rule(*arguments)
            with mx.stream(device):
                return rule(*arguments)

        return run

    custom = mx.custom_function(value)
    custom.vjp(there(vjp))
    custom.jvp(there(jvp))
    custom.vmap(there(vmap))
    return cast(Elementwise, custom)


def made_once(make: Callable[..., Elementwise]) -> Callable[..., Elementwise]:
    """``make``, of hashable arguments, called once for them on each device."""
    made: dict[Any, Elementwise] = {}

    @functools.wraps(make)
    def find(*arguments: Hashable) -> Elementwise:
        key = (mx.default_device().type, *arguments)
        if key not in made:
            made[key] = make(*arguments)
        return made[key]

    return find
