"""`vpo reward serve`: a reward behind HTTP, for training runs in other processes, environments or machines."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Annotated

import typer

from vpo_kit.cli.options import Set, of_reward
from vpo_kit.cli.reward import reward_app
from vpo_kit.errors import ConfigError


@reward_app.command("serve")
def serve_reward(
    name: Annotated[str, typer.Argument(help="a reward (vpo rewards), or package.module:Class")],
    host: Annotated[str, typer.Option(help="address to listen on; traffic is not encrypted")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="VPO_REWARD_TOKEN", help="what clients must send", show_default="a new one")
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="let every user of this machine in")] = False,
    max_body_mb: Annotated[int, typer.Option(min=1, help="largest request")] = 256,
    set_: Set = None,
) -> None:
    """Serve a reward to runs elsewhere: vpo train --reward remote:http://HOST:PORT."""
    import torch

    from vpo_kit.rewards import loading as rewards

    try:
        import uvicorn

        from vpo_kit.net import serve
        from vpo_kit.rewards.server import create_app
    except ImportError as error:
        raise ConfigError(f"vpo reward serve needs {error.name}: pip install 'vpo-kit[server]'") from error
    if no_token and (token is not None or not serve.is_loopback(host)):
        raise ConfigError("--no-token: only with --host 127.0.0.1, and without --token or VPO_REWARD_TOKEN")
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise ConfigError("--token: one line of ASCII without spaces around it")
    plans = rewards.plan(name, of_reward(set_))
    if len(plans) > 1:
        raise ConfigError(f"serve one reward, not {name!r}: mix on the other side, remote:URL:0.5+other:0.5")
    key = None if no_token else token or secrets.token_urlsafe(24)
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
