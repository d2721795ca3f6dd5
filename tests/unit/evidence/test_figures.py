import io

import matplotlib.pyplot as plt
import numpy as np
import pytest

from coala_lib.evidence import Metric, figures, thin


def pixels(figure: plt.Figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    file.seek(0)
    return plt.imread(file)


def test_lines_are_drawn_and_the_figure_is_closed() -> None:
    curve = thin([0, 1, 2], [3.0, 2.0, 1.0], "step", "gap")
    figure = figures.lines({"a": curve, "b": curve})
    assert plt.get_fignums() == []
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel(), len(axes.lines)) == ("step", "gap", 2)
    assert axes.lines[0].get_linestyle() != axes.lines[1].get_linestyle()
    assert pixels(figure).std() > 0


def test_lines_with_other_axes_do_not_share_a_panel() -> None:
    with pytest.raises(ValueError, match="same axes"):
        figures.lines({"a": thin([0], [1.0], "step", "gap"), "b": thin([0], [1.0], "step", "margin")})
    with pytest.raises(ValueError, match="at least one"):
        figures.lines({})


def test_ticks_fit_every_curve_not_the_last_one() -> None:
    few, many = (thin(x, np.ones(len(x)), "rank", "gap") for x in ([3, 50], np.geomspace(1, 1e4, 30)))
    (axes,) = figures.lines({"many": many, "few": few}, x_scale="log").axes
    assert len(axes.get_xticks()) > 2
    (axes,) = figures.lines({"two": few, "one": thin([7], [1.0], "rank", "gap")}, x_scale="log").axes
    assert axes.get_xticks().tolist() == [3, 7, 50]


def test_intervals_show_every_row_once_and_controls_apart() -> None:
    metrics = {"head": Metric(value=0.8, unit="1", low=0.7, high=0.9), "coin": Metric(value=0.5, unit="1")}
    figure = figures.intervals(metrics, x_label="accuracy", reference=0.5, controls=("coin",))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["head", "coin"]
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [line.get_xdata()[0] for line in points] == [0.8, 0.5]
    assert points[0].get_color() != points[1].get_color()
    assert points[1].get_markerfacecolor() == "white"


def test_bands_shade_their_own_curve() -> None:
    low, curve, high = (thin([0, 1], [y, y], "step", "gap") for y in (1.0, 2.0, 3.0))
    (axes,) = figures.lines({"a": curve, "b": curve}, bands={"b": (low, high)}).axes
    (band,) = axes.collections
    assert band.get_facecolor()[0, :3] == pytest.approx(plt.matplotlib.colors.to_rgb(axes.lines[1].get_color()))
    assert band.get_paths()[0].get_extents().ymin == 1.0


def test_an_arrangement_shows_every_pattern_once() -> None:
    X = np.random.default_rng(0).normal(size=(4, 2))
    (axes,) = figures.arrangement(X).axes
    bits = [text.get_text() for text in axes.texts if set(text.get_text()) <= {"0", "1"} and text.get_text()]
    assert len(bits) == len(set(bits)) == len(axes.patches) == 8
    assert len({patch.get_facecolor() for patch in axes.patches}) == 8
    with pytest.raises(ValueError, match="at most 4 rows"):
        figures.arrangement(np.ones((5, 2)))
