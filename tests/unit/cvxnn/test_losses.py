"""The two losses: derivative, conjugate and proximal step against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from coala_lib.cvxnn.losses import LOSSES

RNG = np.random.default_rng(0)
T = np.concatenate([RNG.normal(size=20), 30 * RNG.normal(size=20), [0.0]])
SIGNS = np.sign(RNG.normal(size=len(T)))
both = pytest.mark.parametrize("name", ["squared", "logistic"])


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


def one(value):
    return np.array([value])


@both
def test_derivative_is_that_of_the_value(name):
    loss = LOSSES[name]
    slope = jax.grad(lambda t: loss.value(t, jnp.asarray(SIGNS)))(jnp.asarray(T))
    np.testing.assert_allclose(loss.derivative(T, SIGNS), slope, rtol=1e-12, atol=1e-14)
    curve = jax.vmap(jax.grad(jax.grad(lambda t, y: loss.value(t[None], y[None]))))(jnp.asarray(T), jnp.asarray(SIGNS))
    assert curve.max() <= loss.curvature * (1 + 1e-12)
    assert curve.max() >= 0.99 * loss.curvature


@both
def test_numpy_and_jax_agree(name):
    loss, z = LOSSES[name], -LOSSES[name].derivative(T, SIGNS)
    t, y, w = (jnp.asarray(a) for a in (T, SIGNS, z))
    for ours, theirs in [
        (loss.value(T, SIGNS), loss.value(t, y)),
        (loss.derivative(T, SIGNS), loss.derivative(t, y)),
        (loss.dual(z, SIGNS), loss.dual(w, y)),
        (loss.scale(z, SIGNS, 0.7), loss.scale(w, y, jnp.asarray(0.7))),
    ]:
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@both
def test_dual_is_minus_the_conjugate_at_minus_z(name):
    loss = LOSSES[name]
    for y in (1.0, -1.0):
        for a in (0.01, 0.3, 0.5, 0.99):
            z = y * a
            # -l*(-z) = min over t of l(t) + z t
            worst = minimize_scalar(
                lambda t, z=z, y=y: float(loss.value(one(t), one(y))) + z * t,
                bounds=(-60, 60),
                method="bounded",
                options={"xatol": 1e-10},
            )
            assert loss.dual(one(z), one(y)) == pytest.approx(worst.fun, abs=1e-8)


@both
def test_fenchel_young_holds_with_equality_at_the_derivative(name):
    loss = LOSSES[name]
    z = -loss.derivative(T, SIGNS)
    assert loss.dual(z, SIGNS) == pytest.approx(loss.value(T, SIGNS) + z @ T, rel=1e-9, abs=1e-9)
    assert loss.dual(0.5 * z, SIGNS) <= loss.value(T, SIGNS) + 0.5 * z @ T


@both
def test_scale_finds_the_best_dual_on_the_ray(name):
    # the logistic loss settles for the largest scale: its dual falls only where t has the wrong sign
    loss = LOSSES[name]
    t = 0.4 * SIGNS
    z = -loss.derivative(t, SIGNS)
    for most in (0.1, 0.9):
        found = loss.scale(z, SIGNS, most)
        assert 0 <= found <= most
        values = [loss.dual(s * z, SIGNS) for s in np.linspace(0, most, 50)]
        assert loss.dual(found * z, SIGNS) >= max(values) - 1e-9
    assert loss.scale(z, SIGNS, np.inf) >= 1
    assert np.isfinite(loss.dual(loss.scale(z, SIGNS, np.inf) * z, SIGNS))


def test_squared_scale_of_no_direction_is_no_nan():
    assert LOSSES["squared"].scale(np.zeros(3), np.ones(3), 1.0) == 0


@both
@pytest.mark.parametrize("tau", [1e-4, 0.25, 50.0])
def test_prox_is_stationary(name, tau):
    loss = LOSSES[name]
    t, y = jnp.asarray(T), jnp.asarray(SIGNS)
    s = jax.jit(lambda t, y: loss.prox(t, y, jnp.asarray(tau)))(t, y)
    np.testing.assert_allclose(loss.derivative(s, y) + tau * (s - t), 0, atol=1e-9)
    for nudge in (-1e-3, 1e-3):
        moved = s + nudge
        near = loss.value(moved, y) + tau / 2 * ((moved - t) ** 2).sum()
        assert near > loss.value(s, y) + tau / 2 * ((s - t) ** 2).sum()


def test_logistic_dual_ends_at_its_domain():
    dual = LOSSES["logistic"].dual
    assert dual(one(0.0), one(1.0)) == dual(one(1.0), one(1.0)) == 0
    assert dual(one(-0.01), one(1.0)) == dual(one(1.01), one(1.0)) == dual(one(0.5), one(-1.0)) == -np.inf
    assert dual(one(-0.5), one(-1.0)) == pytest.approx(np.log(2))


def test_rows_of_label_zero_do_not_count():
    # the solver pads the rows of a sharded X with them
    loss, t, y = LOSSES["logistic"], np.array([0.3, 5.0]), np.array([1.0, 0.0])
    assert loss.value(t, y) == loss.value(t[:1], y[:1])
    assert loss.derivative(t, y)[1] == 0
    assert loss.dual(np.array([0.4, 0.0]), y) == loss.dual(one(0.4), one(1.0))
    assert loss.dual(np.array([0.4, 0.1]), y) == -np.inf
    assert loss.prox(jnp.asarray(t), jnp.asarray(y), jnp.asarray(0.3))[1] == 5.0


def test_extreme_margins_stay_finite():
    loss, t = LOSSES["logistic"], np.array([1e4, -1e4])
    assert loss.value(t, np.ones(2)) == 1e4
    np.testing.assert_array_equal(loss.derivative(t, np.ones(2)), [0, -1])
