"""Projections and proximal steps: each is the minimiser it claims to be."""

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coala_lib.cvxnn import project_cones, repair_cones
from coala_lib.cvxnn.operators import cones, features
from coala_lib.cvxnn.prox import group_soft_threshold, group_soft_threshold_metric, orthant

N, D_, P = 15, 4, 6
BLOCKS = np.random.default_rng(1).normal(size=(2, P, D_))


@pytest.fixture(scope="module")
def program(make_program):
    return make_program(N, D_, P, reg=0.3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_projection_equals_the_quadratic_program(program, scale):
    D = program.patterns
    found = project_cones(features(scale * program.X, D), BLOCKS)
    moved = 0
    for half in range(2):
        for i in range(P):
            A, u, c = (2 * D[:, i : i + 1] - 1) * program.X, cp.Variable(D_), BLOCKS[half, i]
            cp.Problem(cp.Minimize(cp.sum_squares(u - c)), [A @ u >= 0]).solve(solver=cp.CLARABEL)
            np.testing.assert_allclose(found[half, i], u.value, atol=1e-4)
            # better than the other solver: feasible to rounding, and optimal by Moreau's decomposition
            assert (A @ found[half, i]).min() >= -1e-11
            assert abs(found[half, i] @ (c - found[half, i])) < 1e-10
            moved += not np.allclose(c, found[half, i])
    assert moved > P


@pytest.mark.parametrize("shape", [(40, 6), (6, 9), (30, 1), (200, 3)], ids=str)
@pytest.mark.parametrize("shift", [1e-3, 1.0, 30.0], ids=["near", "between", "far"])
def test_projection_satisfies_moreau(shape, shift):
    # c = p + q with p in the cone, q in its polar and p.q = 0: no other point is the projection
    n, d = shape
    rng = np.random.default_rng([n, d])
    X, H = rng.normal(size=shape), rng.normal(size=(d, 5))
    A = features(X, (X @ H >= 0).astype(float))
    C = np.stack([H.T, H.T]) + shift * rng.normal(size=(2, 5, d))
    p = project_cones(A, C)
    lengths, sizes = np.linalg.norm(X, axis=1)[:, None, None], np.linalg.norm(C, axis=-1)
    assert (cones(A, p) >= -1e-11 * lengths * sizes).all()
    assert (np.abs((p * (C - p)).sum(axis=-1)) <= 1e-9 * sizes**2).all()
    # q is in the polar cone: q.u <= 0 for points u of the cone, its own gate and random ones projected
    others = project_cones(A, rng.normal(size=(2, 5, d)))
    assert (((C - p) * H.T).sum(axis=-1) <= 1e-9 * sizes * np.linalg.norm(H, axis=0)).all()
    assert (((C - p) * others).sum(axis=-1) <= 1e-9 * sizes).all()
    np.testing.assert_allclose(project_cones(A, p), p, atol=1e-10 * max(1, shift))


def test_points_inside_do_not_change(program):
    inside = np.stack([program.gates.T, 2 * program.gates.T])
    np.testing.assert_array_equal(project_cones(program.features(), inside), inside)


def test_projection_drops_a_block_in_the_polar_cone(program):
    A = (2 * program.patterns[:, :1] - 1) * program.X
    C = np.zeros((2, P, D_))
    C[:, 0] = -A.sum(axis=0)  # -A^T mu with mu = 1: the polar cone by definition
    assert not project_cones(program.features(), C).any()


def test_repair_is_feasible_and_moves_along_the_gate(program):
    A, gates = program.features(), program.gates.astype(float)
    found = repair_cones(A, BLOCKS, gates)
    assert cones(A, BLOCKS).min() < -0.1
    assert cones(A, found).min() >= 0
    step = (found - BLOCKS) @ gates / (gates**2).sum(axis=0)  # (H, P, P), the diagonal is each block's own gate
    own = np.diagonal(step, axis1=1, axis2=2)
    assert (own >= 0).all()
    np.testing.assert_allclose(found - BLOCKS, own[..., None] * gates.T, atol=1e-9)
    # the smallest step that does: some row binds wherever the block moved
    assert (np.abs(cones(A, found)).min(axis=0) < 1e-9)[own > 0].all()
    assert not repair_cones(A, 0 * BLOCKS, gates).any()
    # and never nearer than the projection
    near, far = (np.linalg.norm(p - BLOCKS, axis=-1) for p in (project_cones(A, BLOCKS), found))
    assert (far >= near - 1e-9).all()


def test_repair_refuses_a_row_on_the_boundary():
    A = features(np.array([[1.0, 0.0]]), np.array([[1.0]]))
    with pytest.raises(ValueError, match="row 0 lies on its gate's boundary: use project_cones"):
        repair_cones(A, np.array([[[-1.0, 0.0]]]), np.array([[0.0], [1.0]]))


def test_group_soft_threshold_is_its_own_minimiser():
    threshold = 1.5
    V = cp.Variable((2 * P, D_))
    objective = threshold * cp.sum(cp.norm(V, 2, axis=1)) + 0.5 * cp.sum_squares(V - BLOCKS.reshape(2 * P, D_))
    cp.Problem(cp.Minimize(objective)).solve(solver=cp.CLARABEL)
    with jax.enable_x64(True):
        found = np.asarray(group_soft_threshold(jnp.asarray(BLOCKS), threshold))
    np.testing.assert_allclose(found.reshape(2 * P, D_), V.value, atol=1e-5)
    zero = np.linalg.norm(BLOCKS, axis=-1) <= threshold
    assert 0 < zero.sum() < 2 * P
    assert (found[zero] == 0).all()


@pytest.mark.parametrize("spread", [0, 2, 6])
@pytest.mark.parametrize("threshold", [1e-3, 0.5, 3.0])
def test_threshold_in_a_metric_is_stationary(spread, threshold):
    rng = np.random.default_rng(spread)
    metric = 10.0 ** rng.uniform(-spread, 0, size=D_)
    U = rng.normal(size=(2, 40, D_)) * 10.0 ** rng.uniform(-2, 2, size=(2, 40, 1))
    with jax.enable_x64(True):
        V = np.asarray(group_soft_threshold_metric(jnp.asarray(U), jnp.asarray(metric), threshold))
    pull, norms = metric * U, np.linalg.norm(V, axis=-1, keepdims=True)
    alive = norms[..., 0] > 0
    np.testing.assert_array_equal(alive, np.linalg.norm(pull, axis=-1) > threshold)
    stationary = threshold * V / np.where(norms > 0, norms, 1) + metric * V - pull
    assert (np.linalg.norm(stationary[alive], axis=-1) <= 1e-8 * np.linalg.norm(pull[alive], axis=-1)).all()


def test_unit_metric_is_the_plain_threshold():
    with jax.enable_x64(True):
        U, ones = jnp.asarray(BLOCKS), jnp.ones(D_)
        np.testing.assert_allclose(group_soft_threshold_metric(U, ones, 1.5), group_soft_threshold(U, 1.5), atol=1e-10)


def test_orthant():
    assert orthant(jnp.asarray([[[-1.0, 2.0]]])).tolist() == [[[0.0, 2.0]]]


def test_a_feasible_point_is_not_taken_for_the_projection():
    """From afar Newton may settle on a feasible point that is not the nearest; only complementarity tells."""
    worst = 0.0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n, d, P = int(rng.integers(20, 120)), int(rng.integers(2, 15)), 4
        X = rng.normal(size=(n, d)) * np.logspace(0, -rng.integers(0, 3), d)
        gates = rng.normal(size=(d, P))
        A = features(X, (X @ gates >= 0).astype(float))
        for noise in (1e-4, 1e-1, 1.0, 10.0):
            blocks = np.stack([gates.T + noise * rng.normal(size=(P, d)) for _ in range(2)])
            points = project_cones(A, blocks)
            inner = np.abs(((points - blocks) * points).sum(axis=-1)) / np.square(blocks).sum(axis=-1)
            worst = max(worst, inner.max())
    assert worst <= 1e-14
