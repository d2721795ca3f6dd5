"""The masked products against the block matrices they stand for, and each inner step against a general solver."""

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coala_lib.cvxnn.certificate import project_cones
from coala_lib.cvxnn.linsolve import factor, solve_u
from coala_lib.cvxnn.program import cones, cones_adjoint, explicit_matrices, fit, fit_adjoint
from coala_lib.cvxnn.prox import group_soft_threshold

N, D_, P = 15, 4, 6


@pytest.fixture(scope="module")
def program(make_program):
    return make_program(N, D_, P, reg=0.3)


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(1)
    return rng.normal(size=(2, P, D_)), rng.normal(size=N), rng.normal(size=(2, N, P))


def in_rows_of_G(S):
    """(2, n, P) in the row order of the explicit G: half, gate, row."""
    return S.swapaxes(1, 2).ravel()


def test_products_equal_the_block_matrices(program, points):
    (F, G), X, D, (U, r, S) = explicit_matrices(program), program.X, program.patterns, points
    np.testing.assert_allclose(fit(X, D, U), F @ U.ravel(), atol=1e-12)
    np.testing.assert_allclose(fit_adjoint(X, D, r).ravel(), F.T @ r, atol=1e-12)
    np.testing.assert_allclose(in_rows_of_G(cones(X, D, U)), G @ U.ravel(), atol=1e-12)
    np.testing.assert_allclose(cones_adjoint(X, D, S).ravel(), G.T @ in_rows_of_G(S), atol=1e-12)


def test_explicit_matrices_are_those_of_the_text(program):
    # written from the definition: F = [D_i X, -D_i X], G has plus signs in both halves
    F, G = explicit_matrices(program)
    patterns = [np.diag(program.patterns[:, i]) for i in range(P)]
    blocks = [p @ program.X for p in patterns]
    signed = [(2 * p - np.eye(N)) @ program.X for p in patterns]
    np.testing.assert_array_equal(F, np.hstack([*blocks, *(-b for b in blocks)]))
    for j in range(2 * P):
        row, column = slice(j * N, (j + 1) * N), slice(j * D_, (j + 1) * D_)
        np.testing.assert_array_equal(G[row, column], signed[j % P])
    assert np.count_nonzero(G) == 2 * P * N * D_


def test_products_and_adjoints_in_jax(program, points):
    with jax.enable_x64(True):
        X, D = jnp.asarray(program.X), jnp.asarray(program.patterns)
        U, r, S = (jnp.asarray(a) for a in points)
        assert fit(X, D, U).dtype == jnp.float64
        assert float(jnp.vdot(fit(X, D, U), r)) == pytest.approx(float(jnp.vdot(U, fit_adjoint(X, D, r))), rel=1e-12)
        assert float(jnp.vdot(cones(X, D, U), S)) == pytest.approx(
            float(jnp.vdot(U, cones_adjoint(X, D, S))), rel=1e-12
        )


def test_gram_identities(program):
    (F, G), X, D = explicit_matrices(program), program.X, program.patterns
    np.testing.assert_allclose(G.T @ G, np.kron(np.eye(2 * P), X.T @ X), atol=1e-12)
    np.testing.assert_allclose(F @ F.T, 2 * (X @ X.T) * (D @ D.T), atol=1e-12)


@pytest.mark.parametrize(("rho", "sigma"), [(0.1, 0.1), (3.0, 0.01), (0.01, 5.0)])
def test_u_step_equals_the_dense_solve(program, points, rho, sigma):
    F, G = explicit_matrices(program)
    dense = F.T @ F + rho * np.eye(F.shape[1]) + sigma * G.T @ G
    expected = np.linalg.solve(dense, points[0].ravel())
    with jax.enable_x64(True):
        X, D, b = (jnp.asarray(a) for a in (program.X, program.patterns, points[0]))
        found = solve_u(factor(X, D, rho, sigma), X, D, b)
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-9, atol=1e-12)


def test_group_soft_threshold_is_its_own_minimiser(points):
    U, threshold = points[0], 1.5
    V = cp.Variable((2 * P, D_))
    objective = threshold * cp.sum(cp.norm(V, 2, axis=1)) + 0.5 * cp.sum_squares(V - U.reshape(2 * P, D_))
    cp.Problem(cp.Minimize(objective)).solve(solver=cp.CLARABEL)
    with jax.enable_x64(True):
        found = np.asarray(group_soft_threshold(jnp.asarray(U), threshold))
    np.testing.assert_allclose(found.reshape(2 * P, D_), V.value, atol=1e-5)
    zero = np.linalg.norm(U, axis=-1) <= threshold
    assert zero.any()
    assert not zero.all()
    assert (found[zero] == 0).all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_cone_projection_equals_the_quadratic_program(program, points, scale):
    X, D, C = scale * program.X, program.patterns, points[0]
    found = project_cones(X, D, C)
    for half in range(2):
        for i in range(P):
            A, u = (2 * D[:, i : i + 1] - 1) * program.X, cp.Variable(D_)
            cp.Problem(cp.Minimize(cp.sum_squares(u - C[half, i])), [A @ u >= 0]).solve(solver=cp.CLARABEL)
            np.testing.assert_allclose(found[half, i], u.value, atol=1e-4)
            # better than the other solver: feasible to rounding, and optimal by Moreau's decomposition
            assert (A @ found[half, i]).min() >= -1e-11
            assert abs(found[half, i] @ (C[half, i] - found[half, i])) < 1e-11


def test_projection_drops_a_block_in_the_polar_cone(program):
    A = (2 * program.patterns[:, :1] - 1) * program.X
    C = np.zeros((2, P, D_))
    C[:, 0] = -A.sum(axis=0)  # -A^T mu with mu = 1: the polar cone by definition
    assert not project_cones(program.X, program.patterns, C).any()
