"""A head on disk: `head.safetensors`, `config.json` and `certificate.json`, checked before a weight is used."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from coala_lib._files import replacing
from coala_lib.cvxnn import ReluNetwork
from coala_lib.solution import Certificate

if TYPE_CHECKING:
    from coala_lib.preference.head import CoalaHead

FORMAT = 1


class HeadFileError(ValueError):
    """A folder that holds no whole head; the message says which file is wrong and how."""


def save_head(head: "CoalaHead", folder: str | os.PathLike[str]) -> Path:
    """Write a fitted head, each file whole or not at all.

    Args:
        head: a fitted `CoalaHead`.
        folder: made where absent.

    Returns:
        The folder.
    """
    folder = Path(folder)
    tensors = {
        "theta1": head.network_.theta1,
        "theta2": head.network_.theta2,
        "theta2_phase_one": head.theta2_phase_one_,
        "mean": head.mean_,
        "scale": head.scale_,
    }
    m, d = head.network_.theta1.shape
    classes = [value.item() for value in head.classes_]
    # parameters that came out of a search over numpy ranges are numpy scalars, which JSON does not know
    parameters = {name: getattr(value, "item", lambda v=value: v)() for name, value in head.get_params().items()}
    config = {"format": FORMAT, "d": d, "m": m, "classes": classes, "parameters": parameters}
    contents = {"config": config, "certificate": asdict(head.certificate_)}
    texts = {name: json.dumps(content, indent=1, sort_keys=True) + "\n" for name, content in contents.items()}
    with replacing(folder / "head.safetensors") as temporary:
        save_file({name: np.ascontiguousarray(value, np.float64) for name, value in tensors.items()}, temporary)
    for name, text in texts.items():
        with replacing(folder / f"{name}.json") as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder


def load_head(head: "CoalaHead", folder: str | os.PathLike[str]) -> "CoalaHead":
    """Fill an unfitted head from a folder.

    Args:
        head: an unfitted `CoalaHead`; its parameters are set from the folder.
        folder: what `save_head` wrote.

    Returns:
        The head, able to score but not to go on fitting Phase II.

    Raises:
        HeadFileError: naming the folder, where a file is missing, truncated, or does not fit the others.
    """
    folder = Path(folder)
    try:
        config, certificate = (json.loads((folder / f"{name}.json").read_text()) for name in ("config", "certificate"))
        tensors = load_file(folder / "head.safetensors")
        d, m = config["d"], config["m"]
        shapes = {"theta1": (m, d), "theta2": (m,), "theta2_phase_one": (m,), "mean": (d,), "scale": (d,)}
        if config["format"] != FORMAT or {name: value.shape for name, value in tensors.items()} != shapes:
            raise HeadFileError(f"{folder}: head.safetensors does not fit config.json; save the head again")
        head.set_params(**config["parameters"])
        head.certificate_ = Certificate(**certificate)
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise HeadFileError(f"{folder} holds no whole head ({error}); save it again") from None
    head.network_ = ReluNetwork(tensors["theta1"], tensors["theta2"])
    head.theta2_phase_one_, head.mean_, head.scale_ = (tensors[n] for n in ("theta2_phase_one", "mean", "scale"))
    head.classes_, head.n_features_in_ = np.array(config["classes"]), d
    return head
