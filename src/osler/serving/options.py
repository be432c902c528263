"""What `osler serve` can be told; imports nothing slow, as the help of every command shows it."""

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the verb's parser."""
    parser.add_argument("--model", default="nano", help="a MedGemma: nano, a folder or a hub id")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", help="float32 or bfloat16; else what the checkpoint holds")
    parser.add_argument("--version", choices=["1", "1.5"], help="how CT slices become RGB")
    parser.add_argument("--encoder", help="a MedSigLIP for /v1/embeddings, named like --model")
    parser.add_argument("--name", help="the model's name in the API; else what --model says")
    parser.add_argument(
        "--host", default="127.0.0.1", help="where to listen; beyond this machine it needs a token"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--token", help="what clients must bring; better in the environment, as OSLER_TOKEN"
    )
    parser.add_argument("--max-requests", type=int, metavar="N", help="answers in the making")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="of one answer")
    parser.add_argument("--max-body-mb", type=int, metavar="N", help="of one request")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for one answer")
