"""lm-eval itself loads these tasks, renders their prompts, and aggregates as we do."""

import pytest
from real import TASKS, lay_out, rows_of

from harness.evaluate.task_file import load_task

NAMES = ["gsm8k", "math500", "aime24", "arc_c", "mmlu", "medqa", "pubmedqa", "convfinqa"]


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    home = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_DATA", str(home))
        lay_out(home)
        yield


def evaluate(name, answer, **given):
    """lm-eval's own evaluation of a task whose responses `answer` makes of its rows."""
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class Scripted(LM):
        def generate_until(self, requests):
            self.prompts = [request.args[0] for request in requests]
            return [answer(request.doc) for request in requests]

        def loglikelihood(self, requests):
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    model, task = Scripted(), f"harness_{name}"
    manager = TaskManager(include_defaults=False, include_path=str(TASKS))
    found = simple_evaluate(model=model, tasks=[task], task_manager=manager, bootstrap_iters=0, **given)
    return found["results"][task], model.prompts


def gold(row):
    return f"<think> no </think> The answer is {row['answer']}."


@pytest.mark.parametrize("name", [*NAMES, *(f"{name}_paper" for name in NAMES)])
def test_lm_eval_asks_and_scores(name):
    results, prompts = evaluate(name, gold, limit=20)
    key = next(key for key in results if key.startswith("accuracy,"))
    assert results[key] == 1.0
    row = rows_of(name)[0]
    assert row["question"] in prompts[0] and not prompts[0].endswith((" ", "\n"))
    if name == "pubmedqa":
        assert row["abstract"] in prompts[0]
    if name == "pubmedqa_paper":
        assert row["abstract"][:40] not in prompts[0]
    if "listed" in row and name != "mmlu_paper":
        assert row["listed"] in prompts[0]
    if name.startswith("convfinqa"):
        assert row["report"] in prompts[0]


def test_aime_is_asked_sixteen_times_and_averaged():
    asked = iter(range(10_000))
    results, prompts = evaluate(
        "aime24", lambda row: gold(row) if next(asked) % 4 == 0 else "\\boxed{0}", limit=2
    )
    assert len(prompts) == 32
    assert results["accuracy,all"] == 0.25
    assert results["pass@1,all"] == pytest.approx(0.25) and results["pass@16,all"] == 1.0


def test_lm_eval_aggregates_over_subjects():
    results, _ = evaluate("mmlu", lambda row: gold(row) if row["subject"] < "c" else "\\boxed{?}")
    rows = rows_of("mmlu")
    share = {row["subject"]: row["subject"] < "c" for row in rows}
    assert results["accuracy,none"] == sum(row["subject"] < "c" for row in rows) / len(rows)
    assert results["macro,none"] == pytest.approx(sum(share.values()) / 57)
    assert results["unparsed,none"] == 1 - results["accuracy,none"]


def test_openfindata_and_gpqa_load_too():
    for name in ("openfindata", "gpqa_diamond", "openfindata_paper", "gpqa_diamond_paper"):
        assert load_task(TASKS / f"{name}.yaml").uses_generation
