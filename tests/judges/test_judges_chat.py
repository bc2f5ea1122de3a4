"""The API judge against a real local server that stumbles in every way that servers do."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter

import pytest

from harness.errors import HarnessError
from harness.judges import Judge, JudgeError, judge
from tests.judges.conftest import QUESTIONS, QUICK, ROOT, asked, completion, echo, spec_for


def first_then(fault, times=1):
    """`fault` for the first `times` requests of each question, an answer after."""
    tries = Counter()

    def script(number, body):
        tries[asked(body)] += 1
        return fault if tries[asked(body)] <= times else echo(number, body)

    return script


def test_answers_come_back_in_order_and_are_asked_once(serve, tmp_path):
    server, store = serve(echo), tmp_path / "j.sqlite"
    answers = judge(spec_for(server), QUESTIONS * 2, store)
    assert answers == [f"about {question}" for question in QUESTIONS * 2]
    assert sorted(map(asked, server.seen)) == QUESTIONS
    assert answers.facts == {
        "asked": 6,
        "from_store": 0,
        "malformed": 0,
        "models": ["served-1"],
        "tokens_in": 42,
        "tokens_out": 18,
        "cost": None,
    }
    again = judge(spec_for(server), [*QUESTIONS, "new"], store)
    assert again[:6] == answers[:6] and len(server.seen) == 7
    assert again.facts["from_store"] == 6 and again.facts["tokens_in"] == 49


def test_messages_are_sent_as_they_are(serve, tmp_path):
    server = serve(echo)
    chat = [{"role": "system", "content": "You rate."}, {"role": "user", "content": "this"}]
    assert judge(spec_for(server), [chat], tmp_path / "j.sqlite") == ["about this"]
    assert server.seen[0]["messages"] == chat
    with pytest.raises(HarnessError, match="was asked with int"):
        judge(spec_for(server), [3], tmp_path / "j.sqlite")


RATE_LIMIT = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
PASSING = {
    "429": {"status": 429, "body": RATE_LIMIT},
    "429 with Retry-After": {"status": 429, "body": RATE_LIMIT, "headers": {"Retry-After": "0.2"}},
    "429 with a date": {
        "status": 429,
        "body": RATE_LIMIT,
        "headers": {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"},
    },
    "500": {"status": 500, "body": {"error": {"message": "oops"}}},
    "503 in HTML": {
        "status": 503,
        "body": "<html>busy</html>",
        "headers": {"Content-Type": "text/html"},
    },
    "408": {"status": 408, "body": ""},
    "no JSON": {"body": '{"choices": [{"mess'},
    "HTML with 200": {"body": "<html>login</html>", "headers": {"Content-Type": "text/html"}},
    "no choices": {"body": {"id": "x", "choices": []}},
    "error with 200": {"body": {"error": {"message": "overloaded"}}},
    "a list": {"body": [1, 2]},
    "null message": {"body": {"choices": [{"message": None}]}},
    "content that is no text": {"body": {"choices": [{"message": {"content": {"a": 1}}}]}},
    "cut connection": {"body": "x" * 4000, "cut": True},
    "not UTF-8": {"body": '{"choices": "\ud83d"}'.encode("utf-16", "surrogatepass").decode("latin-1")},
}


@pytest.mark.parametrize("fault", PASSING)
def test_faults_that_pass_are_survived(serve, tmp_path, fault):
    server = serve(first_then(PASSING[fault]))
    answers = judge(spec_for(server), QUESTIONS[:2], tmp_path / "j.sqlite")
    assert answers == ["about question 0", "about question 1"] and len(server.seen) == 4


def test_a_slow_answer_is_given_up_and_asked_again(serve, tmp_path):
    server = serve(first_then({**completion("too late"), "wait": 1.0}))
    answers = judge(spec_for(server, timeout=0.3), QUESTIONS[:2], tmp_path / "j.sqlite")
    assert answers == ["about question 0", "about question 1"] and len(server.seen) == 4


def test_retry_after_holds_all_requests(serve, tmp_path):
    told = {"status": 429, "body": RATE_LIMIT, "headers": {"Retry-After": "0.4"}}
    server = serve(lambda number, body: told if number == 0 else echo(number, body))
    judge(spec_for(server, concurrency=1), QUESTIONS[:3], tmp_path / "j.sqlite")
    assert server.times[1] - server.times[0] >= 0.39


def test_a_wait_longer_than_one_is_willing_to_wait_is_an_error(serve, tmp_path):
    server = serve(lambda *_: {"status": 429, "body": RATE_LIMIT, "headers": {"Retry-After": "7200"}})
    with pytest.raises(JudgeError, match="asks to wait 7200 s: status 429: .*slow down"):
        judge(spec_for(server), QUESTIONS[:1], tmp_path / "j.sqlite")
    assert len(server.seen) == 1


def test_a_request_that_keeps_failing_fails_the_step_and_the_rest_is_kept(serve, tmp_path):
    def script(number, body):
        broken = asked(body) == "question 3"
        return {"status": 500, "body": {"error": {"message": "oops"}}} if broken else echo(number, body)

    server, store = serve(script), tmp_path / "j.sqlite"
    with pytest.raises(JudgeError) as error:
        judge(spec_for(server, concurrency=1), QUESTIONS, store)
    assert f"judge `local-judge` at {server.url} failed 4 times: status 500" in error.value.message
    assert "stored" in error.value.hint and len(str(error.value).splitlines()) == 2
    before = [asked(body) for body in server.seen]
    assert before.count("question 3") == 4
    server.script = echo
    answers = judge(spec_for(server, concurrency=1), QUESTIONS, store)
    assert answers == [f"about {question}" for question in QUESTIONS]
    kept = set(before) - {"question 3"}
    assert len(kept) >= 3
    assert not kept & {asked(body) for body in server.seen[len(before) :]}, "nothing is asked twice"


def test_answers_under_way_are_kept_when_another_fails(serve, tmp_path):
    def script(number, body):
        if asked(body) == "question 0":
            return {"status": 401, "body": {"error": {"message": "no"}}, "wait": 0.1}
        return {**echo(number, body), "wait": 0.5}

    server, store = serve(script), tmp_path / "j.sqlite"
    with pytest.raises(JudgeError, match="failed 1 time: status 401"):
        judge(spec_for(server), QUESTIONS[:2], store)
    server.script = echo
    assert judge(spec_for(server), QUESTIONS[:2], store).facts["from_store"] == 1


@pytest.mark.parametrize("status, code", [(400, "bad"), (401, None), (403, None), (404, "model_not_found"),
                                          (422, None), (429, "insufficient_quota")])  # fmt: skip
def test_what_asking_again_cannot_mend_fails_at_once(serve, tmp_path, status, code):
    reply = {"status": status, "body": {"error": {"message": "not like this", "code": code}}}
    server = serve(lambda *_: reply)
    with pytest.raises(JudgeError, match=f"failed 1 time: status {status}: .*not like this"):
        judge(spec_for(server), QUESTIONS[:1], tmp_path / "j.sqlite")
    assert len(server.seen) == 1


def test_nobody_listens(serve, tmp_path):
    server = serve(echo)
    server.shutdown()
    server.server_close()
    with pytest.raises(JudgeError, match="failed 2 times: no connection"):
        judge(spec_for(server, retries=1), QUESTIONS[:1], tmp_path / "j.sqlite")


EMPTY = {
    "filtered": completion(None, "content_filter"),
    "empty": completion("", "length"),
    "refused": completion(None, "stop", refusal="I cannot rate this"),
    "spaces": completion(" \n"),
}


@pytest.mark.parametrize("case", EMPTY)
def test_empty_answers_are_kept_and_counted(serve, tmp_path, case):
    server, store = serve(lambda *_: EMPTY[case]), tmp_path / "j.sqlite"
    for _ in range(2):
        answers = judge(spec_for(server), QUESTIONS[:2], store)
        assert [answer.strip() for answer in answers] == ["", ""] and answers.facts["malformed"] == 2
    assert len(server.seen) == 2


@pytest.mark.parametrize("code", ["content_filter", "invalid_prompt"])
def test_a_prompt_the_api_refuses_to_read_is_an_empty_answer(serve, tmp_path, code):
    server = serve(lambda *_: {"status": 400, "body": {"error": {"message": "flagged", "code": code}}})
    answers = judge(spec_for(server), QUESTIONS[:1], tmp_path / "j.sqlite")
    assert answers == [""] and answers.facts["malformed"] == 1 and len(server.seen) == 1
    assert answers.facts["tokens_in"] is None and answers.facts["cost"] is None


def test_a_killed_run_asks_again_only_for_what_was_under_way(serve, tmp_path):
    server = serve(lambda number, body: {**echo(number, body), "wait": 0.05})
    store, questions = tmp_path / "j.sqlite", [f"q{i}" for i in range(60)]
    script = textwrap.dedent(f"""
        from pathlib import Path
        from harness.judges import Spec, judge
        spec = Spec("chat", "local-judge", parameters={ {**QUICK, "base_url": server.url}!r})
        judge(spec, {questions!r}, Path({str(store)!r}))
    """)
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)})
    end = time.monotonic() + 60
    while len(server.seen) < 10 and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.1)
    before = len(server.seen)
    answers = judge(spec_for(server), questions, store)
    assert answers == [f"about {question}" for question in questions]
    assert 10 <= before < 60 and answers.facts["from_store"] >= before - QUICK["concurrency"]
    again = [q for q, n in Counter(map(asked, server.seen)).items() if n > 1]
    assert len(again) <= QUICK["concurrency"], "those in flight when it was killed"


def test_concurrency_and_rate(serve, tmp_path):
    server = serve(lambda number, body: {**echo(number, body), "wait": 0.05})
    judge(spec_for(server, concurrency=3), [f"q{i}" for i in range(12)], tmp_path / "a.sqlite")
    assert 2 <= server.most <= 3
    paced = serve(echo)
    judge(spec_for(paced, requests_per_minute=1200), [f"q{i}" for i in range(8)], tmp_path / "b.sqlite")
    assert paced.times[-1] - paced.times[0] >= 7 * 0.05 - 0.02


def test_reasoning_models_are_asked_in_their_own_way(serve, tmp_path):
    server = serve(echo)
    for model in ("o4-mini", "o3", "gpt-5-mini", "openai/o1"):
        spec = spec_for(server, model, max_tokens=2048, reasoning_effort="low")
        judge(spec, ["x"], tmp_path / "j.sqlite")
        body = server.seen[-1]
        assert body["max_completion_tokens"] == 2048 and body["reasoning_effort"] == "low"
        assert not {"temperature", "top_p", "max_tokens"} & set(body)
        with pytest.raises(HarnessError, match=f"judge `{model}` takes no `temperature`"):
            Judge(spec_for(server, model, temperature=0))
    for model in ("gpt-4o", "local-judge", "Qwen/Qwen3-8B", "gpt-5-chat-latest", "gpt-4o1"):
        judge(spec_for(server, model, max_tokens=64, seed=3), ["x"], tmp_path / "j.sqlite")
        body = server.seen[-1]
        assert body["max_tokens"] == 64 and body["temperature"] == 0 and body["seed"] == 3
        assert "max_completion_tokens" not in body
        with pytest.raises(HarnessError, match="takes no `reasoning_effort`"):
            Judge(spec_for(server, model, reasoning_effort="low"))
    judge(spec_for(server, "mine", reasoning=True, extra_body={"top_k": 5}), ["x"], tmp_path / "j.sqlite")
    assert server.seen[-1]["top_k"] == 5 and "temperature" not in server.seen[-1]


def test_identity_is_what_is_asked_not_how_patiently(serve, tmp_path):
    server = serve(echo)

    def identity(model="m", **parameters):
        return Judge(spec_for(server, model, **parameters)).identity()

    same = identity()
    for changed in ({"timeout": 9}, {"retries": 1}, {"concurrency": 9}, {"price": {"input": 1, "output": 2}},
                    {"requests_per_minute": 5}, {"temperature": 0}, {"key_env": "OTHER"}):  # fmt: skip
        assert identity(**changed) == same
    for changed in ({"model": "n"}, {"max_tokens": 5}, {"temperature": 1}, {"seed": 1},
                    {"base_url": "http://elsewhere/v1"}, {"extra_body": {"a": 1}}):  # fmt: skip
        assert identity(**changed) != same


def test_cost_is_counted_where_prices_are_given(serve, tmp_path):
    server, price = serve(echo), {"input": 2.0, "output": 10.0}
    answers = judge(spec_for(server, price=price), QUESTIONS, tmp_path / "j.sqlite")
    assert answers.facts["cost"] == pytest.approx((42 * 2.0 + 18 * 10.0) / 1e6)
    silent = serve(lambda *_: completion("x", usage=None))
    answers = judge(spec_for(silent, price=price), QUESTIONS, tmp_path / "j.sqlite")
    assert answers.facts["cost"] is None and answers.facts["tokens_out"] is None


def test_an_interrupt_ends_soon(serve, tmp_path):
    server = serve(lambda number, body: {**echo(number, body), "wait": 0 if number == 0 else 30})

    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        judge(spec_for(server, concurrency=1, timeout=60), QUESTIONS, tmp_path / "j.sqlite", stop)
    assert time.monotonic() - begun < 5
