"""Reference outputs of transformers' own Llama on the committed model: `make parity` (needs PyTorch) writes them.

The test beside this file compares our decoder with them, so that running the tests needs no PyTorch.
"""

import json
from pathlib import Path

MODEL = Path(__file__).resolve().parents[2] / "notebooks" / "fixtures" / "edu-lm"
REFERENCE = Path(__file__).with_name("transformers_llama.json")
TEXTS = (
    "<|user|>What is the coupled oscillator?<|assistant|>It is a rule for change.<|user|>",
    "<|user|>Sorry, I am lost. Where does the polar salt come from?<|assistant|>",
    "<|user|>the the of<|assistant|>Listen.<|user|>Okay. What sets it apart?<|assistant|>",
)
POSITIONS = (0, 3, -1)


def main() -> None:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    rows = []
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            out = model(torch.tensor([ids]), output_hidden_states=True)
        rows.append(
            {
                "ids": ids,
                "logits": [[round(x, 5) for x in out.logits[0, at, :64].tolist()] for at in POSITIONS],
                "hidden": [[round(x, 5) for x in layer[0, -1, :16].tolist()] for layer in out.hidden_states],
            }
        )
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    REFERENCE.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
