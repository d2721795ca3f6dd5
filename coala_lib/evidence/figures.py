"""Figures drawn from a run's metrics and curves, never from loose variables.

Each function makes one figure, closes it and returns it: a notebook then shows exactly one image.
Colours are Okabe and Ito's, told apart by colour-blind readers; line styles and markers repeat the distinction.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Real
from matplotlib.figure import Figure
from matplotlib.patches import Wedge

from coala_lib.evidence.records import Curve, Metric

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^vP*"


def _finish(figure: Figure) -> Figure:
    figure.tight_layout()
    plt.close(figure)
    return figure


def lines(
    curves: Mapping[str, Curve],
    *,
    y_scale: str = "linear",
    x_scale: str = "linear",
    bands: Mapping[str, tuple[Curve, Curve]] | None = None,
) -> Figure:
    """Curves with the same axes in one panel.

    Args:
        curves: legend text -> curve; labels of the axes come from the first.
        y_scale, x_scale: matplotlib scale names.
        bands: legend text -> the curves of the interval's low and high ends, shaded.

    Returns:
        A closed figure.

    Raises:
        ValueError: where there is no curve, or the axes differ.
    """
    if len({(curve.x_label, curve.y_label) for curve in curves.values()}) != 1:
        raise ValueError("curves of one panel need the same axes, and at least one curve is needed")
    figure, axes = plt.subplots(figsize=(6, 3.4), dpi=120)
    for index, (name, curve) in enumerate(curves.items()):
        style = {"color": COLOURS[index % len(COLOURS)], "linestyle": STYLES[index % len(STYLES)]}
        axes.plot(curve.x, curve.y, label=name, marker=MARKERS[index % len(MARKERS)], markersize=3.5, **style)
        if bands and name in bands:
            low, high = bands[name]
            axes.fill_between(low.x, low.y, high.y, color=style["color"], alpha=0.15, linewidth=0)
    axes.set(xlabel=curve.x_label, ylabel=curve.y_label, xscale=x_scale, yscale=y_scale)
    drawn = np.unique(np.concatenate([curve.x for curve in curves.values()]))
    if x_scale == "log" and len(drawn) <= 8:
        axes.set_xticks(drawn, [f"{x:g}" for x in drawn])
        axes.set_xticks([], minor=True)
    if x_scale == "linear" and (np.mod(drawn, 1) == 0).all():
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(framealpha=0.8, edgecolor="none")
    return _finish(figure)


def intervals(
    metrics: Mapping[str, Metric],
    *,
    x_label: str,
    reference: float | None = None,
    controls: tuple[str, ...] = (),
    x_scale: str = "linear",
) -> Figure:
    """Point estimates with their 95 % intervals, one a line.

    Args:
        metrics: text of the line -> metric; the first stands at the top.
        x_label: what is measured, with its unit.
        reference: a value to mark with a vertical line, such as chance.
        controls: lines drawn as controls, hollow and in another colour.
        x_scale: matplotlib scale name.

    Returns:
        A closed figure.
    """
    figure, axes = plt.subplots(figsize=(6, 0.38 * len(metrics) + 1.0), dpi=120)
    for line, (name, metric) in enumerate(metrics.items()):
        control = name in controls
        colour = COLOURS[1] if control else COLOURS[0]
        if metric.low is not None and metric.high is not None:
            axes.plot([metric.low, metric.high], [line, line], color=colour, linewidth=2)
        marker = {"marker": "D" if control else "o", "markerfacecolor": "white" if control else colour}
        axes.plot(metric.value, line, color=colour, markersize=6, linestyle="none", **marker)
    if reference is not None:
        axes.axvline(reference, color="0.5", linestyle=":", linewidth=1)
    axes.set(yticks=range(len(metrics)), yticklabels=list(metrics), xlabel=x_label, xscale=x_scale)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    return _finish(figure)


def arrangement(X: Real[np.ndarray, "n 2"]) -> Figure:
    """The plane of gate vectors, cut by the hyperplanes of at most four rows: one colour a pattern.

    Args:
        X: (n, 2) rows, none zero and no two on one line.

    Returns:
        A closed figure: directions of the rows as arrows, their hyperplanes dashed, each cell with its pattern.

    Raises:
        ValueError: where there are more patterns than colours.
    """
    colours = (*COLOURS, "#F0E442")
    if X.shape[1] != 2 or 2 * len(X) > len(colours):
        raise ValueError(f"the picture shows at most {len(colours) // 2} rows in the plane; got {X.shape}")
    figure, axes = plt.subplots(figsize=(4.6, 4.6), dpi=120)
    walls = np.sort((np.degrees(np.arctan2(X[:, 1], X[:, 0]))[:, None] + [90, -90]) % 360, axis=None)
    for start, end, colour in zip(walls, [*walls[1:], walls[0] + 360], colours, strict=False):
        axes.add_patch(Wedge((0, 0), 1.0, start, end, facecolor=colour, alpha=0.35, edgecolor="none"))
        middle = np.radians((start + end) / 2)
        gate = np.array([np.cos(middle), np.sin(middle)])
        bits = "".join("1" if on else "0" for on in X @ gate >= 0)
        axes.text(*0.8 * gate, bits, ha="center", va="center", family="monospace", fontsize=9)
    for number, row in enumerate(X / np.linalg.norm(X, axis=1, keepdims=True), start=1):
        wall = np.array([-row[1], row[0]])
        axes.plot(*np.stack([-wall, wall]).T, color="0.25", linestyle="--", linewidth=1)
        axes.annotate("", 0.5 * row, (0, 0), arrowprops={"arrowstyle": "->", "linewidth": 1.6})
        axes.text(*0.57 * row, f"$x_{number}$", ha="center", va="center")
    axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), xlabel="first entry of $h$", ylabel="second entry of $h$")
    axes.set_aspect("equal")
    return _finish(figure)
