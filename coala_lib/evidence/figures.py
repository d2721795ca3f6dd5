"""Figures drawn from a run's metrics and curves, never from loose variables.

Each function makes one figure, closes it and returns it: a notebook then shows exactly one image.
Colours are Okabe and Ito's, told apart by colour-blind readers; line styles and markers repeat the distinction.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from coala_lib.evidence.records import Curve, Metric

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^vP*"


def _finish(figure: Figure) -> Figure:
    figure.tight_layout()
    plt.close(figure)
    return figure


def lines(curves: Mapping[str, Curve], *, y_scale: str = "linear", x_scale: str = "linear") -> Figure:
    """Curves with the same axes in one panel.

    Args:
        curves: legend text -> curve; labels of the axes come from the first.
        y_scale, x_scale: matplotlib scale names.

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
    axes.set(xlabel=curve.x_label, ylabel=curve.y_label, xscale=x_scale, yscale=y_scale)
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(frameon=False)
    return _finish(figure)


def intervals(
    metrics: Mapping[str, Metric], *, x_label: str, reference: float | None = None, controls: tuple[str, ...] = ()
) -> Figure:
    """Point estimates with their 95 % intervals, one a line.

    Args:
        metrics: text of the line -> metric; the first stands at the top.
        x_label: what is measured, with its unit.
        reference: a value to mark with a vertical line, such as chance.
        controls: lines drawn as controls, hollow and in another colour.

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
    axes.set(yticks=range(len(metrics)), yticklabels=list(metrics), xlabel=x_label)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    return _finish(figure)
