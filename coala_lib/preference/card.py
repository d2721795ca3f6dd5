"""The model card of a saved head, in the layout of TRL's reward-model cards, with what was proved and what was not.

Nothing in it is typed by hand: it is made from config.json and certificate.json.
"""

from collections.abc import Mapping
from importlib.metadata import version

import yaml

SEPARABLE = {None: "not checked", "none": "no", "quasi": "up to ties", "complete": "yes: the ridge sets the norm"}
CARD = """---
{front}---

# Model card for {name}

A preference head on a frozen language model: it scores features of a prompt with a response, and does not generate.
It is {shape}, trained with [coala-lib](https://github.com/coala-book/coala-book).

## Quick start

```python
from coala_lib import CoalaHead

head = CoalaHead.load("{folder}")
rewards = head.decision_function(features)  # (n, {d}) pooled hidden states of prompt + response
```

Without JAX: `coala_lib/preference/scorer.py` is one file that needs numpy only.
With the backbone at hand: `coala score {folder} rows.jsonl --model MODEL`.

## Features

{features}

## Training

Data: {data}.
{n} rows in the form of {form}; fingerprint `{fingerprint}`.

{parameters}

## What is proved

{certificate}

The certificate speaks of optimisation: of the convex program with the sampled gates, on the training rows.
It says nothing about held-out pairs, about people, or about gates that were not drawn.

## Evaluation

{evaluation}

Margins between chosen and rejected rewards are cheap: they grow with the norm of the head, and on random labels too.
Judge this head by the accuracy on held-out prompts, with its interval, beside length and a head of random labels.

## Versions

{versions}

## Citation

```bibtex
@misc{{coala_lib,
  title = {{Convex alignment on a frozen language model}},
  note = {{{library}, https://github.com/coala-book/coala-book}}
}}
```
"""


def model_card(config: Mapping, certificate: Mapping, folder: str = "head/") -> str:
    """The card of a head.

    Args:
        config, certificate: what the two JSON files hold.
        folder: how the quick start names the folder.

    Returns:
        Markdown with the Hub's front matter.
    """
    about, features, parameters = config["about"], config["features"], config["parameters"]
    name = about.get("name", "a COALA preference head")
    front = {
        "base_model": features.get("model_id"),
        "datasets": about.get("datasets"),
        "library_name": "coala-lib",
        "model_name": name,
        "license": about.get("license"),
        "pipeline_tag": "text-classification",
        "tags": ["reward-model", "coala", "convex-optimization", "certified"],
    }
    kind = "gated-ReLU" if parameters["variant"] == "gated" else "ReLU"
    layers = f"a two-layer {kind} network of {config['m']} neurons on {config['d']} features"
    evaluation = _table("measured", "value", about.get("evaluation", {}))
    return CARD.format(
        front=yaml.safe_dump({key: value for key, value in front.items() if value is not None}, sort_keys=False),
        name=name,
        folder=folder,
        shape=layers,
        features=_table("of the features", "value", features)
        or "Not recorded: nothing checks where features come from.",
        data=about.get("data", "not described"),
        parameters=_table("parameter", "value", parameters),
        certificate=_table("claim", "value", _claims(certificate)),
        evaluation=evaluation or "None was recorded with this head.",
        versions=_table("package", "version", {name: version(name) for name in ("coala-lib", "jax", "numpy")}),
        **{key: config[key] for key in ("d", "n", "form", "fingerprint", "library")},
    )


def _claims(certificate: Mapping) -> dict[str, str]:
    one, two = certificate["phase_one"], certificate["phase_two"]
    claims = {
        "Phase I ended": one["status"],
        "objective, at most": f"{one['primal']:.6g}",
        "its minimum, at least": f"{one['dual']:.6g}",
        "duality gap": f"{one['gap']:.2g}",
        "cone violation, relative": f"{one['cone_violation']:.1g}",
    }
    if two is None:
        return claims | {"Phase II": "none: the weights are those of Phase I"}
    apart = two["separability"]
    return claims | {
        "Phase II ended": f"{two['status']} after {two['n_iter']} steps of {two['method']}",
        "loss, nats": f"{two['loss']:.6g}",
        "distance from its minimum, nats, at most": f"{two['bound']:.2g}",
        "training pairs separable": SEPARABLE[apart and apart["kind"]],
    }


def _table(left: str, right: str, rows: Mapping) -> str:
    if not rows:
        return ""
    lines = [f"| {left} | {right} |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    return "\n".join(lines)
