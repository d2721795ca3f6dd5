"""Laws that hold for data nobody chose: shapes, dtypes, repeated and degenerate rows."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coala_lib.cvxnn import (
    ConvexProgram,
    project_cones,
    reg_max,
    repair_cones,
    sample_gates,
    solve,
    to_relu_network,
)
from coala_lib.cvxnn.operators import cones, features, fit
from coala_lib.solution import Status

SHAPES = [(7, 1), (12, 3), (5, 4)]  # a handful: each new shape is compiled
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.int32]
quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
rows = st.sampled_from(SHAPES).flatmap(lambda shape: arrays(np.int8, shape, elements=st.integers(-8, 8)))


@st.composite
def programs(draw):
    X = draw(rows).astype(np.float32) / 4
    dtype = draw(st.sampled_from(DTYPES))
    X = (4 * X if dtype is np.int32 else X).astype(dtype)
    y = draw(arrays(np.int8, len(X), elements=st.sampled_from([-1, 1])))
    assume(len(set(y.tolist())) == 2)
    assume(X.astype(float).any())
    kind = {"variant": draw(st.sampled_from(["relu", "gated"])), "loss": draw(st.sampled_from(["squared", "logistic"]))}
    program = ConvexProgram(X, y, sample_gates(X, 4, draw(st.integers(0, 3))), 1.0, **kind)
    top = reg_max(program)
    assume(top > 1e-6)
    return program.with_reg(draw(st.sampled_from([0.05, 0.3, 0.8])) * top)


@quick
@given(programs())
def test_any_program_is_solved_with_a_proof(program):
    solution = solve(program, tol=1e-3, max_iter=20_000)
    assert solution.status is Status.SOLVED
    assert solution.dual <= solution.primal * (1 + 1e-12)
    assert solution.certificate.relative_gap <= 1e-3
    U, A = np.stack([solution.v, solution.w])[: program.halves], program.features()
    assert program.objective(solution.v, solution.w) == solution.primal
    if program.variant == "relu":
        assert cones(A, U).min() >= -1e-9 * max(1, np.abs(U).max()) * np.abs(A.X).max()
        network = to_relu_network(program, solution)
        scale = np.abs(fit(A, U)).max()
        np.testing.assert_allclose(network(A.X), fit(A, U), atol=1e-8 * scale)
        assert network.objective(program) == pytest.approx(solution.primal, rel=1e-6)


@quick
@given(rows, st.integers(1, 6), st.integers(0, 5), st.sampled_from(["gaussian", "rows"]))
def test_gates_are_distinct_and_not_empty(X, n_gates, seed, distribution):
    X = X.astype(np.float32)
    assume(X.any() and (distribution == "gaussian" or len(np.unique(X, axis=0)) > 1))
    gates = sample_gates(X, n_gates, seed, distribution)
    patterns = (X @ gates >= 0).T
    assert 1 <= gates.shape[1] <= n_gates
    assert len({p.tobytes() for p in patterns}) == gates.shape[1]
    assert (X @ gates > 0).any(axis=0).all()


@quick
@given(rows, arrays(np.int8, (2, 3, 4), elements=st.integers(-9, 9)), st.sampled_from([1e-3, 1.0, 1e4]))
def test_projection_is_the_nearest_point(X, blocks, scale):
    X, d = X.astype(float), X.shape[1]
    assume(X.any())
    H = np.random.default_rng(0).normal(size=(d, 3))
    A, C = features(X, (X @ H >= 0).astype(float)), scale * blocks[..., :d].astype(float)
    p = project_cones(A, C)
    size = np.linalg.norm(C) + np.finfo(float).tiny
    reach = np.linalg.norm(X, axis=1).max()
    assert cones(A, p).min() >= -1e-10 * size * reach
    # Moreau: p.(c - p) = 0, and c - p makes no acute angle with any point of the cone
    assert np.abs((p * (C - p)).sum(axis=-1)).max() <= 1e-9 * size**2
    assert (((C - p) * H.T).sum(axis=-1) <= 1e-9 * size * np.linalg.norm(H, axis=0)).all()
    np.testing.assert_allclose(project_cones(A, p), p, atol=1e-9 * size)
    repaired = repair_cones(A, C, H)
    assert cones(A, repaired).min() >= -1e-10 * np.abs(repaired).max() * reach
    assert np.linalg.norm(repaired - C) >= np.linalg.norm(p - C) * (1 - 1e-9) - 1e-9 * size
