"""A card's memory as people write it. No torch here."""

from __future__ import annotations

import re

from vpo_kit.errors import ConfigError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def num_bytes(text: str) -> int:
    """The number of bytes in ``24GB``, ``80 GiB`` or ``24``, which is gigabytes. Raises `ConfigError`."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([KMGT]I?)?B?\s*", text.upper())
    try:
        number = float(found[1]) if found else 0.0
    except ValueError:
        number = 0.0
    if found is None or number <= 0:
        raise ConfigError(f"--memory {text!r}: write it as 24GB or 80GiB")
    return round(number * UNITS[found[2] or "G"])
