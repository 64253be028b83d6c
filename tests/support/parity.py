"""``python -m tests.support.parity``: what `vpo model check` says of every family's tiny pipeline."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from vpo_kit.testing import adapter
from vpo_kit.testing.families import FAMILIES
from vpo_kit.testing.parity import make


def main() -> int:
    wrong = 0
    for name, family in FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder:
            found = list(adapter.check(make(family, Path(folder))))
        failed = [one.line() for one in found if one.passed is False]
        print(f"{name:20} {len(found) - len(failed)} of {len(found)} ok", *failed, sep="\n    ", flush=True)
        wrong += len(failed)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
