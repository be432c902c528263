"""`osler serve`: load, listen, serve."""

import argparse
import os
import socket

import osler
from osler.serving.access import LOG
from osler.serving.served import Served
from osler.serving.server import Server, bound_socket, log_to_stderr
from osler.serving.settings import MEBIBYTE, ServerSettings


def serve(args: argparse.Namespace) -> None:
    """Serve until a signal comes; returns when the last answer has ended.

    Args:
        args: of the options that `add_options` added.

    Raises:
        OslerError: a model that cannot be loaded, or settings that do not do.
    """
    # First what can go wrong at once: a large model takes a minute to load.
    settings = settings_of(args)
    with bound_socket(settings.host, settings.port) as bound:
        _serve(args, settings, bound)


def _serve(args: argparse.Namespace, settings: ServerSettings, bound: socket.socket) -> None:
    assistant = osler.load(args.model, device=args.device, dtype=args.dtype, version=args.version)
    encoder = None
    if args.encoder is not None:
        encoder = osler.load_encoder(args.encoder, device=args.device, dtype=args.dtype)
    engine = assistant.engine
    served = Served(
        name=args.name or args.model,
        notice=assistant.notice,
        processor=assistant.processor,
        engine=engine,
        encoder=encoder,
    )
    log_to_stderr()
    server = Server(served, settings, bound)
    engine.start()
    server.serve_until_told(lambda: LOG.info("serving %s on %s", served.name, server.url))
    engine.close()


def settings_of(args: argparse.Namespace) -> ServerSettings:
    """The settings that options and environment ask for.

    Raises:
        ServerSettingsError: an open address without a token, or a value outside its range.
    """
    limits = {
        "max_requests": args.max_requests,
        "max_new_tokens": args.max_new_tokens,
        "max_body_bytes": None if args.max_body_mb is None else args.max_body_mb * MEBIBYTE,
        "timeout_s": args.timeout,
    }
    return ServerSettings(
        host=args.host,
        port=args.port,
        token=os.environ.get("OSLER_TOKEN") if args.token is None else args.token,
        **{name: value for name, value in limits.items() if value is not None},
    )
