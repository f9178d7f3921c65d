"""
What this processor can run.
"""
from __future__ import annotations
__all__: list[str] = ['levels']
def levels() -> list[str]:
    """
    The levels of x86-64 beyond the first, "v2", "v3", "v4", that processor and operating system
    both have, in this order; empty on processors of another kind.
    """
