"""`CoalaHead` as scikit-learn and its users meet it."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from coala_lib import CoalaHead
from coala_lib.preference import fit_phase_two
from coala_lib.preference.verify import verify_pairs
from coala_lib.solution import Status

N, D = 60, 5
SETTINGS = {"n_gates": 6, "reg": 0.2, "tol": 1e-3}


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    return rng.normal(0.4, 1, (N, D)), rng.normal(-0.4, 1, (N, D))


@pytest.fixture(scope="module")
def rows(pairs):
    return np.concatenate(pairs), np.repeat([1, 0], N)


@pytest.fixture(scope="module")
def fitted(pairs):
    return CoalaHead(**SETTINGS).fit_pairs(*pairs)


def spoilt(X, value):
    out = X.copy()
    out[7, 1] = value
    return out


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_missing_values_give_one_sentence(pairs, rows, fitted, value):
    calls = {
        "X_chosen": lambda: CoalaHead().fit_pairs(spoilt(pairs[0], value), pairs[1]),
        "X_rejected": lambda: CoalaHead().fit_pairs(pairs[0], spoilt(pairs[1], value)),
        "X": lambda: CoalaHead().fit(spoilt(rows[0], value), rows[1]),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=rf"^{name} holds NaN or infinite values, first in row 7; [^\n.]*$"):
            call()
    with pytest.raises(ValueError, match=r"^X holds NaN or infinite values, first in row 7"):
        fitted.decision_function(spoilt(pairs[0], value))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_gates": 0}, "'n_gates' parameter of CoalaHead must be an int in the range"),
        ({"reg": 0.0}, "'reg' parameter"),
        ({"reg": 1.0}, "'reg' parameter"),
        ({"beta": -1.0}, "'beta' parameter"),
        ({"ridge": 0.0}, "'ridge' parameter"),
        ({"rho": 0.0}, "'rho' parameter"),
        ({"variant": "leaky"}, "'variant' parameter"),
        ({"loss": "hinge"}, "'loss' parameter"),
        ({"phase_two": "sgd"}, "'phase_two' parameter"),
        ({"tol": 0.0}, "'tol' parameter"),
        ({"max_iter": 0}, "'max_iter' parameter"),
    ],
)
def test_parameters_out_of_range_are_refused(rows, settings, message):
    with pytest.raises(ValueError, match=message):
        CoalaHead(**settings).fit(*rows)


def test_shapes_and_classes_are_checked(pairs, rows, fitted, without_annotations):
    with pytest.raises(ValueError, match=r"must pair up; got \(60, 5\) and \(3, 5\)"):
        CoalaHead().fit_pairs(pairs[0], pairs[1][:3])
    with pytest.raises(ValueError, match="two classes; got 1 class"):
        CoalaHead().fit(rows[0], np.ones(2 * N))
    with pytest.raises(ValueError, match=r"Only binary classification is supported.*y holds 3 classes"):
        CoalaHead().fit(rows[0], np.arange(2 * N) % 3)
    with pytest.raises(ValueError, match="0 sample"):
        CoalaHead().fit_pairs(pairs[0][:0], pairs[1][:0])
    with pytest.raises(ValueError, match="0 feature"):
        CoalaHead().fit_pairs(pairs[0][:, :0], pairs[1][:, :0])
    with pytest.raises(ValueError, match="expecting 5 features"):
        fitted.decision_function(pairs[0][:, :4])
    with pytest.raises(NotFittedError):
        CoalaHead().decision_function(pairs[0])
    with pytest.raises(ValueError, match="are chosen and rejected the same rows"):
        CoalaHead(**SETTINGS).fit_pairs(pairs[0], pairs[0])


def test_fit_sets_what_it_promises(fitted, pairs):
    assert fitted.status_ is Status.SOLVED
    assert fitted.certificate_.relative_gap <= SETTINGS["tol"]
    assert fitted.phase_two_.bound <= 1e-9
    assert fitted.n_features_in_ == D
    assert fitted.reg_ > 0
    Z = (pairs[0] - fitted.mean_) / fitted.scale_
    np.testing.assert_allclose(fitted.decision_function(pairs[0]), fitted.network_(Z))
    both = np.concatenate([Z, (pairs[1] - fitted.mean_) / fitted.scale_])
    assert np.square(both).sum(axis=1).mean() == pytest.approx(1)
    # Phase II really ran on pair differences, from the Phase-I weights
    hidden = fitted.network_.hidden(both)
    again = fit_phase_two(hidden[:N] - hidden[N:], fitted.theta2_phase_one_)
    np.testing.assert_allclose(fitted.network_.theta2, again.theta)
    assert not np.allclose(fitted.network_.theta2, fitted.theta2_phase_one_)


def test_rows_and_their_classes(rows):
    X, y = rows
    head = CoalaHead(**SETTINGS).fit(X, np.where(y, "good", "bad"))
    assert head.classes_.tolist() == ["bad", "good"]
    reward = head.decision_function(X)
    assert (head.predict(X) == np.where(reward > 0, "good", "bad")).all()
    assert head.score(X, np.where(y, "good", "bad")) > 0.7
    signs = np.where(y == 1, 1.0, -1.0)
    hidden = head.network_.hidden((X - head.mean_) / head.scale_)
    again = fit_phase_two(signs[:, None] * hidden, head.theta2_phase_one_)
    np.testing.assert_allclose(head.network_.theta2, again.theta)


def test_pair_accuracy_counts_ties_half(fitted, pairs):
    chosen, rejected = pairs
    assert fitted.score_pairs(chosen, chosen) == 0.5
    assert fitted.score_pairs(chosen, rejected) + fitted.score_pairs(rejected, chosen) == pytest.approx(1)
    wins = fitted.decision_function(chosen) > fitted.decision_function(rejected)
    assert fitted.score_pairs(chosen, rejected) == wins.mean() > 0.7


def test_sklearn_conventions(rows):
    head = CoalaHead(n_gates=6, ridge=0.5)
    assert head.get_params() == clone(head).get_params()
    assert clone(head).set_params(ridge=0.25).ridge == 0.25
    pipeline = make_pipeline(StandardScaler(), CoalaHead(**SETTINGS)).fit(*rows)
    assert pipeline.score(*rows) > 0.7
    np.testing.assert_allclose(
        pipeline.decision_function(rows[0]), CoalaHead(**SETTINGS).fit(*rows).decision_function(rows[0]), atol=1e-6
    )


QUICK = {"n_gates": 4, "reg": 0.2, "tol": 1e-2, "max_iter": 200}


@estimator_checks.parametrize_with_checks([CoalaHead(**QUICK, variant="gated")])
def test_every_check_of_scikit_learn(estimator, check, without_annotations):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # checks that set max_iter to one
        check(estimator)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_classifiers_train,
        estimator_checks.check_classifiers_one_label,
        estimator_checks.check_fit2d_1sample,
        estimator_checks.check_methods_subset_invariance,
        estimator_checks.check_estimators_pickle,
    ],
    ids=lambda check: check.__name__,
)
def test_checks_that_depend_on_the_variant(check, without_annotations):
    # the ReLU head passes all of them; every one compiles its program for another shape, three times as long as above
    check("CoalaHead", CoalaHead(**QUICK))


def test_grid_search_and_frames(rows, without_annotations):
    X, y = pd.DataFrame(rows[0], columns=list("abcde")), rows[1]
    pipeline = make_pipeline(StandardScaler(), CoalaHead(**SETTINGS)).set_output(transform="pandas")
    search = GridSearchCV(pipeline, {"coalahead__margin": [0.0, 1.0]}, cv=2).fit(X, y)
    best = search.best_estimator_
    assert best[-1].feature_names_in_.tolist() == list("abcde")
    assert search.best_score_ > 0.6
    with pytest.raises(ValueError, match="feature names"):
        best[-1].decision_function(X.rename(columns={"a": "z"}))


def test_probabilities(fitted, pairs, rows):
    proba = fitted.predict_proba(rows[0])
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(proba[:, 1] > 0.5, fitted.decision_function(rows[0]) > 0)
    ahead = fitted.predict_proba_pairs(*pairs)
    np.testing.assert_allclose(ahead + fitted.predict_proba_pairs(*pairs[::-1]), 1)
    assert np.mean(ahead > 0.5) == fitted.score_pairs(*pairs)


@pytest.mark.parametrize("settings", [{"variant": "gated"}, {"loss": "logistic"}, {"rho": 0.5}])
def test_variants_are_certified_too(pairs, settings):
    head = CoalaHead(**SETTINGS | settings).fit_pairs(*pairs)
    assert head.status_ is Status.SOLVED
    assert verify_pairs(head, *pairs).gap <= 1e-3 * abs(head.certificate_.dual)
    assert head.score_pairs(*pairs) > 0.7
    score = head.scorer()(jnp.asarray(pairs[0], jnp.float32), None)
    np.testing.assert_allclose(score, head.decision_function(pairs[0]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["agd", "lbfgs"])
def test_phase_two_by_other_methods_is_the_same_head(pairs, fitted, method):
    head = CoalaHead(**SETTINGS, phase_two=method).fit_pairs(*pairs)
    np.testing.assert_allclose(head.network_.theta2, fitted.network_.theta2, atol=1e-3)
    assert head.phase_two_.method == method


def test_without_phase_two_the_weights_are_those_of_phase_one(pairs, fitted):
    head = CoalaHead(**SETTINGS, phase_two="none").fit_pairs(*pairs)
    np.testing.assert_array_equal(head.network_.theta2, fitted.theta2_phase_one_)
    assert head.phase_two_ is None


def test_an_unfinished_solve_warns(pairs):
    with pytest.warns(ConvergenceWarning, match="Phase I: stopped at max_iter"):
        head = CoalaHead(**SETTINGS | {"tol": 1e-6, "max_iter": 20, "rho": 0.5}).fit_pairs(*pairs)
    assert head.certificate_.gap > 0
    with pytest.raises(ValueError, match="no weights yet: stopped at max_iter"):
        CoalaHead(**SETTINGS | {"max_iter": 1, "rho": 0.5}).fit_pairs(*pairs)


def test_the_path_is_that_of_single_fits(pairs, fitted):
    held_out = [X[:20] + 0.1 for X in pairs]
    path = CoalaHead(**SETTINGS).reg_path(*pairs, regs=[0.05, 0.4, 0.2], held_out=held_out)
    assert path.regs.tolist() == [0.4, 0.2, 0.05]
    assert [head.reg for head in path.heads] == [0.4, 0.2, 0.05]
    assert all(head.certificate_.relative_gap <= 1e-3 for head in path.heads)
    # warm-started, so equal up to the tolerance, and certified against the same bounds
    assert path.heads[1].certificate_.primal == pytest.approx(fitted.certificate_.primal, rel=1e-3)
    assert path.heads[1].reg_ == pytest.approx(fitted.reg_)
    np.testing.assert_allclose(path.accuracies, [head.score_pairs(*held_out) for head in path.heads])
    assert path.best == np.argmax(path.accuracies)
    assert path.best_head is path.heads[path.best]
    with pytest.raises(ValueError, match="nothing was held out"):
        _ = CoalaHead(**SETTINGS).reg_path(*pairs, regs=[0.4]).best_head
    with pytest.raises(ValueError, match=r"shares of reg_max in \(0, 1\)"):
        CoalaHead(**SETTINGS).reg_path(*pairs, regs=[0.1, 1.5])


def test_equal_seeds_give_equal_heads(pairs, fitted):
    again, other = (CoalaHead(**SETTINGS, random_state=s).fit_pairs(*pairs) for s in (0, 1))
    np.testing.assert_array_equal(again.network_.theta1, fitted.network_.theta1)
    assert again.network_.theta1.shape != other.network_.theta1.shape or not np.allclose(
        again.network_.theta1, other.network_.theta1
    )


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 2e-2), ("float16", 5e-2), ("bfloat16", 2e-1)])
def test_narrow_features_agree_with_float64(pairs, fitted, dtype, atol):
    narrow = [np.asarray(jnp.asarray(X, dtype)) for X in pairs]
    head = CoalaHead(**SETTINGS).fit_pairs(*narrow)
    assert head.status_ is Status.SOLVED
    np.testing.assert_allclose(head.decision_function(narrow[0]), fitted.decision_function(pairs[0]), atol=atol)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 + 0.1])
def test_constant_columns_carry_nothing(pairs, fitted, constant):
    wide = [np.column_stack([X, np.full(N, constant)]) for X in pairs]
    head = CoalaHead(**SETTINGS).fit_pairs(*wide)
    assert np.isinf(head.scale_[-1])
    moved = wide[0].copy()
    moved[:, -1] += 5
    np.testing.assert_array_equal(head.decision_function(moved), head.decision_function(wide[0]))


def test_units_of_the_features_do_not_matter(pairs, fitted):
    units = np.array([1e-8, 1e-3, 1.0, 1e3, 1e8])
    scaled = CoalaHead(**SETTINGS).fit_pairs(*(X * units for X in pairs))
    np.testing.assert_allclose(
        scaled.decision_function(pairs[0] * units), fitted.decision_function(pairs[0]), atol=1e-5
    )


@pytest.mark.parametrize("phase", [1, 2])
def test_scorer_is_the_reward_inside_jit(fitted, pairs, phase):
    score = jax.jit(fitted.scorer(phase))(jnp.asarray(pairs[0], jnp.float32), None)
    theta2 = fitted.network_.theta2 if phase == 2 else fitted.theta2_phase_one_
    hidden = fitted.network_.hidden((pairs[0] - fitted.mean_) / fitted.scale_)
    np.testing.assert_allclose(score, hidden @ theta2, rtol=1e-3, atol=1e-4)
