"""The masked products against the block matrices they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coala_lib.cvxnn.operators import (
    cones,
    cones_adjoint,
    cones_of,
    explicit_matrices,
    features,
    fit,
    fit_adjoint,
    fit_of,
    products,
    pull_back,
)

N, D_, P = 15, 4, 6
pytestmark = pytest.mark.parametrize("halves", [2, 1])


@pytest.fixture(scope="module")
def program(make_program):
    return make_program(N, D_, P, reg=0.3)


def points(halves):
    rng = np.random.default_rng(halves)
    return rng.normal(size=(halves, P, D_)), rng.normal(size=N), rng.normal(size=(N, halves, P))


def in_rows_of_G(S):
    """(n, H, P) in the row order of the explicit G: half, gate, row."""
    return np.moveaxis(S, 0, 2).ravel()


def test_products_equal_the_block_matrices(program, halves):
    (F, G), A, (U, r, S) = explicit_matrices(program.X, program.patterns, halves), program.features(), points(halves)
    np.testing.assert_allclose(fit(A, U), F @ U.ravel(), atol=1e-12)
    np.testing.assert_allclose(fit_adjoint(A, r, halves).ravel(), F.T @ r, atol=1e-12)
    np.testing.assert_allclose(in_rows_of_G(cones(A, U)), G @ U.ravel(), atol=1e-12)
    np.testing.assert_allclose(cones_adjoint(A, S).ravel(), G.T @ in_rows_of_G(S), atol=1e-12)


def test_explicit_matrices_are_those_of_the_text(program, halves):
    # written from the definition: F = [D_i X, -D_i X], G has plus signs in both halves
    F, G = explicit_matrices(program.X, program.patterns, halves)
    patterns = [np.diag(program.patterns[:, i]) for i in range(P)]
    blocks = [p @ program.X for p in patterns]
    signed = [(2 * p - np.eye(N)) @ program.X for p in patterns]
    np.testing.assert_array_equal(F, np.hstack([*blocks, *(-b for b in blocks)][: halves * P]))
    for j in range(halves * P):
        row, column = slice(j * N, (j + 1) * N), slice(j * D_, (j + 1) * D_)
        np.testing.assert_array_equal(G[row, column], signed[j % P])
    assert np.count_nonzero(G) == halves * P * N * D_


def test_adjoints_in_numpy(program, halves):
    A, (U, r, S) = program.features(), points(halves)
    assert np.vdot(fit(A, U), r) == pytest.approx(np.vdot(U, fit_adjoint(A, r, halves)), rel=1e-12)
    assert np.vdot(cones(A, U), S) == pytest.approx(np.vdot(U, cones_adjoint(A, S)), rel=1e-12)
    assert np.vdot(products(A, U), S) == pytest.approx(np.vdot(U, pull_back(A, S)), rel=1e-12)


def test_jax_runs_the_same_products(program, halves):
    A, (U, r, S) = program.features(), points(halves)
    with jax.enable_x64(True):
        B = features(*(jnp.asarray(a) for a in (program.X, program.patterns)))
        u, s = jnp.asarray(U), jnp.asarray(S)
        found = fit(B, u), fit_adjoint(B, jnp.asarray(r), halves), cones(B, u), cones_adjoint(B, s)
        assert {a.dtype.name for a in found} == {"float64"}
        # the transposes that jax derives are the adjoints that we wrote
        (derived,) = jax.linear_transpose(lambda v: fit(B, v), u)(jnp.asarray(r))
        np.testing.assert_allclose(derived, fit_adjoint(A, r, halves), atol=1e-12)
        (derived,) = jax.linear_transpose(lambda v: cones(B, v), u)(s)
        np.testing.assert_allclose(derived, cones_adjoint(A, S), atol=1e-12)
    for mine, theirs in zip(
        (fit(A, U), fit_adjoint(A, r, halves), cones(A, U), cones_adjoint(A, S)), found, strict=True
    ):
        np.testing.assert_allclose(theirs, mine, atol=1e-12)


def test_products_in_single_precision_are_close(program, halves):
    A, U = program.features(np.float32), points(halves)[0]
    assert fit(A, U.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(fit(A, U.astype(np.float32)), fit(program.features(), U), rtol=1e-4, atol=1e-4)


def test_parts_make_the_whole(program, halves):
    A, (U, _, S) = program.features(), points(halves)
    np.testing.assert_allclose(fit_of(A, products(A, U)), fit(A, U), atol=1e-12)
    np.testing.assert_array_equal(cones_of(A, products(A, U)), cones(A, U))
    # (2 D - I)^2 = I
    np.testing.assert_array_equal(cones_of(A, cones_of(A, S)), S)


def test_gram_identities(program, halves):
    (F, G), X, D = explicit_matrices(program.X, program.patterns, halves), program.X, program.patterns
    np.testing.assert_allclose(G.T @ G, np.kron(np.eye(halves * P), X.T @ X), atol=1e-12)
    np.testing.assert_allclose(F @ F.T, halves * (X @ X.T) * (D @ D.T), atol=1e-12)
    B = np.linalg.inv(0.3 * np.eye(D_) + 0.7 * X.T @ X)
    np.testing.assert_allclose(F @ np.kron(np.eye(halves * P), B) @ F.T, halves * (X @ B @ X.T) * (D @ D.T), atol=1e-12)
