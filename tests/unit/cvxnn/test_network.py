"""From convex weights to a network and back: same outputs, no higher objective."""

from dataclasses import replace

import numpy as np
import pytest

from coala_lib.cvxnn import (
    ConvexProgram,
    ReluNetwork,
    certify,
    enumerate_gates,
    from_relu_network,
    mismatch,
    project_cones,
    prune,
    reg_max,
    sample_gates,
    solve,
    to_relu_network,
)
from coala_lib.cvxnn.operators import cones, fit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3))
Y = np.sign(RNG.normal(size=8))
WHOLE = ConvexProgram(X, Y, enumerate_gates(X), 0.1)
LOSSES = pytest.mark.parametrize("loss", ["squared", "logistic"])


@LOSSES
def test_every_network_has_convex_weights_that_cost_no_more(loss):
    program = replace(WHOLE, loss=loss)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        network = ReluNetwork(rng.normal(size=(7, 3)), rng.normal(size=7))
        U = from_relu_network(program, network)
        assert cones(program.features(), U).min() >= -1e-9
        np.testing.assert_allclose(fit(program.features(), U), network(X), atol=1e-12)
        assert program.objective(*U) < network.objective(program)


@LOSSES
def test_round_trip_of_a_solution(loss):
    # projected blocks lie on their cones' boundary, up to rounding on either side
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(20, 3))
        program = ConvexProgram(rows, np.sign(rows[:, 0] * rows[:, 1]), sample_gates(rows, 6, seed), 1.0, loss=loss)
        program = program.with_reg(0.1 * reg_max(program))
        solution = solve(program, tol=1e-4, max_iter=20_000)
        network = to_relu_network(program, solution)
        U = from_relu_network(program, network)
        assert program.objective(*U) == pytest.approx(solution.primal, rel=1e-9)
        np.testing.assert_allclose(fit(program.features(), U), network(rows), atol=1e-8)
        # each neuron is balanced, so its weight decay is the norm of its block
        np.testing.assert_allclose(np.linalg.norm(network.theta1, axis=1), np.abs(network.theta2))
        assert mismatch(program, solution.v, solution.w) < 1e-9


def test_neurons_of_one_pattern_and_sign_add_up():
    gate = WHOLE.gates[:, 0]
    network = ReluNetwork(np.stack([gate, 2 * gate, gate]), np.array([1.0, 3.0, -2.0]))
    U = from_relu_network(WHOLE, network)
    assert np.count_nonzero(np.linalg.norm(U, axis=-1)) == 2
    np.testing.assert_allclose(U[0].sum(axis=0), 7 * gate)
    np.testing.assert_allclose(U[1].sum(axis=0), 2 * gate)


def test_dead_neurons_leave_no_weights():
    network = ReluNetwork(np.stack([np.zeros(3), WHOLE.gates[:, 0]]), np.array([1.0, 0.0]))
    assert not from_relu_network(WHOLE, network).any()


def test_a_pattern_outside_the_program_is_refused():
    few = replace(WHOLE, gates=WHOLE.gates[:, :1])
    with pytest.raises(ValueError, match="pattern is not among the program's: list all with enumerate_gates"):
        from_relu_network(few, ReluNetwork(-WHOLE.gates[:, :1].T, np.array([1.0])))


def test_a_gated_program_takes_no_network():
    with pytest.raises(ValueError, match="maps to the ReLU program; this one is gated"):
        from_relu_network(replace(WHOLE, variant="gated"), ReluNetwork(np.ones((1, 3)), np.ones(1)))


def test_a_gated_block_on_its_gates_boundary_cannot_be_split():
    program = ConvexProgram(np.eye(2), [1, -1], np.array([[0.0], [1.0]]), 0.1, variant="gated")
    solution = solve(program)
    moved = replace(solution, v=np.array([[-1.0, -1.0]]))
    with pytest.raises(ValueError, match="row 0 lies on its gate's boundary"):
        to_relu_network(program, moved)


def test_network_is_what_it_says():
    network = ReluNetwork(np.array([[1.0, -1.0, 0.0], [0.0, 2.0, 1.0]]), np.array([2.0, -3.0]))
    expected = 2 * np.maximum(X[:, 0] - X[:, 1], 0) - 3 * np.maximum(2 * X[:, 1] + X[:, 2], 0)
    np.testing.assert_allclose(network(X), expected)
    assert network.hidden(X).min() == 0
    decay = 0.1 / 2 * (2 + 5 + 4 + 9)
    assert network.objective(WHOLE) == pytest.approx(0.5 * np.sum((expected - Y) ** 2) + decay)


def test_mismatch_measures_weights_outside_their_cones():
    v, w = RNG.normal(size=(2, WHOLE.patterns.shape[1], 3))
    A = WHOLE.features()
    expected = np.maximum(X @ v.T, 0).sum(axis=1) - np.maximum(X @ w.T, 0).sum(axis=1)
    model = fit(A, np.stack([v, w]))
    size = np.linalg.norm(expected - model) / np.linalg.norm(model)
    assert mismatch(WHOLE, v, w) == pytest.approx(size)
    assert size > 0.01
    assert mismatch(WHOLE, *project_cones(A, np.stack([v, w]))) < 1e-9
    assert mismatch(WHOLE, 0 * v, 0 * w) == 0


@LOSSES
def test_pruning_keeps_outputs_and_needs_no_more_neurons_than_rows(loss):
    # solutions at a tight gap share a neuron between cones: dependent columns, exact only up to rounding
    for seed in range(4):
        rng = np.random.default_rng([0, seed])
        rows = rng.normal(size=(8, 2))
        outputs = ReluNetwork(rng.normal(size=(4, 2)), np.array([1.0, -1.0, 1.0, -1.0]))(rows)
        targets = np.where(outputs > np.median(outputs), 1.0, -1.0)
        program = ConvexProgram(rows, targets, enumerate_gates(rows), 1.0, loss=loss)
        program = program.with_reg(0.05 * reg_max(program))
        network = to_relu_network(program, solve(program, tol=1e-9))
        small = prune(network, rows)
        assert len(small.theta2) <= min(len(rows), len(network.theta2))
        np.testing.assert_allclose(small(rows), network(rows), atol=1e-9)
        assert small.objective(program) <= network.objective(program) * (1 + 1e-9)


# with one equation a row, the linear program of each of these was called infeasible: equations equal up to rounding
@pytest.mark.parametrize(("reg", "n", "seed"), [(0.1, 8, 1), (0.05, 20, 3), (0.05, 20, 6), (0.02, 10, 3)])
def test_pruning_takes_equations_that_are_equal_up_to_rounding(reg, n, seed):
    rng = np.random.default_rng([0, seed])
    rows = rng.normal(size=(n + 2000, 2))[:n]
    outputs = ReluNetwork(rng.normal(size=(4, 2)), np.array([1.0, -1.0, 1.0, -1.0]))(rows)
    program = ConvexProgram(rows, np.where(outputs > np.median(outputs), 1.0, -1.0), enumerate_gates(rows), 1.0)
    program = program.with_reg(reg * reg_max(program))
    solution = solve(program, tol=1e-9)
    (v, w), _ = certify(program, *solution.state[:2])  # with the tiny blocks that `solve` leaves out
    network = to_relu_network(program, replace(solution, v=v, w=w))
    small = prune(network, rows)
    assert len(small.theta2) < len(network.theta2)
    np.testing.assert_allclose(small(rows), network(rows), atol=1e-12)  # HiGHS alone meets an equation to 1e-7


def test_pruning_many_equal_neurons_leaves_one():
    network = ReluNetwork(np.outer([1.0, 2.0, 3.0, 0.0], WHOLE.gates[:, 0]), np.ones(4))
    small = prune(network, X)
    assert len(small.theta2) == 1
    np.testing.assert_allclose(small(X), network(X), atol=1e-12)


def test_pruning_a_network_that_is_zero_leaves_no_neuron():
    small = prune(ReluNetwork(np.zeros((2, 3)), np.ones(2)), X)
    assert small.theta1.shape == (0, 3)
    np.testing.assert_array_equal(small(X), np.zeros(len(X)))
