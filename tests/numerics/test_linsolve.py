"""The u-step: four methods against the dense solve, and the condition number that makes "cg" short."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coala_lib.cvxnn import linsolve
from coala_lib.cvxnn.linsolve import Penalties, apply_system, choose_method, conjugate_gradient, nystrom, precondition
from coala_lib.cvxnn.operators import explicit_matrices, features

prepare = jax.jit(linsolve.prepare, static_argnames=("method", "halves", "rank"))
solve_u = jax.jit(linsolve.solve_u, static_argnames=("method", "max_steps"))

N, D_, P = 15, 4, 6
PENALTIES = [(1.0, 0.1, 0.1), (1.0, 3.0, 0.01), (0.25, 0.01, 5.0)]
METHODS = ["woodbury", "cg", "nystrom", "plain"]
all_penalties = pytest.mark.parametrize("values", PENALTIES, ids=str)
both_variants = pytest.mark.parametrize("halves", [2, 1])


@pytest.fixture(scope="module")
def program(make_program):
    return make_program(N, D_, P, reg=0.3)


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def A(program):
    return features(jnp.asarray(program.X), jnp.asarray(program.patterns))


def penalties_of(values):
    return Penalties(*(jnp.asarray(value) for value in values))


def dense(program, values, halves):
    tau, rho, sigma = values
    F, G = explicit_matrices(program.X, program.patterns, halves)
    return tau * F.T @ F + rho * np.eye(F.shape[1]) + sigma * G.T @ G


def blocks(halves, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(halves, P, D_)))


@all_penalties
@both_variants
def test_the_map_is_the_matrix(program, A, values, halves):
    U = blocks(halves)
    found = apply_system(A, penalties_of(values), A.XT @ A.X, U)
    np.testing.assert_allclose(np.ravel(found), dense(program, values, halves) @ np.ravel(U), atol=1e-11)


@all_penalties
@pytest.mark.parametrize("method", METHODS)
@both_variants
def test_u_step_equals_the_dense_solve(program, A, values, halves, method):
    penalties, b = penalties_of(values), blocks(halves)
    factors = prepare(A, penalties, method=method, halves=halves, rank=10)
    found, steps = solve_u(
        factors, A, penalties, b, jnp.zeros_like(b), jnp.asarray(1e-11), method=method, max_steps=500
    )
    expected = np.linalg.solve(dense(program, values, halves), np.ravel(b))
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-8, atol=1e-10)
    assert (steps == 0) == (method == "woodbury")
    assert steps < 500
    # warm start: the solution needs no step
    again, steps = solve_u(factors, A, penalties, b, found, jnp.asarray(1e-9), method=method, max_steps=500)
    assert steps == 0
    np.testing.assert_allclose(again, found, atol=1e-12)


@pytest.mark.parametrize("method", METHODS[1:])
@both_variants
def test_cg_keeps_its_tolerance_and_its_limit(A, halves, method):
    penalties, b = penalties_of((1.0, 0.01, 0.05)), blocks(halves)
    factors = prepare(A, penalties, method=method, halves=halves, rank=10)
    go = partial(solve_u, factors, A, penalties, b, jnp.zeros_like(b), method=method)

    def residual(U):
        return float(jnp.linalg.norm(apply_system(A, penalties, factors.gram, U) - b, axis=-1).max())

    loose, few = go(tol=jnp.asarray(1e-1), max_steps=500)
    tight, many = go(tol=jnp.asarray(1e-8), max_steps=500)
    assert residual(loose) <= 1e-1
    assert residual(tight) <= 1.01e-8
    assert few < many
    cut, steps = go(tol=jnp.asarray(1e-8), max_steps=2)
    assert steps == 2
    assert residual(cut) > 1e-8


@both_variants
def test_nystrom_finds_the_spectrum(program, A, halves):
    values, size = (1.0, 0.0, 0.2), halves * P * D_
    matrix = dense(program, values, halves)
    exact = np.linalg.eigvalsh(matrix)[::-1]
    go = partial(
        nystrom,
        lambda U: apply_system(A, penalties_of(values), A.XT @ A.X, U),
        (halves, P, D_),
        key=jax.random.key(0),
        dtype=jnp.dtype("float64"),
    )
    basis, found = go(size)
    flat = np.asarray(basis).reshape(size, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(size), atol=1e-9)
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(matrix @ flat[0], exact[0] * flat[0], atol=1e-6)
    # a smaller sketch underestimates every eigenvalue, and the largest by little
    basis, found = go(10)
    assert basis.shape == (10, halves, P, D_)
    assert (np.asarray(found) <= exact[:10] * (1 + 1e-9)).all()
    assert found[0] > 0.9 * exact[0]
    assert (np.diff(found) <= 0).all()


@all_penalties
@both_variants
def test_condition_number_with_the_block_preconditioner(program, A, values, halves):
    tau, rho, sigma = values
    B = rho * np.eye(D_) + sigma * program.X.T @ program.X
    root = np.linalg.cholesky(np.kron(np.eye(halves * P), np.linalg.inv(B)))
    spectrum = np.linalg.eigvalsh(root.T @ dense(program, values, halves) @ root)
    assert spectrum[0] >= 1 - 1e-9
    assert spectrum[-1] / spectrum[0] <= 1 + halves * tau * P / sigma
    # and the bound says something where sigma X^T X outweighs rho
    assert rho > 1 or spectrum[-1] > 1 + 0.1 * halves * tau * P / sigma
    # its inverse is what `precondition` applies
    factors, R = prepare(A, penalties_of(values), method="cg", halves=halves, rank=10), blocks(halves)
    np.testing.assert_allclose(
        np.ravel(precondition(factors, penalties_of(values), "cg")(R)),
        np.kron(np.eye(halves * P), np.linalg.inv(B)) @ np.ravel(R),
        atol=1e-11,
    )


@pytest.mark.parametrize("method", METHODS[1:])
@both_variants
def test_preconditioners_are_symmetric_positive_definite(A, halves, method):
    penalties, size = penalties_of((1.0, 0.05, 0.2)), halves * P * D_
    factors = prepare(A, penalties, method=method, halves=halves, rank=10)
    divide = jax.jit(jax.vmap(precondition(factors, penalties, method)))
    matrix = np.asarray(divide(jnp.eye(size).reshape(size, halves, P, D_))).reshape(size, size)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-10)
    assert np.linalg.eigvalsh(matrix)[0] > 0


@both_variants
def test_a_preconditioner_saves_steps(halves):
    # a decaying spectrum and small penalties, as in the paper's section 3.3
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 16)) / np.arange(1, 17)
    A = features(jnp.asarray(X), jnp.asarray((X @ rng.normal(size=(16, P)) >= 0).astype(float)))
    penalties = penalties_of((1.0, 0.01, 0.2))
    b = jnp.asarray(rng.normal(size=(halves, P, 16)))
    steps = {}
    for method in METHODS[1:]:
        factors = prepare(A, penalties, method=method, halves=halves, rank=20)
        steps[method] = int(
            solve_u(factors, A, penalties, b, 0 * b, jnp.asarray(1e-8), method=method, max_steps=2000)[1]
        )
    assert steps["cg"] < steps["nystrom"] < steps["plain"]


@both_variants
def test_conjugate_gradient_ends_in_as_many_steps_as_eigenvalues(halves):
    values = jnp.asarray([1.0, 2.0, 5.0])
    spectrum = values[jnp.arange(halves * P * D_) % 3].reshape(halves, P, D_)
    b = blocks(halves)
    x, steps = conjugate_gradient(lambda U: spectrum * U, b, 0 * b, lambda R: R, jnp.asarray(1e-10), 50)
    assert steps == 3
    np.testing.assert_allclose(x, b / spectrum, atol=1e-9)


def test_method_follows_rows_dtype_and_mesh():
    assert choose_method(1000, double=True) == "woodbury"
    assert choose_method(1001, double=True) == "cg"
    assert choose_method(10, double=False) == choose_method(10, double=True, sharded=True) == "cg"
