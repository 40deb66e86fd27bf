"""Not SGLang: see published.py."""

import published


def prepare_server_args(argv: list[str]) -> list[str]:
    published.check("sglang", "options", (word for word in argv if word.startswith("--")))
    assert "--incremental-streaming-output" in argv, "or each output holds all tokens so far"
    return argv
