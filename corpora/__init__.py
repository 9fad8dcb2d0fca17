"""Where text comes from: each script lays a corpus down as plain .txt or .jsonl, for data.py or for you."""

from pathlib import Path

from common import Parser, number


def command(fetch, what: str) -> None:
    """`python -m corpora.NAME`: fetch a corpus unless it is there, and say where it is."""
    parser = Parser(what)
    parser.add_argument("--folder", type=Path, default=Path("data/downloads"), help="(%(default)s)")
    parser.add_argument("--max-tokens", type=number(), default=1.3e9, help="of each language's books (1.3e9)")
    args = parser.parse_args()
    for language, path in fetch(args.folder, args.max_tokens).items():
        print(f"{language}: {path}")
