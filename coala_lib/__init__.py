"""COALA on a frozen language model: convex networks, their certificates, and preference heads.

The names below are imported on first use, so that `import coala_lib` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coala_lib.preference.head import CoalaHead

__all__ = ["CoalaHead"]
_HOMES = {"CoalaHead": "coala_lib.preference.head"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'coala_lib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
