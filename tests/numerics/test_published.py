"""Algorithm 2 as printed and its repairs: the averages, the invariants, and two independent versions of the loop."""

import numpy as np
import pytest

from coala_lib.cvxnn import ConvexProgram, certify, sample_gates
from coala_lib.cvxnn.operators import explicit_matrices
from coala_lib.cvxnn.published import dense_admm, published_admm

RHO, STEPS = 0.3, 60


@pytest.fixture(scope="module")
def program() -> ConvexProgram:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 4))
    return ConvexProgram(X, np.sign(X[:, 0] * X[:, 1]), sample_gates(X, 5, 0), reg=0.4)


def test_the_dense_loop_takes_the_same_path(program: ConvexProgram) -> None:
    F, G = explicit_matrices(program.X, program.patterns)
    state, _ = published_admm(program, RHO, STEPS, method="woodbury", every=STEPS)
    u, v = dense_admm(F, G, program.y, 4, program.reg, RHO, STEPS)
    np.testing.assert_allclose(u, state.U.ravel(), atol=1e-11)
    np.testing.assert_allclose(v, state.V.ravel(), atol=1e-11)


def test_averages_are_those_of_the_iterates(program: ConvexProgram) -> None:
    F, G = explicit_matrices(program.X, program.patterns)
    paths = [np.stack(dense_admm(F, G, program.y, 4, program.reg, RHO, k)) for k in range(1, STEPS + 1)]
    u, v = np.mean(paths, axis=0)
    _, trace = published_admm(program, RHO, STEPS, method="woodbury")
    value = 0.5 * np.sum((F @ u - program.y) ** 2) + program.reg * np.linalg.norm(v.reshape(-1, 4), axis=1).sum()
    assert trace["mean_objective"][-1] == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("decay", [None, 1.2])
@pytest.mark.parametrize("dual_step", [0.7, 1.0])
def test_the_averaged_residual_is_the_multiplier_over_k(
    program: ConvexProgram, dual_step: float, decay: float | None
) -> None:
    _, trace = published_admm(program, RHO, STEPS, method="cg", dual_step=dual_step, error_decay=decay)
    expected = trace["multiplier_norm"] / (dual_step * trace["iteration"])
    np.testing.assert_allclose(trace["mean_residual"], expected, rtol=1e-9)


def test_invariants_hold_for_a_unit_dual_step_only(program: ConvexProgram) -> None:
    for dual_step, holds in ((1.0, True), (1.5, False)):
        _, trace = published_admm(program, RHO, STEPS, method="woodbury", dual_step=dual_step)
        assert (trace["largest_nu"].max() <= 1e-12) == holds
        assert (trace["largest_lam"].max() <= 1 + 1e-12) == holds


def test_looser_solves_leave_the_optimum_where_it_was(program: ConvexProgram) -> None:
    exact, _ = published_admm(program, RHO, 10, method="cg", every=10)
    loose, _ = published_admm(program, RHO, 10, method="cg", every=10, error_decay=1.2)
    assert np.abs(exact.U - loose.U).max() > 1e-9
    state, _ = published_admm(program, RHO, 4000, method="cg", every=4000, error_decay=1.2)
    _, proof = certify(program, state.U, state.V, RHO * state.lam, RHO * state.nu)
    assert proof.relative_gap < 1e-4


def test_a_run_in_parts_is_the_whole_run(program: ConvexProgram) -> None:
    whole, _ = published_admm(program, RHO, STEPS, method="woodbury", every=STEPS)
    part, _ = published_admm(program, RHO, 20, method="woodbury", every=20)
    rest, trace = published_admm(program, RHO, STEPS - 20, method="woodbury", every=STEPS - 20, seed_state=part)
    np.testing.assert_allclose(rest.U, whole.U, atol=1e-13)
    assert int(rest.k) == STEPS
    assert len(trace["dual"]) == 1


@pytest.mark.parametrize("slack", ["zero", "one"])
def test_the_step_as_printed_does_not_solve_the_program(program: ConvexProgram, slack: str) -> None:
    state, _ = published_admm(program, RHO, 2000, slack=slack, method="woodbury", every=2000)
    _, proof = certify(program, state.U, state.V, RHO * state.lam, RHO * state.nu)
    assert proof.relative_gap > 0.1


@pytest.mark.parametrize("fault", [{"every": 0}, {"rho": 0.0}, {"n_iter": 0}, {"dual_step": -1.0}])
def test_what_makes_no_sense_is_refused(program: ConvexProgram, fault: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        published_admm(program, **{"rho": RHO, "n_iter": 5} | fault)
