"""What the convex network refuses, in which words, and which odd data it simply takes."""

import jax.numpy as jnp
import numpy as np
import pytest

from coala_lib.cvxnn import ConvexProgram, reg_max, sample_gates, solve, to_relu_network
from coala_lib.solution import Status

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4))
Y = np.sign(X[:, 0] * X[:, 1])
GATES = sample_gates(X, 5)


def with_entry(value):
    out = X.copy()
    out[3, 2] = value
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": with_entry(np.nan)}, "X holds NaN or infinite values, first in row 3"),
        ({"X": with_entry(np.inf)}, "X holds NaN or infinite values, first in row 3"),
        ({"X": X[:0], "y": Y[:0]}, r"X must have rows and columns, \(n, d\); got shape \(0, 4\)"),
        ({"X": X[:, :0]}, r"got shape \(30, 0\)"),
        ({"X": X[:, 0]}, r"got shape \(30,\)"),
        ({"y": Y[:-1]}, r"y must be 30 finite labels, one a row of X; got shape \(29,\)"),
        ({"y": Y[:, None]}, "y must be 30 finite labels"),
        ({"y": np.where(np.arange(30) == 4, np.nan, Y)}, "y must be 30 finite labels"),
        ({"y": np.ones(30)}, "y holds the single value 1.0; a preference head needs both classes"),
        ({"gates": GATES[:3]}, r"gates must be \(d, P\) with d = 4; got shape \(3, 5\)"),
        ({"gates": GATES[:, :0]}, r"gates must be \(d, P\)"),
        ({"gates": np.full((4, 2), np.nan)}, "gates hold NaN or infinite values"),
        ({"reg": 0.0}, "reg must be a positive number; got 0.0"),
        ({"reg": -1.0}, "reg must be a positive number"),
        ({"reg": float("nan")}, "reg must be a positive number"),
        ({"reg": float("inf")}, "reg must be a positive number"),
    ],
)
def test_program_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        ConvexProgram(**({"X": X, "y": Y, "gates": GATES, "reg": 0.1} | change))


@pytest.mark.parametrize("field", ["variant", "loss"])
def test_unknown_variant_and_loss_are_refused(field, without_annotations):
    with pytest.raises(ValueError, match=f"{field} must be '.*'; got 'hinge'"):
        ConvexProgram(X, Y, GATES, 0.1, **{field: "hinge"})


@pytest.mark.parametrize("settings", [{"tol": 0.0}, {"max_iter": 0}, {"rho": 0.0}, {"sigma": -1.0}])
def test_solver_refuses(settings):
    with pytest.raises(ValueError, match="must be positive; got"):
        solve(ConvexProgram(X, Y, GATES, 0.1), **settings)


@pytest.mark.parametrize(
    ("features", "n", "message"),
    [
        (X, 0, "n_gates must be at least 1; got 0"),
        (X[:0], 4, "X must be a finite matrix with rows and columns"),
        (with_entry(np.nan), 4, "X must be a finite matrix"),
        (np.zeros((5, 3)), 4, "are all rows of X zero"),
    ],
)
def test_gates_refuse(features, n, message):
    with pytest.raises(ValueError, match=message):
        sample_gates(features, n)


def test_gates_are_seeded_distinct_and_not_empty():
    gates = sample_gates(X, 12, seed=3)
    np.testing.assert_array_equal(gates, sample_gates(X, 12, seed=3))
    assert not np.array_equal(gates, sample_gates(X, 12, seed=4))
    patterns = (X @ gates >= 0).T
    assert len({p.tobytes() for p in patterns}) == 12
    assert patterns.any(axis=1).all()
    # four rows on a line have two patterns, and no search finds a third
    assert sample_gates(np.arange(1.0, 5.0)[:, None], 20).shape == (1, 1)


def odd_data(name):
    if name in {"float16", "bfloat16", "float32"}:
        return np.asarray(jnp.asarray(X, name)), Y
    wide = RNG.normal(size=(6, 9))
    return {
        "integers": (np.rint(3 * X).astype(int), Y),
        "constant column": (np.column_stack([X, np.ones(30)]), Y),
        "zero column": (np.column_stack([X, np.zeros(30)]), Y),
        "zero row": (X * (np.arange(30) > 0)[:, None], Y),
        "duplicate rows": (np.concatenate([X, X]), np.concatenate([Y, Y])),
        "contradicting rows": (np.concatenate([X, X[:5]]), np.concatenate([Y, -Y[:5]])),
        "rank one": (np.outer(X[:, 0], [1.0, 2.0, 3.0]), Y),
        "fewer rows than gates": (wide, np.sign(wide[:, 0])),
        "large": (1e4 * X, Y),
        "small": (1e-4 * X, Y),
    }[name]


@pytest.mark.parametrize(
    "name",
    "float16 bfloat16 float32|integers|constant column|zero column|zero row|duplicate rows|contradicting rows"
    "|rank one|fewer rows than gates|large|small".replace(" bf", "|bf")
    .replace("16 float32", "16|float32")
    .split("|"),
)
def test_odd_data_simply_work(name):
    features, labels = odd_data(name)
    gates = sample_gates(features, 8)
    scale = reg_max(ConvexProgram(features, labels, gates, reg=1.0))
    program = ConvexProgram(features, labels, gates, reg=0.2 * scale)
    sol = solve(program, tol=1e-2)
    assert sol.status is Status.SOLVED
    assert 0 < sol.dual <= sol.primal * (1 + 1e-12) < 0.5 * len(labels)
    net = to_relu_network(program, sol)
    loss = 0.5 * np.sum((net(program.X.astype(float)) - program.y) ** 2)
    decay = program.reg / 2 * (np.sum(net.theta1**2) + np.sum(net.theta2**2))
    assert loss + decay == pytest.approx(sol.primal, rel=1e-6)


def test_objective_does_not_depend_on_the_scale_of_the_data():
    # (X, reg) -> (s X, s reg) leaves the program the same with weights over s
    values = [solve(ConvexProgram(s * X, Y, GATES, s * 2.0), tol=1e-6, max_iter=20_000).primal for s in (1.0, 1e3)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
