"""The same run gives the same bytes: an executed notebook without what differs between two runs of the same code.

Gone are papermill's cells and metadata, timings, warnings on stderr, random cell ids and memory addresses; execution
counts run from 1.
Two outputs may differ honestly: cells tagged `volatile` (they print seconds, memory or the device) and the record's
volatile fields. `results` is all the rest, in a form that can be compared.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import nbformat
from nbformat import NotebookNode

from coala_lib.workflow.chapters import code_cells, tags

Outputs = list[NotebookNode] | None
"""The outputs of one code cell; None where it was never executed."""

VOLATILE_FIELDS = frozenset(  # of a record
    ["seconds", "peak_bytes", "started", "library_commit", "library_dirty", "python", "packages", "device"]
)
VOLATILE_UNITS = frozenset(["s", "ms", "bytes", "MiB", "GiB", "tokens/s"])  # of a metric, or of a curve's axis
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",  # without it the book's highlighting falls back
}


def run_outputs(executed: NotebookNode) -> list[Outputs]:
    """The cleaned outputs of each code cell of a run, papermill's own cells left out."""
    cells = [cell for cell in code_cells(executed) if "injected-parameters" not in tags(cell)]
    return [_clean(cell.outputs) if cell.execution_count else None for cell in cells]


def paired(text: NotebookNode, outputs: Iterable[Outputs], stamp: Mapping[str, str]) -> NotebookNode:
    """The notebook to commit: the cells of the text, the outputs of a run, its stamp.

    Args:
        text: the chapter, as `chapters.read` returns it; left as it is.
        outputs: one entry for each code cell.
        stamp: what goes under `metadata.coala`.

    Returns:
        A notebook that depends on nothing but the arguments.
    """
    notebook = nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "cells": [], "metadata": {}})
    notebook.metadata = nbformat.from_dict({**text.metadata, "language_info": _LANGUAGE, "coala": dict(stamp)})
    remaining, count, ids = iter(outputs), 0, Counter()
    for cell in text.cells:
        new = nbformat.from_dict({**cell, "id": _cell_id(cell, ids)})
        if cell.cell_type == "code":
            found = next(remaining)
            count += 1
            new.execution_count = None if found is None else count
            new.outputs = [_numbered(output, count) for output in found or []]
        notebook.cells.append(new)
    return notebook


def serialise(notebook: NotebookNode) -> str:
    """The text of a notebook file."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def results(notebook: NotebookNode, outputs: Sequence[Outputs], stamp: Mapping[str, str]) -> list[Any]:
    """What a notebook claims, without what may differ between runs of the same code on the same library."""
    cells = [
        [cell.source, None if "volatile" in tags(cell) else _uncounted(found)]
        for cell, found in zip(code_cells(notebook), outputs, strict=True)
    ]
    return [{key: value for key, value in stamp.items() if key != "device"}, cells]


def record_results(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without its volatile fields, metrics and curves.

    Example:
        >>> one = {"seed": 0, "started": "now", "metrics": {"gap": {"unit": "1"}, "wall": {"unit": "s"}}, "curves": {}}
        >>> record_results(one)
        {'seed': 0, 'metrics': {'gap': {'unit': '1'}}, 'curves': {}}
    """
    kept = {key: value for key, value in record.items() if key not in VOLATILE_FIELDS}
    kept["metrics"] = {name: m for name, m in record["metrics"].items() if m["unit"] not in VOLATILE_UNITS}
    kept["curves"] = {
        name: curve
        for name, curve in record["curves"].items()
        if not any(f"[{unit}]" in curve["x_label"] + curve["y_label"] for unit in VOLATILE_UNITS)
    }
    return kept


def _clean(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            if kept and kept[-1].output_type == "stream":  # how often the kernel flushed is chance
                kept[-1].text += _ADDRESS.sub(" at 0x0", output.text)
                continue
            output = NotebookNode({**output, "text": _ADDRESS.sub(" at 0x0", output.text)})
        elif "text/plain" in output.get("data", {}):
            plain = _ADDRESS.sub(" at 0x0", output.data["text/plain"])
            output = NotebookNode({**output, "data": NotebookNode({**output.data, "text/plain": plain})})
        kept.append(output)
    return kept


def _numbered(output: NotebookNode, count: int) -> NotebookNode:
    return NotebookNode({**output, "execution_count": count}) if "execution_count" in output else output


def _uncounted(outputs: Outputs) -> str:
    return json.dumps(outputs and [{k: v for k, v in o.items() if k != "execution_count"} for o in outputs])


def _cell_id(cell: NotebookNode, used: Counter) -> str:
    """An id from the cell's content, so that a new cell leaves the ids of the others alone."""
    digest = hashlib.sha256(f"{cell.cell_type}\0{cell.source}".encode()).hexdigest()[:8]
    used[digest] += 1
    return digest if used[digest] == 1 else f"{digest}-{used[digest]}"
