"""An engine's real server asked by our load client, and what transformers answers to the same: the oracle."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from workloads.inference.frameworks.base import Answer, Params, Prompt, Settings
from workloads.inference.load.plan import Plan, Target, body, request
from workloads.inference.load.run import run
from workloads.inference.load.schedule import closed
from workloads.inference.servers.server import Server

TEXTS = ["What is the capital of France?", "Count to five.", "Name a colour of the rainbow.", "Why is the sky blue?", "Say hello."]


class Running:
    """A server, all its processes and what to ask it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        leader = psutil.Process(server._process.pid)
        self.family = [leader, *leader.children(recursive=True)]
        self.target = Target(server.how.url, server.how.model, fields=dict(server.how.fields), timeout_s=120)

    def ask(self, prompts: list[Prompt], max_new_tokens: int, *, ignore_eos: bool = True) -> list[Answer]:
        params = Params(3, max_new_tokens, ignore_eos, 0.0, 0)
        requests = tuple(request(self.target, p.index, body(self.target, params, prompt=p)) for p in prompts)
        return run(Plan(self.target, requests, closed(3))).answers

    def counted(self, name: str) -> float:
        return sum(value for key, value in self.server.scrape().items() if key.split("{")[0] == name)


def chats(tokenizer: Any) -> list[Prompt]:
    """Return five questions as the model's chat template has them."""
    found = []
    for i, text in enumerate(TEXTS):
        chat = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        found.append(Prompt(i, tuple(tokenizer(chat, add_special_tokens=False)["input_ids"])))
    return found


def by_transformers(path: Path, settings: Settings, prompts: list[Prompt], max_new_tokens: int, ignore_eos: bool) -> list[list[int]]:
    """Return the greedy tokens of transformers, in a process of its own as a benchmark has it."""
    messages = [
        {"settings": asdict(settings)},
        {"prompts": [(p.index, p.token_ids) for p in prompts], "params": asdict(Params(3, max_new_tokens, ignore_eos, 0.0, 0))},
    ]
    command = [sys.executable, "-m", "workloads.inference.worker", "transformers", str(path)]
    told = subprocess.run(command, input="\n".join(map(json.dumps, messages)) + "\n", capture_output=True, text=True, timeout=200)
    answers = json.loads(told.stdout.splitlines()[-1])["answers"]
    return [a["token_ids"] for a in sorted(answers, key=lambda a: a["index"])]
