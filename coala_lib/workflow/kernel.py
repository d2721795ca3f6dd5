"""Every kernel sees the same surroundings, whoever starts it: papermill, nbval or a reader's own start-up files.

A private IPython profile keeps readers' start-up files and harmless log lines out. The small presets cannot reach
the network. JAX's compilation cache stays off: a cached compilation would count as none in the records.
"""

import os
from pathlib import Path

from coala_lib.workflow.presets import OFFLINE

_QUIET = 'c.IPKernelApp.log_level = "CRITICAL"\n'


def environment(root: Path, preset: str, record: Path, code_hash: str = "") -> dict[str, str]:
    """Environment variables for a kernel; writes the quiet profile under `_build/ipython` on the way.

    Args:
        root: the repository; importable in the kernel.
        preset: decides whether the Hugging Face libraries may use the network.
        record: where the chapter shall write its record.
        code_hash: goes into that record.

    Returns:
        Variables to set beside those already there.
    """
    profile = root / "_build" / "ipython" / "profile_default" / "ipython_kernel_config.py"
    profile.parent.mkdir(parents=True, exist_ok=True)
    if not profile.exists():
        profile.write_text(_QUIET, encoding="utf-8")
    path = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {
        "COALA_RECORD": str(record),
        "COALA_CODE_HASH": code_hash,
        "IPYTHONDIR": str(profile.parents[1]),
        "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one registered elsewhere
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONHASHSEED": "0",
    }
    if preset in OFFLINE:
        variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return variables
