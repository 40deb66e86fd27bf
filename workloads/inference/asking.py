"""What the cells of a sweep ask, made once for all that ask the same: asked.py says how.

asking = Asking(spec)
what = asking.what(plan)            # the very same for every engine
"""

from collections.abc import Sequence
from typing import Any

from ncdemo.spec.base import SpecError
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.common import ModelRef
from ncdemo.spec.sweep import PlannedCell, requests
from workloads.data.models import load_tokenizer
from workloads.inference.asked import Asked, asked
from workloads.inference.frameworks.base import ModelMissing
from workloads.inference.prompts import PromptTooLong
from workloads.inference.subject import Failed

KEPT = 8
"""Of cells that each ask other prompts so many are kept: the engines of a setting ask the same, one after the other."""


class Asking:
    """`first`: what the first cell asks that could be asked; None until there is one."""

    def __init__(self, spec: BenchSpec) -> None:
        self._spec = spec
        self._known: dict[tuple[Any, ...], Asked | Failed] = {}
        self._tokenizers: dict[ModelRef, Any] = {}
        self.first: Asked | None = None
        self._checked = False

    def check(self, plans: Sequence[PlannedCell]) -> None:
        """Make the first repeat's, so that a prompt file that isn't there ends a run before any engine is loaded."""
        distinct = self._spec.distinct_prompts
        # Of those that all differ one of each kind: they would not be kept.
        kinds = {(p.subject.model, p.lengths, p.load.kind == "trace", p.load.search): p for p in reversed(plans)}
        for plan in reversed(kinds.values()) if distinct else plans:
            self.what(plan)
        self._checked = True

    def what(self, plan: PlannedCell) -> Asked | Failed:
        """Return what a cell asks. A model that isn't there fails its own cells; a prompt file that isn't there is nobody's cell."""
        count = requests(self._spec, plan)
        key: tuple[Any, ...] = (plan.subject.model, plan.lengths, plan.load.kind == "trace", plan.load.search)
        if self._spec.distinct_prompts:
            key = (*key, plan.setting, plan.repeat)
            while len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
        known = self._known.get(key)
        if known is None or (isinstance(known, Asked) and plan.load.search and len(known.prompts) < count):
            known = self._known[key] = self._make(plan)
        if not isinstance(known, Asked):
            return known
        self.first = self.first or known.first(self._spec.prompts.count)
        # Of a search the most that any rate asked is kept: a lower one asks the first of them.
        return known.first(count) if plan.load.search else known

    def tokenizer(self, model: ModelRef) -> Any:
        """Return a model's tokenizer. Raise ModelMissing where it can't be loaded."""
        if model not in self._tokenizers:
            try:
                self._tokenizers[model] = load_tokenizer(model)
            except SpecError as error:
                outside = ", whose tokenizer counts for the endpoint too; what that calls the model is its label"
                raise ModelMissing(f"{error}{outside if 'openai' in self._spec.engines else ''}") from None
        return self._tokenizers[model]

    def _make(self, plan: PlannedCell) -> Asked | Failed:
        try:
            return asked(self._spec, plan, self.tokenizer(plan.subject.model))
        except ModelMissing as error:
            return Failed("model_missing", str(error))
        except PromptTooLong as error:
            return Failed("prompt_too_long", str(error))
        except SpecError as error:
            if not self._checked:
                raise
            return Failed("no_prompts", str(error))  # of one cell: the others were begun
