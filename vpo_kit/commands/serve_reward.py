"""`vpo reward serve`: a reward behind HTTP, for training runs in other processes, environments or machines."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress

import torch

from vpo_kit import config
from vpo_kit.errors import ConfigError
from vpo_kit.rewards import loading as rewards


def run(
    name: str,
    host: str,
    port: int,
    token: str | None,
    assignments: Sequence[str],
    *,
    open_to_all: bool,
    max_body_mb: int,
) -> None:
    """Serve until interrupted. Raises `VpoError` for whatever a user can mend."""
    try:
        import uvicorn

        from vpo_kit.net import serve
        from vpo_kit.rewards.server import create_app
    except ImportError as error:
        raise ConfigError(f"vpo reward serve needs {error.name}: pip install 'vpo-kit[server]'") from error
    if open_to_all and (token is not None or not serve.is_loopback(host)):
        raise ConfigError("--no-token: only with --host 127.0.0.1, and without --token or VPO_REWARD_TOKEN")
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise ConfigError("--token: one line of ASCII without spaces around it")
    values = config.read_assignments(assignments)
    if set(values) - {"reward"}:
        raise ConfigError("--set: only reward.* can be set here")
    plans = rewards.plan(name, values.get("reward", {}))
    if len(plans) > 1:
        raise ConfigError(f"serve one reward, not {name!r}: mix on the other side, remote:URL:0.5+other:0.5")
    key = None if open_to_all else token or secrets.token_urlsafe(24)
    with serve.listen(host, port) as listener:  # before the weights: a port that is taken should not cost minutes
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        reward = rewards.load(plans, device).parts[0]
        app = create_app(reward, token=key, max_body_bytes=max_body_mb * 2**20, device=device)
        where = serve.address(host, listener)
        print(f"{reward.spec.name} ({reward.spec.licence}) on {where}, described at {where}/docs", flush=True)
        if key is not None and token is None:
            print(f"export VPO_REWARD_TOKEN={key}", flush=True)
        print(f"vpo train --reward remote:{where}", flush=True)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(serve.settings(app, connections=32)).run(sockets=[listener])
