"""``python -m benchmarks.gpu_day.worker MODULE OPTIONS FD``: one process of a part of the day.

It imports the part, says over the pipe `FD` which cases there are, and waits: imports are done before its turn. Then it
runs each case that its standard input names, and ends with its input.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time
import traceback
from typing import Any

from benchmarks.gpu_day.protocol import Options, line


def main(module: str, options: str, pipe: int) -> None:
    given = Options.load(options)
    part: Any = importlib.import_module(f"benchmarks.gpu_day.{module}")
    gc.freeze()  # what is imported stays: looking through it after each case took longer than many a case
    os.write(pipe, line(cases=part.cases(given)))
    for name in sys.stdin:
        case = name.rstrip("\n")
        print(f"# {module}: {case}", flush=True)
        row = _run(part, case, given)
        os.write(pipe, line(case=case, row=row, spent=getattr(part, "spent", _never)()))


def _run(part: Any, case: str, options: Options) -> dict[str, Any]:
    started, row = time.monotonic(), dict[str, Any]()
    try:
        row = part.run(case, options)
    except Exception as error:
        traceback.print_exc()
        row = {"error": f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"}
    return {**row, "took": round(time.monotonic() - started, 1)}


def _never() -> bool:
    return False


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
