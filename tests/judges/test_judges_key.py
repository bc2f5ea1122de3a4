"""Where the key of an API judge comes from, and where it never goes."""

import json
import logging
import sys

import pytest

from harness.errors import HarnessError
from harness.judges import Judge, JudgeError, Spec, judge
from tests.judges.conftest import KEY, QUESTIONS, asked, completion, echo, spec_for


def test_the_key_comes_from_the_environment(serve, tmp_path, monkeypatch):
    server = serve(echo)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(HarnessError, match="judge `o4-mini` needs a key, .* no `OPENAI_API_KEY`"):
        judge(Spec("chat", "o4-mini"), ["x"], tmp_path / "j.sqlite")
    with pytest.raises(HarnessError, match="no `JUDGE_KEY`"):
        Judge(spec_for(server, key_env="JUDGE_KEY")).check()
    Judge(spec_for(server)).check()
    assert not server.seen
    monkeypatch.setenv("JUDGE_KEY", KEY)
    judge(spec_for(server, key_env="JUDGE_KEY"), ["x"], tmp_path / "j.sqlite")
    assert server.headers_seen[-1]["authorization"] == f"Bearer {KEY}"


def test_another_server_is_not_sent_openais_key(serve, tmp_path, monkeypatch):
    server = serve(echo)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
    judge(spec_for(server), ["x"], tmp_path / "j.sqlite")
    assert KEY not in json.dumps(server.headers_seen)


WRONG_PLACES = (
    {"key_env": KEY},
    {"base_url": f"https://user:{KEY}@host/v1"},
    {"base_url": f"https://host/v1?key={KEY}"},
    {"api_key": KEY},
)


@pytest.mark.parametrize("parameters", WRONG_PLACES)
def test_a_key_in_the_wrong_place_is_refused_without_repeating_it(parameters):
    with pytest.raises(HarnessError) as error:
        Spec("chat", "o4-mini", parameters=parameters)
    assert KEY not in str(error.value) and error.value.hint


def test_the_key_is_in_no_file_log_or_error(serve, tmp_path, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_LOG", "debug")
    monkeypatch.setenv("JUDGE_KEY", KEY)
    replies = {
        "echoed": completion(f"your key is {KEY}"),
        "500": {"status": 500, "body": {"error": {"message": f"bad header Bearer {KEY}"}}},
        "malformed": {"body": f"<html>{KEY}</html>"},
        "401": {"status": 401, "body": {"error": {"message": "Incorrect API key: sk-tes***********cret"}}},
    }
    server, told = serve(lambda number, body: replies[asked(body)]), []
    for question in replies:
        try:
            told += judge(spec_for(server, key_env="JUDGE_KEY", retries=1), [question], tmp_path / "j.sqlite")
        except JudgeError as error:
            trail = (error.__cause__, error.__context__)
            told += [str(error), repr(error), repr(trail)]
    assert len(told) == 1 + 3 * 3 and told[0] == "your key is [key]"
    files = "".join(p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file())
    everything = "\n".join([*told, files, caplog.text, *capfd.readouterr()])
    assert "your key is [key]" in files
    assert KEY not in everything and "sk-tes" not in everything


def test_without_the_package_it_says_what_to_install(serve, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, "harness.judges.api", raising=False)
    with pytest.raises(HarnessError, match="needs the package `openai`") as error:
        judge(spec_for(serve(echo)), ["x"], tmp_path / "j.sqlite")
    assert "pip install 'merge-harness[judges]'" in error.value.hint


def test_stored_answers_need_neither_package_nor_key(serve, tmp_path, monkeypatch):
    server, store = serve(echo), tmp_path / "j.sqlite"
    monkeypatch.setenv("JUDGE_KEY", KEY)
    judge(spec_for(server, key_env="JUDGE_KEY"), QUESTIONS, store)
    monkeypatch.delenv("JUDGE_KEY")
    monkeypatch.setitem(sys.modules, "openai", None)
    assert judge(spec_for(server, key_env="JUDGE_KEY"), QUESTIONS, store).facts["asked"] == 0
