"""``python -m vpo_kit`` is `vpo`."""

from vpo_kit.cli import main

main()
