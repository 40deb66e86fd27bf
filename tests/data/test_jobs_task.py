"""The shipped task: every answer is a job that ncdemo accepts, and no held-out job is ever trained on."""

import random

import yaml

from ncdemo.spec import SPECS, parse_spec
from workloads.data.jobs_task import generate, is_held_out, job_example, job_yaml


def answers(examples: list[dict]) -> list[str]:
    return [e["messages"][-1]["content"] for e in examples]


def test_every_answer_is_a_valid_spec() -> None:
    for text in answers(generate(1500, held_out=False)) + answers(generate(300, held_out=True)):
        assert parse_spec(text, SPECS[yaml.safe_load(text)["kind"]])


def test_thousands_of_distinct_jobs_and_no_leak() -> None:
    train, held_out = answers(generate(4000, held_out=False)), answers(generate(500, held_out=True))
    assert len(set(train)) == 4000
    assert len(set(held_out)) == 500
    assert not set(train) & set(held_out)


def test_the_side_depends_on_the_job_alone() -> None:
    rng = random.Random(3)
    sides: dict[str, set[bool]] = {}
    for _ in range(3000):
        answer = job_example(rng)["messages"][-1]["content"]
        sides.setdefault(answer, set()).add(is_held_out(answer))
    assert all(len(s) == 1 for s in sides.values())
    assert 0.08 < sum(True in s for s in sides.values()) / len(sides) < 0.17


def test_the_request_names_every_value_of_the_job() -> None:
    for example in generate(300, held_out=False):
        _, request, answer = (m["content"] for m in example["messages"])
        for number in [
            word for word in answer.replace("[", " ").replace("]", " ").replace("}", " ").replace(",", " ").split() if word[0].isdigit()
        ]:
            assert number in request, (request, answer)


def test_equal_seeds_give_equal_data() -> None:
    assert generate(50, held_out=True, seed=4) == generate(50, held_out=True, seed=4)
    assert generate(50, held_out=True, seed=4) != generate(50, held_out=True, seed=5)


def test_floats_are_written_as_decimals() -> None:
    assert job_yaml({"kind": "train", "train": {"learning_rate": 0.00001}}) == "kind: train\ntrain: {learning_rate: 0.00001}"
