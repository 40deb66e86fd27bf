"""Tokens: the model is trained on exactly what it is asked for later, and loss is on answers alone."""

from workloads.data.formats import Example
from workloads.data.tokens import TokenExample, cut, prompt_text, tokenize


def chat(*turns: str) -> Example:
    roles = ("user", "assistant")
    return Example(messages=tuple({"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)))


def targets(example: TokenExample, tokenizer) -> str:
    return tokenizer.decode([i for i, t in zip(example.ids, example.is_target, strict=True) if t])


def test_loss_is_on_the_answer_and_its_end(tokenizer) -> None:
    example = tokenize(chat("What is 2+2?", "It is 4."), tokenizer)
    assert targets(example, tokenizer) == "It is 4.<|im_end|>"


def test_every_answer_of_a_conversation_is_a_target(tokenizer) -> None:
    example = tokenize(chat("a?", "one", "b?", "two"), tokenizer)
    assert targets(example, tokenizer) == "one<|im_end|>two<|im_end|>"
    whole = tokenizer.apply_chat_template(list(chat("a?", "one", "b?", "two").messages), tokenize=False)
    assert tokenizer.decode(example.ids) == whole.rstrip("\n")


def test_the_prompt_in_training_is_the_prompt_at_inference(tokenizer) -> None:
    example = chat("Train for 200 steps.", "kind: train")
    prompt, reference = prompt_text(example, tokenizer)
    asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert tokenize(example, tokenizer).ids[: len(asked)] == asked
    assert reference == "kind: train"


def test_plain_text_is_all_target(tokenizer) -> None:
    example = tokenize(Example(text="once upon a time"), tokenizer)
    assert all(example.is_target)
    assert example.ids[-1] == tokenizer.eos_token_id


def test_cut_keeps_what_has_a_target() -> None:
    example = TokenExample([1, 2, 3, 4], [False, False, True, True])
    assert cut(example, 3) == TokenExample([1, 2, 3], [False, False, True])
    assert cut(example, 2) is None
