"""Bounds that hold wherever a solver stops: 240 random programs against CVXPY/Clarabel, and forged multipliers."""

from dataclasses import replace

import numpy as np
import pytest

from coala_lib.cvxnn import (
    ConvexProgram,
    all_patterns_bound,
    certify,
    dual_bound,
    enumerate_gates,
    reg_max,
    sample_gates,
    solve,
    to_relu_network,
)
from coala_lib.cvxnn.operators import cones, cones_adjoint, fit, fit_adjoint
from coala_lib.solution import Status

KINDS = [(variant, loss) for variant in ("relu", "gated") for loss in ("squared", "logistic")]
SHARES = (0.9, 0.5, 0.2, 0.05, 0.01)
# ADMM comes to a gap of 4e-6 and then crawls: columns a thousand times apart, weak reg; Newton proves 1e-6 here too
SLOW_ADMM = {"spectrum seed 5 reg 0.01 admm"}
both_losses = pytest.mark.parametrize("loss", ["squared", "logistic"])


def awkward(X, rng, seed):
    """Every sixth seed another structure: plain, duplicate rows, constant column, rank two or one, scale, spectrum."""
    n, d = X.shape
    kind = "plain duplicates constant rank scale spectrum".split()[seed % 6]
    if kind == "duplicates":
        X[n // 2 :] = X[: n - n // 2]
    if kind == "constant" and d > 1:
        X[:, -1] = 1.0
    if kind == "rank":
        X = X[:, :2] @ rng.normal(size=(min(2, d), d))
    if kind == "scale":
        X *= 10 ** rng.uniform(-3, 3)
    if kind == "spectrum":
        X *= 10.0 ** -np.arange(d)
    return X, kind


def proves(program, solution):
    """What a reader who trusts nobody would check: the dual point is feasible, and its value is the bound."""
    A, y, proof = program.features(), program.y.astype(float), solution.certificate
    blocks = fit_adjoint(A, proof.dual_point, program.halves)
    if proof.multipliers is not None:
        blocks = blocks + cones_adjoint(A, proof.multipliers)
        if proof.multipliers.min() < 0:
            return False
    feasible = np.linalg.norm(blocks, axis=-1).max() <= program.reg * (1 + 1e-12)
    return feasible and program.loss_function.dual(proof.dual_point, y) == proof.dual


@pytest.mark.parametrize(("variant", "loss"), KINDS, ids=map("-".join, KINDS))
@pytest.mark.parametrize("shape", [(24, 3, 6), (6, 4, 9), (12, 1, 2)], ids=["n24-d3-P6", "n6-d4-P9", "n12-d1-P2"])
def test_solve_proves_its_gap_on_random_programs(variant, loss, shape, optimum):
    n, d, P = shape
    unproven, wrong = {}, []
    for seed in range(20):
        rng = np.random.default_rng([seed, n])
        X, structure = awkward(rng.normal(size=(n, d)), rng, seed)
        y = np.sign(rng.normal(size=n))
        y[:2] = 1, -1
        probe = ConvexProgram(X, y, sample_gates(X, P, seed), 1.0, variant=variant, loss=loss)
        share = float(rng.choice(SHARES))
        program = probe.with_reg(share * reg_max(probe))
        best = optimum(program)
        for algorithm in ("newton", "admm") if variant == "relu" else (None,):
            solution = solve(program, tol=1e-6, max_iter=60_000, algorithm=algorithm)
            name, slack = f"{structure} seed {seed} reg {share} {algorithm}", 1e-7 * abs(best)
            if solution.status is not Status.SOLVED or solution.certificate.relative_gap > 1e-6:
                unproven[name] = solution.certificate.relative_gap
            if not solution.dual - slack <= best <= solution.primal + slack:
                wrong.append(name)
            # the gap bounds the true suboptimality, and the point is what was certified
            if solution.gap + slack < solution.primal - best or solution.certificate.cone_violation > 1e-10:
                wrong.append(name)
            if program.objective(solution.v, solution.w) != solution.primal or not proves(program, solution):
                wrong.append(name)
    assert not wrong
    assert set(unproven) <= SLOW_ADMM
    assert max(unproven.values(), default=0) < 1e-5


@pytest.mark.parametrize(("variant", "loss"), KINDS, ids=map("-".join, KINDS))
def test_bounds_hold_wherever_the_solver_stops(variant, loss, make_program, optimum):
    loose = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        program = make_program(18, 6, 4, reg=1.0, seed=seed, variant=variant, loss=loss)
        program = program.with_reg(reg_max(program) * 10 ** rng.uniform(-3, 0))
        solution, best = solve(program, tol=1e-9, max_iter=int(rng.choice([1, 5, 20, 100]))), optimum(program)
        assert solution.dual - 1e-6 <= best <= solution.primal + 1e-6
        assert solution.certificate.cone_violation < 1e-11
        loose += solution.gap > 1e-3
        # any direction and any multipliers bound the optimum from below; negative ones count as zero
        z, mu = rng.normal(size=18), rng.normal(size=(18, program.halves, program.patterns.shape[1]))
        mu = mu if variant == "relu" else None
        bounds = [dual_bound(program, z, mu), dual_bound(program, program.y), dual_bound(program, -z)]
        bounds.append(dual_bound(program, program.y * rng.uniform(size=18), mu))
        assert max(bounds) <= best + 1e-6
        assert max(bounds) > 0
    assert loose >= 5  # else the stops were too late to say anything


@both_losses
def test_multipliers_of_the_wrong_sign_prove_nothing(make_program, optimum, loss):
    # G^T is onto, so multipliers of any sign could cancel the constraint altogether and "prove" every bound
    program = make_program(20, 3, 5, reg=0.5, loss=loss)
    A, D, y = program.features(), program.patterns, program.y
    z = 0.5 * y
    mu = np.zeros((20, 2, 5))
    for half, c in enumerate(fit_adjoint(A, z, 2)):
        for i in range(5):
            mu[:, half, i] = np.linalg.lstsq(((2 * D[:, i : i + 1] - 1) * program.X).T, -c[i])[0]
    assert np.abs(fit_adjoint(A, z, 2) + cones_adjoint(A, mu)).max() < 1e-10
    best = optimum(program)
    assert program.loss_function.dual(z, y) > best  # what they would have proved
    assert dual_bound(program, z, mu) <= best
    U = solve(program).v[None].repeat(2, axis=0)
    assert certify(program, U, U, np.zeros_like(U), mu)[1].dual <= best


@pytest.mark.parametrize(("variant", "loss"), KINDS, ids=map("-".join, KINDS))
def test_tampering_shows_in_the_certificate(make_program, variant, loss):
    program = make_program(40, 5, 8, reg=0.5, variant=variant, loss=loss)
    solution, rng = solve(program, tol=1e-7, max_iter=60_000), np.random.default_rng(0)
    U = np.stack([solution.v, solution.w])[: program.halves]
    _, honest = certify(program, U)
    _, moved = certify(program, U, U + 0.1 * rng.normal(size=U.shape))
    _, bent = certify(program, U + 0.1 * rng.normal(size=U.shape), U)
    assert honest.primal == pytest.approx(solution.primal, rel=1e-9)
    assert honest.block_residuals.shape == U.shape[:2]
    assert honest.block_residuals.max() == honest.kkt_residual
    assert moved.primal > solution.primal * (1 + 1e-6)
    assert bent.dual < solution.dual
    z = -program.loss_function.derivative(fit(program.features(), U), program.y)
    assert dual_bound(program, -z) <= 0  # a flipped residual proves nothing
    if variant == "relu":
        # zero multipliers bound less than the solver's own
        assert dual_bound(program, z) < solution.dual
    else:
        assert dual_bound(program, z) == pytest.approx(solution.dual, rel=1e-4)
        assert honest.kkt_residual < 0.05 < bent.kkt_residual


def test_an_infeasible_point_is_projected_before_it_is_certified(make_program):
    program = make_program(40, 5, 8, reg=0.5)
    U = np.random.default_rng(0).normal(size=(2, 8, 5))
    point, certificate = certify(program, U)
    assert cones(program.features(), U).min() < -0.1
    assert cones(program.features(), point).min() > -1e-10
    assert certificate.primal == program.objective(*point)
    assert certificate.cone_violation < 1e-10
    assert certificate.gap == certificate.primal - certificate.dual


@pytest.mark.parametrize("variant", ["relu", "gated"])
def test_negligible_blocks_leave_the_point_and_not_the_bound(make_program, variant):
    program = make_program(40, 5, 8, reg=0.5, variant=variant)
    U = np.random.default_rng(0).normal(size=(program.halves, 8, 5))
    V = U * np.where(np.arange(8) < 3, 1.0, 1e-5)[None, :, None]
    whole, certificate = certify(program, U, V)
    sparse, pruned = certify(program, U, V, negligible=1e-3)
    small = np.linalg.norm(V, axis=-1) < 1e-3
    assert whole[small].any()
    assert not sparse[small].any()
    np.testing.assert_array_equal(sparse[~small], whole[~small])
    assert pruned.dual == certificate.dual
    assert pruned.primal == program.objective(*sparse)


@both_losses
@pytest.mark.parametrize(("n", "d"), [(7, 2), (6, 3)])
def test_all_patterns_bound_is_below_the_network(make_program, optimum, loss, n, d):
    for seed in range(4):
        X = np.random.default_rng(seed).normal(size=(n, d))
        sampled = ConvexProgram(X, (-1.0) ** np.arange(n), sample_gates(X, 4, seed), 1.0, loss=loss)
        whole = replace(sampled, gates=enumerate_gates(sampled.X))
        for share in (0.05, 0.6):
            reg = share * reg_max(whole)
            best = optimum(whole.with_reg(reg))
            solution = solve(sampled.with_reg(reg), tol=1e-5, max_iter=20_000)
            z = -sampled.loss_function.derivative(
                fit(sampled.features(), np.stack([solution.v, solution.w])), sampled.y
            )
            bound = all_patterns_bound(sampled.with_reg(reg), z)
            # more patterns, lower optimum; the bound is below even that one, and says something
            assert 0 < bound <= best + 1e-7
            assert best <= solution.primal + 1e-7
            assert bound <= to_relu_network(sampled, solution).objective(sampled.with_reg(reg))


def test_a_sampled_certificate_says_nothing_of_the_network(make_program, optimum):
    # audit A7: the sampled dual value may exceed the optimum over all patterns
    sampled = make_program(8, 2, 2, reg=0.3)
    whole = replace(sampled, gates=enumerate_gates(sampled.X))
    assert solve(sampled, tol=1e-6, max_iter=20_000).dual > optimum(whole) + 1e-3


def test_all_patterns_bound_refuses_the_gated_program(make_program):
    with pytest.raises(ValueError, match="speaks of ReLU networks; the gated network is its own program"):
        all_patterns_bound(make_program(7, 2, 3, reg=0.3, variant="gated"), np.ones(7))
