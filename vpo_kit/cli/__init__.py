"""The command line, a file for each command, which adds itself to the application when it is imported.

Nothing heavy is imported at the top of these files: a command imports what it needs when it is called.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from vpo_kit.cli.options import app
from vpo_kit.cli.processor import keep_freed, let_others_work
from vpo_kit.errors import VpoError, is_memory_full, memory_full

# isort: off
# in the order of `vpo --help`
from vpo_kit.cli import (  # noqa: F401
    init,
    train,
    plan,
    runs,
    watch,
    pair,
    pair_import,
    pair_inspect,
    pair_signal,
    pair_check,
    pair_export,
    pair_merge,
    pair_split,
    label,
    clips,
    sample,
    export,
    eval,
    compare,
    study,
    score,
    methods,
    rewards,
    metrics,
    models,
    config,
    doctor,
    model,
    model_check,
    reward,
    reward_train_vqa,
    reward_check,
    reward_bench,
    reward_serve,
)
# isort: on


INTERRUPTED = 128 + signal.SIGINT


def main(arguments: list[str] | None = None) -> Any:
    """The `vpo` script: an error that a user can mend is one line and an exit code, never a traceback."""
    let_others_work()
    keep_freed()
    try:
        app(args=arguments, standalone_mode=True)
    except VpoError as error:
        print(f"vpo: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:  # a disk that fills up can strike anywhere
        where = f"{error.filename}: " if error.filename else ""
        print(f"vpo: {where}{error.strerror or error}", file=sys.stderr)
        raise SystemExit(1) from None
    except RuntimeError as error:
        if not is_memory_full(error):
            raise
        print(f"vpo: {memory_full(error)}", file=sys.stderr)
        raise SystemExit(1) from None
    except SystemExit as end:  # typer makes one of Ctrl-C, without a word
        if end.code == INTERRUPTED:
            print(
                "vpo: interrupted; pair, label, eval, compare and study go on with the same command, "
                "train with --resume",
                file=sys.stderr,
            )
        raise
