"""Reference outputs of transformers' own models: `make parity` (needs PyTorch) writes them, and checks the way back.

The test beside this file compares our decoder with them, so that running the tests needs no PyTorch.
"""

import json
import tempfile
from pathlib import Path

import numpy as np

from tests.numerics import tiny_models

MODEL = Path(__file__).resolve().parents[2] / "notebooks" / "fixtures" / "edu-lm"
REFERENCE = Path(__file__).with_name("transformers_llama.json")
FAMILIES = Path(__file__).with_name("transformers_families.json")
TEXTS = (
    "<|user|>What is the coupled oscillator?<|assistant|>It is a rule for change.<|user|>",
    "<|user|>Sorry, I am lost. Where does the polar salt come from?<|assistant|>",
    "<|user|>the the of<|assistant|>Listen.<|user|>Okay. What sets it apart?<|assistant|>",
)
POSITIONS = (0, 3, -1)


def _rounded(values: np.ndarray) -> list:
    return np.round(values.astype(float), 5).tolist()


def _load(folder: Path):
    """transformers' model of a folder, refused if it misses a weight or leaves one unread."""
    import torch
    import transformers

    model, said = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(said[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), (folder, said)
    return model.eval()


def _run(model, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(logits, hidden states of all layers)."""
    import torch

    with torch.no_grad():
        out = model(torch.tensor(ids), output_hidden_states=True)
    return out.logits.numpy(), np.stack([layer.numpy() for layer in out.hidden_states])


def trained() -> list[dict]:
    """Outputs on the committed model."""
    import transformers

    tokenizer, model, rows = transformers.AutoTokenizer.from_pretrained(MODEL), _load(MODEL), []
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        logits, hidden = _run(model, np.array([ids]))
        rows.append(
            {
                "ids": ids,
                "logits": [_rounded(logits[0, at, :64]) for at in POSITIONS],
                "hidden": [_rounded(layer[0, -1, :16]) for layer in hidden],
            }
        )
    return rows


def families() -> dict[str, dict]:
    """Outputs on the tiny models; what our decoder saves again must give transformers the same."""
    from coala_lib.lm.checkpoint import load_decoder, save_decoder

    found = {}
    for case in tiny_models.CASES:
        with tempfile.TemporaryDirectory() as place:
            folder = tiny_models.write(case, Path(place) / "theirs")
            logits, hidden = _run(_load(folder), tiny_models.tokens())
            for scan in (False, True):
                saved = save_decoder(
                    load_decoder(folder, scan=scan), Path(place) / f"ours-{scan}", "float32", shard_bytes=20_000
                )
                again, _ = _run(_load(saved), tiny_models.tokens())
                np.testing.assert_array_equal(again, logits)
        found[case] = {
            "logits": _rounded(logits[:, POSITIONS]),
            "hidden": _rounded(hidden[:, 1, -1, :16]),
        }
        print(f"{case}: saved and read again by transformers")
    return found


def main() -> None:
    import torch
    import transformers

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    for file, content in ((REFERENCE, {"rows": trained()}), (FAMILIES, {"cases": families()})):
        file.write_text(json.dumps({"versions": versions} | content, indent=1) + "\n")


if __name__ == "__main__":
    main()
