"""`solve` and `reg_path`: the optimum, the statuses, the trace, and starts from other solutions."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from coala_lib.cvxnn import ConvexProgram, certify, reg_max, reg_path, sample_gates, solve, to_relu_network
from coala_lib.cvxnn.operators import cones, fit, fit_adjoint
from coala_lib.cvxnn.projection import project_cones
from coala_lib.solution import Status

KINDS = [(variant, loss) for variant in ("relu", "gated") for loss in ("squared", "logistic")]


@pytest.fixture(scope="module", params=KINDS, ids=map("-".join, KINDS))
def program(request, make_program):
    variant, loss = request.param
    program = make_program(40, 5, 8, reg=1.0, variant=variant, loss=loss)
    return program.with_reg(0.1 * reg_max(program))


@pytest.fixture(scope="module")
def solution(program):
    return solve(program, tol=1e-7, max_iter=60_000)


def test_optimum_equals_the_interior_point_solver(program, solution, optimum):
    best = optimum(program)
    assert solution.status is Status.SOLVED
    assert solution.primal == pytest.approx(best, rel=2e-7)
    assert solution.dual == pytest.approx(best, rel=2e-7)
    assert program.objective(solution.v, solution.w) == solution.primal
    assert program.objective(1.01 * solution.v, 1.01 * solution.w) > solution.primal
    U = np.stack([solution.v, solution.w])
    if program.variant == "relu":
        assert cones(program.features(), U).min() >= -1e-10
        network = to_relu_network(program, solution)
        np.testing.assert_allclose(network(program.X), fit(program.features(), U), atol=1e-9)
        assert network.objective(program) == pytest.approx(solution.primal, rel=1e-9)
        assert len(network.theta2) == np.count_nonzero(np.linalg.norm(U, axis=-1)) > 0


@pytest.mark.parametrize("method", ["woodbury", "cg", "nystrom", "plain"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_methods_agree(make_program, method, loss):
    program = make_program(40, 5, 8, reg=0.5, loss=loss)
    solution = solve(program, tol=1e-6, max_iter=20_000, method=method)
    assert solution.status is Status.SOLVED
    assert solution.primal == pytest.approx(solve(program, tol=1e-6, max_iter=20_000).primal, rel=2e-6)
    assert (solution.trace["cg_steps"][-1] > 0) == (method != "woodbury")


@pytest.mark.parametrize("settings", [{"rho": 0.05}, {"sigma": 3.0}, {"balance": False}, {"rank": 3}])
def test_settings_change_the_way_not_the_end(make_program, settings):
    program = make_program(40, 5, 8, reg=0.5)
    plain = solve(program, tol=1e-5, max_iter=40_000, method="nystrom")
    other = solve(program, tol=1e-5, max_iter=40_000, method="nystrom", **settings)
    assert other.primal == pytest.approx(plain.primal, rel=2e-5)
    assert other.n_iter != plain.n_iter or other.trace["cg_steps"][-1] != plain.trace["cg_steps"][-1]
    if settings == {"balance": False}:
        assert len(set(other.trace["rho"])) == 1 < len(set(plain.trace["rho"]))


@pytest.mark.parametrize("max_iter", [1, 7, 23])
def test_iterations_end_at_their_limit(program, max_iter):
    solution = solve(program, tol=1e-12, max_iter=max_iter)
    assert solution.status is Status.MAX_ITER
    assert solution.n_iter == max_iter
    assert "raise max_iter" in str(solution.status)
    assert solution.gap > 0


def test_trace(program, solution):
    names = {"iteration", "estimated_gap", "dual", "certified_at", "relative_gap"}
    if program.variant == "relu":
        names |= {"primal_residual", "kkt_residual", "cone_violation", "rho", "cg_steps"}
        assert solution.trace["iteration"][-1] == solution.n_iter
    assert set(solution.trace) == names
    along = {len(values) for name, values in solution.trace.items() if name not in ("certified_at", "relative_gap")}
    assert len(along) == 1
    assert (np.diff(solution.trace["iteration"]) > 0).all()
    assert (np.diff(solution.trace["dual"]) >= 0).all()
    assert solution.trace["certified_at"][-1] == solution.n_iter
    assert solution.trace["relative_gap"][-1] == solution.certificate.relative_gap <= 1e-7
    assert (np.diff(solution.trace["relative_gap"]) <= 0).all()
    assert solution.trace["estimated_gap"][-1] < 1e-5 < solution.trace["estimated_gap"][0]


def test_warm_start_is_quick_and_ends_at_the_same_optimum(program, solution):
    near = program.with_reg(0.9 * program.reg)
    cold, warm = solve(near, tol=1e-6, max_iter=60_000), solve(near, tol=1e-6, max_iter=60_000, start=solution)
    assert warm.status is cold.status is Status.SOLVED
    assert warm.n_iter < cold.n_iter
    assert warm.primal == pytest.approx(cold.primal, rel=2e-6)
    again = solve(program, tol=1e-6, start=solution)
    assert again.n_iter <= 10
    assert again.status is Status.SOLVED


def test_a_start_may_have_had_another_loss(program, solution, optimum):
    other = replace(program, loss="logistic" if program.loss == "squared" else "squared")
    found = solve(other, tol=1e-5, max_iter=60_000, start=solution)
    assert found.status is Status.SOLVED
    assert found.primal == pytest.approx(optimum(other), rel=2e-5)


def test_reg_path_equals_the_cold_solves(program):
    shares = (0.03, 0.5, 0.1, 0.2)
    path = reg_path(program, shares, tol=1e-5, max_iter=60_000)
    regs = [reg for reg, _ in path]
    np.testing.assert_allclose(regs, reg_max(program) * np.array([0.5, 0.2, 0.1, 0.03]))
    cold = [solve(program.with_reg(reg), tol=1e-5, max_iter=60_000) for reg in regs]
    for (_, warm), other in zip(path, cold, strict=True):
        assert warm.status is Status.SOLVED
        assert warm.primal == pytest.approx(other.primal, rel=2e-5)
    assert path[0][1].n_iter == cold[0].n_iter
    assert sum(s.n_iter for _, s in path) < sum(s.n_iter for s in cold)


def test_reg_path_has_thirty_points_by_default(make_program):
    path = reg_path(make_program(20, 3, 3, reg=1.0, variant="gated"), tol=1e-2)
    assert len(path) == 30
    assert path[0][0] / path[-1][0] == pytest.approx(50)


@pytest.mark.parametrize(("share", "zero"), [(0.9, False), (1.1, True)])
def test_solution_is_zero_exactly_above_reg_max(program, share, zero):
    edge = program.with_reg(share * reg_max(program))
    solution = solve(edge, tol=1e-5, max_iter=50_000)
    nothing = edge.objective(*np.zeros((2, 8, 5)))
    assert solution.status is Status.SOLVED
    assert (solution.primal == nothing) == zero == (not solution.v.any() and not solution.w.any())
    if zero:
        with pytest.raises(ValueError, match="too large for these data; lower it"):
            to_relu_network(edge, solution)
    else:
        assert len(to_relu_network(edge, solution).theta2) >= 1


@pytest.mark.parametrize("share", [0.999, 1.001])
def test_reg_max_is_sharp(program, share):
    A, zero = program.features(), np.zeros(40)
    blocks = fit_adjoint(A, -program.loss_function.derivative(zero, program.y), program.halves)
    if program.variant == "relu":
        blocks = project_cones(A, blocks)
    norms = np.linalg.norm(blocks, axis=-1)
    steepest = np.where((norms == norms.max())[..., None], blocks, 0) / norms.max()
    slope, curve = norms.max() - share * reg_max(program), np.sum(fit(A, steepest) ** 2)
    point = max(slope, 1e-3) / (program.loss_function.curvature * curve) * steepest
    falls = program.with_reg(share * reg_max(program)).objective(*point) < program.objective(*np.zeros((2, 8, 5)))
    assert falls == (share < 1)


@pytest.mark.parametrize(("variant", "loss"), KINDS, ids=map("-".join, KINDS))
def test_overflow_ends_in_an_honest_certificate(make_program, variant, loss):
    program = make_program(40, 5, 8, reg=0.1)
    X = (1e25 * program.X).astype(np.float32)  # its square is no float32
    huge = ConvexProgram(X, program.y, sample_gates(program.X, 4), reg=0.1, variant=variant, loss=loss)
    with np.errstate(over="ignore"):
        lost = solve(huge, max_iter=50)
    assert lost.status is Status.DIVERGED
    assert "float64" in str(lost.status)
    assert np.isfinite([lost.primal, lost.dual]).all()
    assert not lost.v.any()
    with pytest.raises(ValueError, match="start must solve"):
        solve(huge, start=lost)


def test_float32_and_float64_agree(program, solution):
    narrow = replace(program, X=program.X.astype(np.float32), y=program.y, gates=program.gates)
    rough = solve(narrow, tol=1e-3, max_iter=30_000)
    assert rough.status is Status.SOLVED
    assert rough.primal == pytest.approx(solution.primal, rel=2e-3)
    assert rough.dual <= solution.primal * (1 + 1e-6)


def test_a_second_look_keeps_the_small_blocks(program, monkeypatch):
    module, shares = sys.modules["coala_lib.cvxnn.solve"], []

    def distrustful(*arguments, negligible):
        shares.append(negligible)
        point, certificate = certify(*arguments, negligible=negligible)
        return point, replace(certificate, dual=0.0) if len(shares) == 1 else certificate

    monkeypatch.setattr(module, "certify", distrustful)
    assert solve(program, tol=1e-3).status is Status.SOLVED
    assert 0 < shares[0] < 1e-3
    assert len(shares) > 1
    assert not any(shares[1:])


def test_progress_prints_only_where_asked(make_program, capfd):
    program = make_program(40, 5, 8, reg=0.5)
    for variant in ("relu", "gated"):
        solve(replace(program, variant=variant))
    reg_path(program, (0.5,), tol=1e-2)
    assert capfd.readouterr() == ("", "")
    quiet = solve(program, tol=1e-6, max_iter=20_000)
    shown = solve(program, tol=1e-6, max_iter=20_000, progress=True)
    assert "gap=" in capfd.readouterr().err
    # the bar splits the loop; the iterates do not notice
    assert shown.n_iter == quiet.n_iter
    assert shown.primal == quiet.primal
