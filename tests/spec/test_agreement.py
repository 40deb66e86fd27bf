"""Who agrees with whom: a wrong engine is flagged wherever it stands in the list, and no right one beside it where that can be known."""

import pytest
from pydantic import ValidationError

from ncdemo.report.fairness import flags
from ncdemo.report.frontier import pareto, points
from ncdemo.spec.agreement import judged
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.result_bench import Cell, Distribution, Gates

GATES = Gates(
    prompt_hash="h", asked_tokens="64 exactly", temperature=0.0, precision="bf16", max_model_len=2048, memory_fraction=0.4,
    warmup_requests=2, prefix_cache="off", prefix_reuse=False, mode="server",
)  # fmt: skip


def cell(engine: str, agreements: dict[str, float] | None, **more: object) -> Cell:
    e2e = Distribution(count=20, mean=1, p50=1, min=1, max=1)
    fields = {"concurrency": 1, "repeat": 0, "requests": 20, "failed": 0, "output_tokens_per_s": 10.0, "e2e_s": e2e}
    return Cell.model_validate(fields | {"engine": engine, "model": "m", "agreements": agreements} | more)


def shares(cells: list[Cell], reference: str | None = None) -> dict[str, float | None]:
    return {c.subject: c.token_agreement for c in judged(cells, reference)}


def test_of_two_that_differ_both_are_flagged_whoever_comes_first() -> None:
    two = judged([cell("fast", {}, output_tokens_per_s=99.0), cell("right", {"fast": 0.1})])
    assert [flags(c) for c in two] == [["only 10.0 % of tokens agree with right"], ["only 10.0 % of tokens agree with fast"]]
    assert pareto(points(two)) == [], "a fast wrong engine is on no frontier"


def test_a_reference_says_which_of_them_is_wrong() -> None:
    for order in (["fast", "right"], ["right", "fast"]):
        two = judged([cell(order[0], {}), cell(order[1], {order[0]: 0.1})], reference="right")
        assert {c.engine: flags(c) for c in two} == {"fast": ["only 10.0 % of tokens agree with right, the reference"], "right": []}
        assert [p.subject for p in pareto(points(two))] == ["right"]


def test_a_majority_is_believed() -> None:
    three = [cell("wrong", {}), cell("a", {"wrong": 0.2}), cell("b", {"wrong": 0.1, "a": 1.0})]
    assert shares(three) == {"wrong": 0.2, "a": 1.0, "b": 1.0}
    alike = [cell("w1", {}), cell("w2", {"w1": 1.0}), cell("a", {"w1": 0.1, "w2": 0.1}), cell("b", {"w1": 0.1, "w2": 0.1, "a": 1.0})]
    assert shares(alike) == dict.fromkeys(("w1", "w2", "a", "b"), 0.1), "two against two"
    assert shares(alike, "a") == {"w1": 0.1, "w2": 0.1, "a": None, "b": 1.0}


def test_other_precisions_are_not_held_against_each_other() -> None:
    fp32, bf16 = ({"gates": GATES.model_copy(update={"precision": p}), "variant": p} for p in ("fp32", "bf16"))
    cells = [
        cell("a", {}, **fp32), cell("b", {"a fp32": 1.0}, **fp32), cell("a", {"a fp32": 0.7, "b fp32": 0.7}, **bf16),
        cell("b", {"a fp32": 0.7, "b fp32": 0.7, "a bf16": 0.97}, **bf16),
    ]  # fmt: skip
    assert shares(cells) == {"a fp32": 1.0, "b fp32": 1.0, "a bf16": 0.97, "b bf16": 0.97}
    assert shares([cells[0], cells[2]]) == {"a fp32": None, "a bf16": None}


def test_a_reference_without_answers_leaves_it_to_the_others() -> None:
    found = judged([cell("ref", None, failed=20), cell("a", {}), cell("b", {"a": 0.1})], reference="ref")
    assert [(c.token_agreement, c.agreement_by) for c in found] == [(None, None), (0.1, "others"), (0.1, "others")]


def test_variants_are_held_against_the_references_own() -> None:
    cells = [
        cell("a", {}, variant="fp32"), cell("a", {"a fp32": 0.95}, variant="bf16"),
        cell("b", {"a fp32": 0.99, "a bf16": 0.93}, variant="fp32"), cell("b", {"a fp32": 0.9, "a bf16": 0.98, "b fp32": 0.9}, variant="bf16"),
    ]  # fmt: skip
    assert shares(cells, "a") == {"a fp32": None, "a bf16": None, "b fp32": 0.99, "b bf16": 0.98}


def test_other_loads_and_repeats_are_others_business() -> None:
    cells = [cell("a", {}), cell("b", {"a": 1.0}), cell("a", {}, repeat=1), cell("a", {}, concurrency=2), cell("c", None, repeat=1)]
    assert [c.token_agreement for c in judged(cells)] == [1.0, 1.0, None, None, None]
    old = cell("a", None, token_agreement=0.5)
    assert judged([old]) == [old], "of an older version"


def test_answers_that_are_right_less_often_than_anothers_are_flagged() -> None:
    def pair(mine: float, theirs: float, examples: int, distinct: int | None = None) -> list[list[str]]:
        about = {"exact_match_examples": examples, "distinct_prompts": distinct}
        return [flags(c) for c in judged([cell("a", {}, exact_match=mine, **about), cell("b", {}, exact_match=theirs, **about)])]

    assert pair(0.3, 0.9, 64) == [["30.0 % of the answers are right, of another engine's 90.0 %"], []]
    assert pair(0.8, 0.9, 16) == [[], []], "no more than noise"
    assert pair(0.3, 0.9, 64, distinct=4) == [[], []], "a file of four prompts repeated is four examples"


def test_a_reference_is_an_engine_of_the_benchmark() -> None:
    with pytest.raises(ValidationError, match="reference: vllm is not in engines; add it there, or name one of: transformers, echo"):
        BenchSpec(engines=("transformers", "echo"), reference="vllm")
