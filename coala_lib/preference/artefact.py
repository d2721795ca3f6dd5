"""A head on disk: weights, configuration, certificate and model card, checked byte by byte before a weight is used.

    head.safetensors   the two layers, the standardisation, and the dual point that proves Phase I
    config.json        hyper-parameters, what the features are, the fingerprint of the training rows
    certificate.json   what was proved of both phases
    README.md          the model card
    SHA256SUMS         of the four, as `sha256sum -c` reads it

The folder appears whole or not at all. `scorer.py` reads it with numpy alone.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from coala_lib.cvxnn import ReluNetwork
from coala_lib.preference.card import model_card
from coala_lib.preference.folder import replacing_folder, standing
from coala_lib.preference.phase_one import GatedNetwork
from coala_lib.preference.phase_two import PhaseTwo, PhaseTwoStatus
from coala_lib.preference.separability import Separability
from coala_lib.preference.verify import verify_pairs, verify_rows
from coala_lib.solution import Certificate, Status

if TYPE_CHECKING:
    from coala_lib.preference.head import CoalaHead

FORMAT = 2
FILES = ("README.md", "certificate.json", "config.json", "head.safetensors")
SUMS = "SHA256SUMS"


class HeadFileError(ValueError):
    """A folder that holds no whole head; the message says which file is wrong and how."""


def save_head(
    head: "CoalaHead", folder: str | os.PathLike[str], features: Mapping | None = None, about: Mapping | None = None
) -> Path:
    """Write a fitted head; a kill at any moment leaves the former one whole.

    Args:
        head: a fitted `CoalaHead`.
        folder: a folder of the head's own, made where absent.
        features: what the features are, such as `dataclasses.asdict` of a feature file's manifest (backbone id and
            revision, layer, pooling, dtype); scoring refuses features that differ.
        about: for the card: "name", "data", "license", "evaluation" (a mapping of what was measured to its value).

    Returns:
        The folder.

    Raises:
        HeadFileError: where the folder holds other files, which would be lost.
    """
    folder = Path(folder)
    strange = sorted({file.name for file in folder.iterdir()} - {*FILES, SUMS}) if folder.is_dir() else []
    if strange:
        raise HeadFileError(f"{folder} holds other files, first {strange[0]!r}; give the head a folder of its own")
    config, certificate = _config(head, features or getattr(head, "features_", {}), about or {}), _certificate(head)
    network = head.network_
    tensors = {
        "theta1": network.theta1,
        "theta2": network.theta2,
        "theta2_phase_one": head.theta2_phase_one_,
        "mean": head.mean_,
        "scale": head.scale_,
        "dual_point": head.certificate_.dual_point,
    }
    if isinstance(network, GatedNetwork):
        tensors["gates"] = network.gates
    texts = {f"{name}.json": _json(value) for name, value in (("config", config), ("certificate", certificate))}
    # from what was written, so that a head that was loaded and saved again has the same card
    texts["README.md"] = model_card(*(json.loads(text) for text in texts.values()))
    with replacing_folder(folder) as new:
        tensors = {name: np.ascontiguousarray(value, np.float64) for name, value in tensors.items()}
        save_file(tensors, new / "head.safetensors")
        for name, text in texts.items():
            (new / name).write_text(text, encoding="utf-8")
        (new / SUMS).write_text(_sums(new), encoding="utf-8")
    return folder


def load_head(
    head: "CoalaHead", folder: str | os.PathLike[str], pairs: Sequence | None = None, rows: Sequence | None = None
) -> "CoalaHead":
    """Fill an unfitted head from a folder.

    Args:
        head: an unfitted `CoalaHead`; its parameters are set from the folder.
        folder: what `save_head` wrote.
        pairs: (X_chosen, X_rejected) that the head was trained on: its certificate is proved again.
        rows: (X, y) instead, for a head of labelled rows.

    Returns:
        The head.

    Raises:
        HeadFileError: naming the file that is missing, changed, or does not fit the others.
        VerificationError: where the certificate does not hold on the data.
    """
    config, certificate, tensors = read_folder(folder)
    try:
        d, m, n = (config[name] for name in "dmn")
        shapes = {"theta1": (m, d), "theta2": (m,), "theta2_phase_one": (m,), "mean": (d,), "scale": (d,)}
        shapes |= {"dual_point": (n,)} | ({"gates": (d, m)} if config["parameters"]["variant"] == "gated" else {})
        wrong = {name: (value.shape, str(value.dtype)) for name, value in tensors.items()}
        if config["format"] != FORMAT or wrong != {name: (shape, "float64") for name, shape in shapes.items()}:
            raise HeadFileError(f"{folder}: head.safetensors does not fit config.json; save the head again")
        head.set_params(**config["parameters"])
        one, two = certificate["phase_one"], certificate["phase_two"]
        bounds = (one[name] for name in ("primal", "dual", "kkt_residual", "cone_violation"))
        head.certificate_ = Certificate(*bounds, dual_point=tensors["dual_point"])
        head.status_, head.n_iter_, head.reg_ = Status[one["status"]], one["n_iter"], one["reg"]
        head.phase_two_ = None if two is None else _phase_two(two, tensors["theta2"])
        head.form_, head.n_rows_, head.fingerprint_ = config["form"], n, config["fingerprint"]
        head.features_, head.about_, head.dtype_ = config["features"], config["about"], config["dtype"]
        head.classes_, head.n_features_in_ = np.array(config["classes"]), d
    except (KeyError, TypeError) as error:
        raise HeadFileError(f"{folder} holds no whole head ({error}); save it again") from None
    gates = (tensors["gates"],) if "gates" in tensors else ()
    head.network_ = (GatedNetwork if gates else ReluNetwork)(tensors["theta1"], tensors["theta2"], *gates)
    head.theta2_phase_one_ = tensors["theta2_phase_one"]
    head.mean_, head.scale_ = tensors["mean"], tensors["scale"]
    if pairs is not None:
        verify_pairs(head, *pairs)
    if rows is not None:
        verify_rows(head, *rows)
    return head


def read_folder(folder: str | os.PathLike[str]) -> tuple[dict, dict, dict[str, np.ndarray]]:
    """(config, certificate, tensors) of a folder whose bytes are those that were saved.

    Raises:
        HeadFileError: naming the file that is missing or changed.
    """
    folder = standing(folder)
    try:
        if (folder / SUMS).read_bytes() != _sums(folder).encode():
            lines = (folder / SUMS).read_bytes().decode(errors="replace").splitlines()
            changed = [line[66:] for line in _sums(folder).splitlines() if line not in lines] or [SUMS]
            raise HeadFileError(f"{folder / changed[0]} is not the file that was saved; save the head again")
        config, certificate = (json.loads((folder / f"{n}.json").read_text("utf-8")) for n in ("config", "certificate"))
        return config, certificate, load_file(folder / "head.safetensors")
    except (OSError, SafetensorError, ValueError) as error:
        if isinstance(error, HeadFileError):
            raise
        raise HeadFileError(f"{folder} holds no whole head ({error}); save it again") from None


def _sums(folder: Path) -> str:
    return "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES)


def _json(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _config(head: "CoalaHead", features: Mapping, about: Mapping) -> dict:
    m, d = head.network_.theta1.shape
    # parameters that came out of a search over numpy ranges are numpy scalars, which JSON does not know
    parameters = {name: getattr(value, "item", lambda v=value: v)() for name, value in head.get_params().items()}
    return {
        "format": FORMAT,
        "library": f"coala-lib {version('coala-lib')}",
        **{"n": head.n_rows_, "d": d, "m": m},
        "classes": [value.item() for value in head.classes_],
        "parameters": parameters,
        "dtype": head.dtype_,
        "form": head.form_,
        "fingerprint": head.fingerprint_,
        "features": dict(features),
        "about": dict(about or getattr(head, "about_", {})),
    }


def _certificate(head: "CoalaHead") -> dict:
    c, two = head.certificate_, head.phase_two_
    one = {name: float(getattr(c, name)) for name in ("primal", "dual", "kkt_residual", "cone_violation", "gap")}
    one |= {"status": head.status_.name, "n_iter": int(head.n_iter_), "reg": float(head.reg_)}
    if two is None:
        return {"phase_one": one, "phase_two": None}
    kept = {"method": two.method, "status": two.status.name, "loss": two.loss, "bound": two.bound, "n_iter": two.n_iter}
    apart = two.separability and {"kind": two.separability.kind, "margin": two.separability.margin}
    return {"phase_one": one, "phase_two": kept | {"separability": apart}}


def _phase_two(saved: dict, theta: np.ndarray) -> PhaseTwo:
    apart = saved["separability"] and Separability(**saved["separability"], direction=None)
    none = np.empty(0)  # the path is not saved
    facts = saved["loss"], saved["bound"], saved["n_iter"], saved["method"], PhaseTwoStatus[saved["status"]], apart
    return PhaseTwo(theta, *facts, none, none, none, none)
