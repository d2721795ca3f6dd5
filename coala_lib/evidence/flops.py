"""How many floating-point operations a function takes, worked out from its program and not from a clock.

`count_flops` walks the traced program (the jaxpr) and adds up its matrix products and factorisations, a loop's body
times its trips. `xla_flops` asks XLA about the lowered program. Neither needs weights, a compiler or a device:
arguments may be abstract, so an 8B model is counted on a laptop.

XLA counts everything, elementwise work too, but a loop's body once and a factorisation hardly at all; so the two
agree where layers are unrolled and matrix products dominate, and that agreement is what the tests ask for.

Differs from the paper: its Table 3 does not say how its figures were obtained.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.interpreters.partial_eval import dce_jaxpr

Factorisation = Callable[[int, int], float]
# leading terms for an m x n matrix (Golub and Van Loan): XLA's own figures for these are far too small
FACTORISATIONS: Mapping[str, Factorisation] = {
    "cholesky": lambda m, n: n**3 / 3,
    "lu": lambda m, n: 2 * n**3 / 3,
    "householder_product": lambda m, n: 4 * m * n**2 - 4 * n**3 / 3,
    "geqrf": lambda m, n: 2 * m * n**2 - 2 * n**3 / 3,
    "qr": lambda m, n: 4 * m * n**2 - 4 * n**3 / 3,
    "eigh": lambda m, n: 9 * n**3,
    "svd": lambda m, n: 6 * m * n**2 + 20 * n**3,
}


def _product(equation: JaxprEqn) -> float:
    left, right = (variable.aval.shape for variable in equation.invars)
    (contracted, _), (batched, _) = equation.params["dimension_numbers"]
    shared = math.prod(left[axis] for axis in (*contracted, *batched))
    over = math.prod(right) / shared  # columns of the right factor
    return 2.0 * math.prod(left) * over


def _factorisation(equation: JaxprEqn) -> float:
    *batch, m, n = equation.invars[0].aval.shape
    return float(math.prod(batch) * FACTORISATIONS[equation.primitive.name](max(m, n), min(m, n)))


def _triangular(equation: JaxprEqn) -> float:
    # one side of the triangle times every entry of the right-hand side
    return float(equation.invars[0].aval.shape[-1] * math.prod(equation.invars[1].aval.shape))


def _inner(equation: JaxprEqn) -> Iterator[Jaxpr]:
    """The programs that an equation calls."""
    for value in equation.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


def _multiplies(jaxpr: Jaxpr) -> bool:
    """Whether anything in the program counts."""
    counted = {"dot_general", "triangular_solve", *FACTORISATIONS}
    return any(e.primitive.name in counted or any(map(_multiplies, _inner(e))) for e in jaxpr.eqns)


def _count(jaxpr: Jaxpr, trips: Iterator[int | float]) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            total += _product(equation)
        elif name in FACTORISATIONS:
            total += _factorisation(equation)
        elif name == "triangular_solve":
            total += _triangular(equation)
        elif name == "cond":
            total += max(_count(branch.jaxpr, trips) for branch in equation.params["branches"])
        elif name == "scan":
            total += equation.params["length"] * _count(equation.params["jaxpr"].jaxpr, trips)
        elif name == "while":
            if any(map(_multiplies, _inner(equation))):
                often = next(trips, math.nan)
                total += often * sum(_count(part, trips) for part in _inner(equation))
        else:
            total += sum(_count(part, trips) for part in _inner(equation))
    return total


def count_flops(function: Callable[..., Any], *arguments: Any, trips: Sequence[int | float] = ()) -> float:
    r"""Operations of a function's matrix products and factorisations, loops counted as often as they run.

    A product of $(m\times k)$ and $(k\times n)$ takes $2mkn$. Elementwise work is left out: at the widths of language
    models it is below one percent.

    Args:
        function: anything that JAX can trace, gradients and all.
        arguments: arrays, or `jax.ShapeDtypeStruct`s in their place.
        trips: how often each `while` loop runs that holds products, in the order of the program: a loop, then those
            inside it, then the next.

    Returns:
        Floating-point operations.

    Raises:
        ValueError: where `trips` are fewer or more than such loops.

    Example:
        >>> import jax.numpy as jnp
        >>> weights = jax.ShapeDtypeStruct((3, 8, 8), jnp.float32)
        >>> def layers(x, weights):
        ...     return jax.lax.scan(lambda x, w: (x @ w, None), x, weights)[0]
        >>> count_flops(layers, jax.ShapeDtypeStruct((5, 8), jnp.float32), weights)
        1920.0
    """
    traced = jax.make_jaxpr(function)(*arguments).jaxpr
    needed, _ = dce_jaxpr(traced, [True] * len(traced.outvars))  # as the compiler drops what nothing depends on
    left = iter(trips)
    total = _count(needed, left)
    if math.isnan(total) or next(left, None) is not None:
        raise ValueError(f"`trips` has {len(trips)} numbers, one for each loop that ends only when it runs; count them")
    return total


def xla_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """What XLA's cost analysis says of the lowered program, elementwise operations included.

    Args:
        function, arguments: as for `count_flops`; unroll every loop, because its body is counted once.

    Returns:
        Floating-point operations.

    Example:
        >>> import jax.numpy as jnp
        >>> xla_flops(lambda a, b: a @ b, *[jax.ShapeDtypeStruct((4, 4), jnp.float32)] * 2)
        128.0
    """
    return float(jax.jit(function).lower(*arguments).cost_analysis()["flops"])
