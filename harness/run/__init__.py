"""Carries a plan out: gradient statistics, merges in shared passes, evaluations, judgements; all kept.

`local.py` decides when and where in this process. The parts it calls take a plan and some of its steps, and
serve any other executor, each alone: `scoring.py` (statistics that are computed together), `merging.py`
(merges that share passes), `evaluating.py` (all that is asked of one row, by one engine), `harness.judging`
(responses that one judge reads). A step is named by its folder (`Plan.named`), so that another process, which
made the same plan, finds it. What became of the steps goes to an `Outcome`.
"""

from harness.run.local import carry_out
from harness.run.merging import merge_to
from harness.run.outcome import Outcome

__all__ = ["Outcome", "carry_out", "merge_to"]
