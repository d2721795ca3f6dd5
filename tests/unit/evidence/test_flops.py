"""The counter on programs whose operations can be counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from coala_lib.evidence.flops import count_flops, xla_flops

A, B = jax.ShapeDtypeStruct((6, 5), jnp.float32), jax.ShapeDtypeStruct((5, 7), jnp.float32)
SQUARE = jax.ShapeDtypeStruct((8, 8), jnp.float32)


def test_a_product_and_its_gradients():
    assert count_flops(jnp.matmul, A, B) == xla_flops(jnp.matmul, A, B) == 2 * 6 * 5 * 7
    both = jax.value_and_grad(lambda a, b: jnp.sin(a @ b).sum(), argnums=(0, 1))
    assert count_flops(both, A, B) == 3 * 2 * 6 * 5 * 7


def test_batched_and_contracted_axes():
    q, k = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 3, 4, 8), (2, 5, 4, 8)))
    assert count_flops(lambda q, k: jnp.einsum("bthd,bshd->bhts", q, k), q, k) == 2 * 2 * 3 * 5 * 4 * 8


def test_a_loop_counts_as_often_as_it_runs_where_xla_counts_it_once():
    def loop(x):
        return jax.lax.scan(lambda c, _: (c @ c, None), x, length=10)[0]

    assert count_flops(loop, SQUARE) == 10 * 2 * 8**3
    assert xla_flops(loop, SQUARE) < 2 * 2 * 8**3
    assert count_flops(lambda x: jax.lax.fori_loop(0, 4, lambda _, c: c @ c, x), SQUARE) == 4 * 2 * 8**3


def nested(x):
    inner = lambda c: jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c @ c, c)  # noqa: E731
    return jax.lax.while_loop(lambda c: c[0, 1] < 1, lambda c: inner(c) @ c, x)


def test_open_loops_need_their_trips():
    assert count_flops(nested, SQUARE, trips=(3, 5)) == 3 * (5 + 1) * 2 * 8**3
    for trips in ((), (3,), (3, 5, 7)):
        with pytest.raises(ValueError, match="trips"):
            count_flops(nested, SQUARE, trips=trips)
    # a loop without products is free, and asks for nothing
    assert count_flops(lambda x: jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c + 1, x), SQUARE) == 0


def test_the_dearer_branch_counts_and_what_is_computed_again_counts_again():
    cheap_or_dear = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x, lambda x: x @ x @ x, x)  # noqa: E731
    assert count_flops(cheap_or_dear, SQUARE) == 2 * 2 * 8**3
    twice = lambda x: jnp.sin(jnp.sin(x @ x) @ x).sum()  # noqa: E731
    plain, remat = (count_flops(jax.value_and_grad(f), SQUARE) for f in (twice, jax.checkpoint(twice)))
    assert remat == plain + 2 * 8**3 * 2


def test_factorisations_have_their_textbook_cost():
    assert count_flops(jnp.linalg.cholesky, SQUARE) == pytest.approx(8**3 / 3)
    solve = lambda a, b: jax.scipy.linalg.solve_triangular(a, b)  # noqa: E731
    assert count_flops(solve, SQUARE, jax.ShapeDtypeStruct((8, 3), jnp.float32)) == 8 * 8 * 3
    assert xla_flops(jnp.linalg.cholesky, jax.ShapeDtypeStruct((256, 256), jnp.float32)) < 0.1 * 256**3 / 3
