"""Fill in the [MASK]: self-supervised learning you can run."""

from __future__ import annotations

import importlib
import os

# torch reads this once, when it is imported: without it, threads that wait for one another spin,
# and training on a busy machine is many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_LAZY = {"load": "selfsup.models.pretrained", "show": "selfsup.source"}

__all__ = ["load", "show"]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'selfsup' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
