"""The sweep: cell after cell in the plan's order, each into the ledger when it is finished; a cell that fails is recorded too.

    Sweep(spec, run, ledger).measure()

Whatever an engine or a model does, the next cell is tried; a disk that stays full ends the sweep, as no cell could be kept. What the
ledger has is not measured again.
"""

import logging
from collections.abc import Sequence
from typing import Any

from ncdemo.spec.agreement import judged
from ncdemo.spec.base import SpecError
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.energy import Meter
from ncdemo.spec.ledger import earlier, usual_s, walls
from ncdemo.spec.result_bench import BenchResult, Cell, Gates, RequestRecord, SearchResult
from ncdemo.spec.sweep import PlannedCell, cells, searches
from workloads.inference.asked import Asked, arrival_seed, requests_of
from workloads.inference.asking import Asking
from workloads.inference.changes import server_args
from workloads.inference.cost import priced, with_energy
from workloads.inference.frameworks import engine_version
from workloads.inference.frameworks.base import Answer
from workloads.inference.ledger import Ledger
from workloads.inference.metrics import cell, exact_match, request_record, unmeasured
from workloads.inference.search import pursue
from workloads.inference.servers.command import served_versions
from workloads.inference.stage import Stage, precision
from workloads.inference.starts import Starts
from workloads.inference.subject import Failed
from workloads.metrics.settle import settle
from workloads.room import NoRoom
from workloads.run import Run, progress

log = logging.getLogger("ncdemo.bench")
BREAKS = ("engine_died", "engine_hung", "engine_error", "out_of_memory", "load_generator")
USERS_MISTAKES = ("model_missing", "engine_missing", "prompt_too_long")


class Sweep:
    """One benchmark in its run directory."""

    def __init__(self, spec: BenchSpec, run: Run, ledger: Ledger) -> None:
        self._spec, self._run, self._ledger = spec, run, ledger
        self._plan = cells(spec)
        before = earlier(spec.spec_hash(), run.folder.parent)
        self._took_before = before.wall_s if before else {}
        self._expected_s: float | None = None
        """What the cell that is measured took in other repeats or, without any, in an earlier run of this spec."""
        self._found: dict[str, SearchResult] = {}
        self._asking = Asking(spec)
        self._may_know = ledger.resumed
        """Whether the next cell may have been begun before the run was killed, so that a prefix cache may know its prompts."""
        self._starts = Starts(self._plan, ledger)

    def measure(self) -> None:
        """Measure what the ledger lacks. Raise when not one cell could be measured."""
        if self._ledger.done:
            of = "" if self._spec.search else f" of {len(self._plan)}"
            log.info("going on: %d%s cells are finished", len(self._ledger.done), of)
        self._asking.check([*self._plan, *searches(self._spec)])
        with Stage(self._spec, self._run.folder, self._run.append, self._run.zero_ns, self._within, self._wait) as stage:
            self._progress()
            self._run.bench = self._result(stage)
            for plan in self._plan:
                if plan.key not in self._ledger.done:
                    self._cell(stage, plan)
            for first in searches(self._spec):
                self._search(stage, first)
            self._run.bench = self._result(stage, self._meter())
        measured = list(self._ledger.done.values())
        if measured and all(one.error for one in measured):
            failed = measured[0]
            words = (
                f"{failed.error}" if len({one.error for one in measured}) == 1 else f"no cell could be measured; the first: {failed.error}"
            )
            raise SpecError(words) if failed.failure in USERS_MISTAKES else RuntimeError(words)

    def _search(self, stage: Stage, first: PlannedCell) -> None:
        """Hunt for one subject's highest rate; every rate tried is a cell. What the ledger has is told, not measured again."""
        assert self._spec.search

        def cell_at(rate_rps: float) -> Cell:
            plan = first.at(first.load.model_copy(update={"rate_rps": rate_rps}))
            return self._ledger.done.get(plan.key) or self._cell(stage, plan)

        hunt = pursue(self._spec.search, cell_at)
        self._found[first.key] = hunt.result(first)
        self._progress()
        log.info("%s: highest rate that meets the objectives: %s req/s", first.subject.shown, hunt.best)

    def _cell(self, stage: Stage, plan: PlannedCell) -> Cell:
        """Measure one cell and commit it."""
        what = self._asking.what(plan)
        if isinstance(what, Asked):  # before the cell's clock begins
            # Side by side: all of a model before the first is measured, as none then has the machine to itself.
            also = self._plan if self._spec.side_by_side else ()
            others = [p.subject for p in also if p.subject.model == plan.subject.model and p.key not in self._ledger.done]
            stage.load([*others, plan.subject], what)
        self._expected_s = usual_s(plan.key, walls(self._ledger.entries)) or self._took_before.get(plan.key)
        self._ledger.begin()
        answers, first_try = (what, None) if isinstance(what, Failed) else self._answers(stage, plan, what)
        if isinstance(answers, Failed):
            # What came before it failed is kept; no figure of the cell is made of it.
            records = self._records(plan, what, list(answers.answers)) if isinstance(what, Asked) else []
            count = requests_of(self._spec, plan)
            measured = unmeasured(plan, count, answers.kind, answers.reason)
            measured = measured.model_copy(update={"failed": measured.requests - sum(r.ok for r in records)})
        else:
            assert isinstance(what, Asked)
            records = self._records(plan, what, answers)
            measured = self._sum(stage, plan, what, answers, records)
        self._may_know, measured = False, measured.model_copy(update={"first_try": first_try})
        try:
            measured = self._ledger.commit(plan.key, measured, records, self._run.now())
        except NoRoom:  # the ledger has that too, and the sweep ends
            self._run.bench = self._result(stage)
            raise
        self._run.bench = self._result(stage)
        speed = measured.output_tokens_per_s
        self._progress(**({} if speed is None else {"tokens_per_s": speed}))
        log.info("%s: %s", plan.key, measured.error or ("no token count" if speed is None else f"{speed:.1f} tokens/s"))
        return measured

    def _answers(self, stage: Stage, plan: PlannedCell, what: Asked) -> tuple[list[Answer] | Failed, str | None]:
        """Return a cell's answers, or why there are none, and why its first try gave none.

        An engine that breaks once says nothing about the rate that a search tries, so that is tried once more.
        """
        answers = stage.measure(plan, what)
        if not plan.load.search or not isinstance(answers, Failed) or answers.kind not in BREAKS or stage.given_up(plan.subject):
            return answers, None
        log.warning("%s: %s; it is tried once more", plan.key, answers.reason)
        self._may_know = True
        return stage.measure(plan, what, again=True), answers.reason

    def _records(self, plan: PlannedCell, what: Asked, answers: list[Answer]) -> list[RequestRecord]:
        tokenizer = self._asking.tokenizer(plan.subject.model)

        def count(text: str | None) -> int | None:
            return len(tokenizer.encode(text, add_special_tokens=False)) if text else None

        return [
            request_record(answer, plan, zero_ns=self._run.zero_ns, prompt_tokens=len(what.prompts[answer.index].token_ids),
                           text=answer.text if answer.text is not None else tokenizer.decode(answer.token_ids),
                           text_tokens=count(answer.text) if answer.chunk_tokens_from == "one_each" else None,
                           first_tokens=count(answer.first_text))
            for answer in sorted(answers, key=lambda a: a.index)
        ]  # fmt: skip

    def _sum(self, stage: Stage, plan: PlannedCell, what: Asked, answers: list[Answer], records: list[RequestRecord]) -> Cell:
        """Sum up a cell and add what only the sweep knows: agreement with others, right answers, the gates."""
        spec, s = self._spec, self._spec.sampling
        summed = cell(records, plan, spec.slo, expected_tokens=what.output_tokens if s.ignore_eos else None)
        share, examples = self._matched(plan, records, what.references)
        gates = Gates(
            prompt_hash=what.hash, asked_tokens=f"{what.shown_tokens} {'exactly' if s.ignore_eos else 'at most'}", temperature=s.temperature,
            precision=precision(plan.subject.precision), max_model_len=spec.max_model_len, memory_fraction=spec.memory_fraction,
            warmup_requests=spec.warmup_requests, prefix_cache=self._kept_out(stage.prefix_cache(plan.subject), what),
            prefix_reuse=spec.prefix_cache, mode=spec.mode, tensor_parallel=plan.subject.tensor_parallel,
            max_concurrency=spec.max_concurrency, arrival_seed=arrival_seed(spec, plan.repeat) if plan.load.kind in ("poisson", "gamma") else None,
            slo_ttft_s=spec.slo.ttft_s, slo_tpot_s=spec.slo.tpot_s,
        )  # fmt: skip
        did: dict[str, Any] = {"client": stage.client(plan.subject), "counted": stage.counted(plan.subject)}
        did["server_args"] = server_args(plan.subject.engine, spec.args_of(plan.subject.engine))
        # Sampled texts differ by design; only greedy ones can be compared.
        alike = self._starts.agreements(plan, records) if s.temperature == 0 and not summed.error else None
        more = {"exact_match": share, "exact_match_examples": examples, "gates": gates, "agreements": alike, **did}
        more["distinct_prompts"] = len({prompt.token_ids for prompt in what.prompts})
        return priced(summed.model_copy(update=more), spec.prices)

    def _kept_out(self, prefix_cache: str, what: Asked) -> str:
        """Return how a prefix cache was kept from answering: one that can't be emptied doesn't know what was never asked before."""
        if not what.distinct or prefix_cache in ("off", "reset"):
            return prefix_cache
        return "asked before" if self._may_know else "distinct prompts"

    def _matched(
        self, plan: PlannedCell, records: list[RequestRecord], references: Sequence[str | None]
    ) -> tuple[float | None, int | None]:
        """Return exact_match; None where ignore_eos made texts run on and no token ids say where the model ended them."""
        unknown = [r for r in records if references[r.index] is not None and r.ok and not r.token_ids]
        if self._spec.sampling.ignore_eos and unknown:
            return None, None
        return exact_match(self._until_eos(plan, records), references)

    def _until_eos(self, plan: PlannedCell, records: list[RequestRecord]) -> list[RequestRecord]:
        """Return records whose text ends where the model ended it: with ignore_eos engines must go on after that."""
        tokenizer = self._asking.tokenizer(plan.subject.model)
        eos = tokenizer.eos_token_id
        return [
            r.model_copy(update={"text": tokenizer.decode(r.token_ids[: r.token_ids.index(eos)])})
            if r.token_ids and eos in r.token_ids
            else r
            for r in records
        ]

    def _meter(self) -> Meter:
        samples, hz = self._run.folder / "samples.jsonl", self._spec.telemetry.sample_hz
        if hz:
            settle(samples, self._run.now(), 1 / hz)
        return Meter.read(samples)

    def _result(self, stage: Stage, meter: Meter | None = None) -> BenchResult:
        """Sum up what is measured so far, so that an interrupted benchmark keeps its cells."""
        said = served_versions(self._run.folder)
        first = self._asking.first
        done = [with_energy(entry.cell, meter) if meter else entry.cell for entry in self._ledger.entries]
        return BenchResult(
            cells=judged(done, self._spec.reference),
            searches=list(self._found.values()),
            prompt_tokens=sum(len(p.token_ids) for p in first.prompts) if first else 0,
            prompt_hash=first.hash if first else "",
            prompt_rows=first.rows if first else None,
            engine_versions={e: said.get(e) or engine_version(e) or "not installed" for e in self._spec.engines},
            server_args={engine: list(words) for engine, words in self._spec.server_args.items()},
            load_time_s=dict(stage.load_time_s),
        )

    def _within(self, ended: int, requests: int) -> None:
        """Tell how far the cell is that is measured: its share of one, and its time against what it is expected to take."""
        expected = {} if self._expected_s is None else {"expected_s": self._expected_s}
        share = ended / requests
        progress("bench", len(self._ledger.done) + share, self._most, requests=ended, cell_s=self._ledger.cell_s, **expected)

    def _wait(self, state: str, waited_s: float, words: str | None) -> None:
        """Tell what goes on before a cell can be measured."""
        self._progress(state=state, state_s=waited_s, **({"log": words} if words else {}))

    def _progress(self, **figures: float | str) -> None:
        progress("bench", len(self._ledger.done), self._most, **figures)

    @property
    def _most(self) -> int:
        """Cells of the whole run, at most: a search that goes on may end before its max_runs."""
        runs = self._spec.search.max_runs if self._spec.search else 0
        ended = (self._found.get(first.key) for first in searches(self._spec))
        return len(self._plan) + sum(found.runs if found else runs for found in ended)
