"""What the convex network refuses, in which words, and which odd data it simply takes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from coala_lib.cvxnn import ConvexProgram, reg_max, reg_path, sample_gates, solve, to_relu_network
from coala_lib.solution import Status

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4))
Y = np.sign(X[:, 0] * X[:, 1])
GATES = sample_gates(X, 5)
PROGRAM = ConvexProgram(X, Y, GATES, 0.1)


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
        ({"loss": "logistic", "y": Y + 0.5}, "logistic loss needs labels .1 and -1; use loss='squared'"),
        ({"loss": "logistic", "y": (Y + 1) / 2}, "logistic loss needs labels"),
    ],
)
def test_program_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        ConvexProgram(**({"X": X, "y": Y, "gates": GATES, "reg": 0.1} | change))


@pytest.mark.parametrize("field", ["variant", "loss"])
def test_unknown_variant_and_loss_are_refused(field, without_annotations):
    with pytest.raises(ValueError, match=f"{field} must be '.*' or '.*'; got 'hinge'"):
        ConvexProgram(X, Y, GATES, 0.1, **{field: "hinge"})


@pytest.mark.parametrize("variant", ["relu", "gated"])
@pytest.mark.parametrize(
    "settings",
    [
        {"tol": 0.0},
        {"tol": float("nan")},
        {"max_iter": 0},
        {"rho": 0.0},
        {"sigma": -1.0},
        {"rank": 0},
        {"cg_steps": -2},
    ],
    ids=str,
)
def test_solver_refuses(settings, variant):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be positive; got"):
        solve(replace(PROGRAM, variant=variant), **settings)


def test_solver_refuses_an_unknown_method(without_annotations):
    with pytest.raises(ValueError, match="method must be one of woodbury, cg, nystrom, plain; got 'lu'"):
        solve(PROGRAM, method="lu")


def test_solver_refuses_an_unknown_algorithm(without_annotations):
    with pytest.raises(ValueError, match="algorithm must be 'newton' or 'admm'; got 'sgd'"):
        solve(PROGRAM, algorithm="sgd")


@pytest.mark.parametrize("settings", [{"method": "cg"}, {"algorithm": "admm"}], ids=str)
def test_solver_refuses_a_choice_of_algorithm_for_gates(settings):
    with pytest.raises(ValueError, match="the gated variant has one algorithm"):
        solve(replace(PROGRAM, variant="gated"), **settings)


@pytest.mark.parametrize("settings", [{"method": "woodbury"}, {"algorithm": "newton"}], ids=str)
def test_solver_refuses_on_a_mesh_what_keeps_rows_together(settings):
    with pytest.raises(ValueError, match="a mesh needs algorithm='admm' with method='cg'"):
        solve(PROGRAM, mesh=Mesh(np.array(jax.devices()[:1]), ("rows",)), **settings)


def test_solver_refuses_a_start_of_another_shape():
    relu, gated = (solve(replace(PROGRAM, variant=variant), tol=0.5) for variant in ("relu", "gated"))
    bare = replace(relu, state=None)
    fewer_rows = ConvexProgram(X[:20], Y[:20], GATES, 0.1)
    fewer_gates = ConvexProgram(X, Y, GATES[:, :3], 0.1)
    fewer_columns = ConvexProgram(X[:, :3], Y, GATES[:3], 0.1)
    for program, start in [
        (PROGRAM, gated),
        (replace(PROGRAM, variant="gated"), relu),
        (PROGRAM, bare),
        (fewer_rows, relu),
        (fewer_gates, relu),
        (fewer_columns, relu),
        (replace(fewer_gates, variant="gated"), gated),
    ]:
        shape = f"n = {len(program.X)}, d = {program.X.shape[1]}, P = {program.patterns.shape[1]}"
        with pytest.raises(
            ValueError, match=f"start must solve a {program.variant} program of the same shape: {shape}"
        ):
            solve(program, start=start)


@pytest.mark.parametrize("shares", [(), (0.0,), (0.5, 1.1), (-0.1,), (float("nan"),)])
def test_reg_path_refuses_shares(shares):
    with pytest.raises(ValueError, match=r"shares of reg_max lie in \(0, 1\]; got \["):
        reg_path(PROGRAM, shares)


def test_a_program_knows_its_parts():
    gated = replace(PROGRAM, variant="gated", loss="logistic")
    assert (PROGRAM.halves, gated.halves) == (2, 1)
    assert PROGRAM.loss_function.curvature == 1 != gated.loss_function.curvature
    assert gated.with_reg(0.7).reg == 0.7
    assert gated.with_reg(0.7).variant == "gated"
    assert PROGRAM.features(np.float32).X.dtype == np.float32
    np.testing.assert_array_equal(PROGRAM.patterns, X @ GATES.astype(float) >= 0)
    v, w = np.random.default_rng(1).normal(size=(2, 5, 4))
    fit = sum(PROGRAM.patterns[:, i] * (X @ (v - w)[i]) for i in range(5))
    norms = sum(np.linalg.norm(block) for block in (*v, *w))
    assert PROGRAM.objective(v, w) == pytest.approx(0.5 * np.sum((fit - Y) ** 2) + 0.1 * norms)
    fit = sum(PROGRAM.patterns[:, i] * (X @ v[i]) for i in range(5))
    norms = sum(np.linalg.norm(block) for block in v)
    assert gated.objective(v) == pytest.approx(np.sum(np.log1p(np.exp(-Y * fit))) + 0.1 * norms)


def test_gated_reg_max_is_larger_than_that_of_the_cones():
    for loss in ("squared", "logistic"):
        relu, gated = (reg_max(replace(PROGRAM, variant=variant, loss=loss)) for variant in ("relu", "gated"))
        assert 0 < relu < gated


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


ODD = "float16 bfloat16 float32|integers|constant column|zero column|zero row|duplicate rows|contradicting rows"
ODD = [*ODD.split("|")[0].split(), *ODD.split("|")[1:], "rank one", "fewer rows than gates", "large", "small"]


@pytest.mark.parametrize(("variant", "loss"), [("relu", "squared"), ("gated", "logistic")])
@pytest.mark.parametrize("name", ODD)
def test_odd_data_simply_work(name, variant, loss):
    features, labels = odd_data(name)
    gates = sample_gates(features, 8)
    program = ConvexProgram(features, labels, gates, reg=1.0, variant=variant, loss=loss)
    program = program.with_reg(0.2 * reg_max(program))
    solution = solve(program, tol=1e-2)
    assert solution.status is Status.SOLVED
    zero = program.objective(*np.zeros((2, *gates.T.shape)))
    assert 0 < solution.dual <= solution.primal * (1 + 1e-12) < zero
    if variant == "relu":
        network = to_relu_network(program, solution)
        assert network.objective(program) == pytest.approx(solution.primal, rel=1e-6)


@pytest.mark.parametrize("variant", ["relu", "gated"])
def test_objective_does_not_depend_on_the_scale_of_the_data(variant):
    # (X, reg) -> (s X, s reg) leaves the program the same with weights over s
    values = [
        solve(ConvexProgram(s * X, Y, GATES, s * 2.0, variant=variant), tol=1e-6, max_iter=20_000).primal
        for s in (1.0, 1e3)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
