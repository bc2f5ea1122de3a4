"""One request to an OpenAI-compatible chat API: pace, patience, and an answer or a reason. Heavy: openai."""

from __future__ import annotations

import email.utils
import json
import random
import re
import threading
import time
from dataclasses import dataclass
from typing import Any

import openai

from harness.judges.spec import JudgeError, Spec

AGAIN = {408, 409, 425, 429}  # and every 5xx
FILTERED = {"content_filter", "content_policy_violation", "invalid_prompt"}  # the prompt itself is refused
EXHAUSTED = {"insufficient_quota", "billing_hard_limit_reached"}


class Stopped(Exception):
    """Another request failed for good; this one is given up."""


@dataclass(frozen=True)
class Fault:
    """Why a request had no answer. `wait`: seconds the server asks for. `final`: asking again is no use."""

    reason: str
    wait: float | None = None
    final: bool = False


class Pace:
    """Spaces requests of all threads evenly: `per_minute` of them, None for no limit."""

    def __init__(self, per_minute: float | None, stop: threading.Event) -> None:
        self._gap, self._stop = 60 / per_minute if per_minute else 0.0, stop
        self._lock, self._next = threading.Lock(), 0.0

    def wait(self) -> None:
        """Return when a request may go out. Raises Stopped."""
        with self._lock:
            at = max(time.monotonic(), self._next)
            self._next = at + self._gap
        self.sleep(at - time.monotonic())

    def hold(self, seconds: float) -> None:
        """Let no request go out for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        if self._stop.wait(max(seconds, 0)):
            raise Stopped


class Client:
    """Asks one model. `body` holds the request's fields besides model and messages.

    The key is sent in the header and nowhere else: it is taken out of whatever the server says.
    """

    def __init__(self, spec: Spec, base_url: str, key: str | None, body: dict[str, Any]) -> None:
        self.spec, self.base_url, self._key = spec, base_url, key
        self._body = {name: value for name, value in body.items() if name != "extra_body"}
        self._extra = body.get("extra_body")
        self.stop = threading.Event()
        self._pace = Pace(spec.setting("requests_per_minute"), self.stop)
        # A local server wants no key, the client does.
        self._openai = openai.OpenAI(
            api_key=key or "none",
            base_url=base_url,
            timeout=spec.setting("timeout"),
            max_retries=0,
        )

    def complete(self, messages: list[dict]) -> dict[str, Any]:
        """{"text", "finish", "tokens_in", "tokens_out", "model"}; counts are None where the server is silent.

        Faults that may pass are met with longer and longer pauses. Raises JudgeError, Stopped.
        """
        tries = self.spec.setting("retries") + 1
        for attempt in range(1, tries + 1):
            self._pace.wait()
            found = self._ask(messages)
            if not isinstance(found, Fault):
                return found
            if self.stop.is_set():
                raise Stopped
            if found.final or attempt == tries:
                break
            if (found.wait or 0) > self.spec.setting("longest_wait"):
                raise self._error(f"asks to wait {found.wait:.0f} s: {found.reason}")
            if found.wait:
                self._pace.hold(found.wait)
            self._pace.sleep(max(self._pause(attempt), found.wait or 0))
        raise self._error(f"failed {attempt} time{'s' * (attempt > 1)}: {found.reason}")

    def close(self) -> None:
        self.stop.set()
        self._openai.close()

    def _pause(self, attempt: int) -> float:
        longest = min(self.spec.setting("backoff") * 2 ** (attempt - 1), self.spec.setting("backoff_max"))
        return longest * random.uniform(0.5, 1)  # many clients that failed together must not return together

    def _ask(self, messages: list[dict]) -> dict[str, Any] | Fault:
        try:
            raw = self._openai.chat.completions.with_raw_response.create(
                model=self.spec.model, messages=messages, extra_body=self._extra, **self._body
            )
            text = self._clean(raw.text)
        except openai.APIStatusError as error:
            return self._refused(error)
        except openai.APITimeoutError:
            return Fault(f"no answer within {self.spec.setting('timeout'):g} s")
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            return Fault(self._clean(f"no connection: {type(cause).__name__}: {cause}"))
        return _completion(text)

    def _refused(self, error: openai.APIStatusError) -> dict[str, Any] | Fault:
        status, code = error.status_code, error.code or ""
        if status == 400 and code in FILTERED:
            return {"text": "", "finish": code, "tokens_in": None, "tokens_out": None, "model": None}
        reason = self._clean(f"status {status}: {' '.join(str(error.message).split())[:300]}")
        again = (status in AGAIN or status >= 500) and code not in EXHAUSTED
        return Fault(reason, _asked_to_wait(error.response.headers), final=not again)

    def _clean(self, text: str) -> str:
        text = text.replace(self._key, "[key]") if self._key else text
        # Servers repeat a wrong key in part, with asterisks in the middle.
        return re.sub(r"\b(sk|Bearer)[-_ ][\w*.-]*\*[\w*.-]*", "[key]", text)

    def _error(self, what: str) -> JudgeError:
        return JudgeError(
            f"judge `{self.spec.model}` at {self.base_url} {what}",
            "what it had answered is stored; the same command goes on from there",
        )


def _completion(text: str) -> dict[str, Any] | Fault:
    try:
        data = json.loads(text)
        choice = data["choices"][0]
        content = choice["message"].get("content") or ""
        if not isinstance(content, str):
            raise TypeError
        content = content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # half an emoji
        usage = data.get("usage") or {}
        return {
            "text": content,
            "finish": choice.get("finish_reason"),
            "tokens_in": usage.get("prompt_tokens"),
            "tokens_out": usage.get("completion_tokens"),
            "model": data.get("model"),
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        return Fault(f"its answer is no chat completion: {' '.join(text.split())[:120]!r}")


def _asked_to_wait(headers: Any) -> float | None:
    """Seconds of `Retry-After` (a number or a date) or `retry-after-ms`."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(float(value) / unit, 0.0)
        except ValueError:
            date = email.utils.parsedate_tz(value)
            if date is not None:
                return max(email.utils.mktime_tz(date) - time.time(), 0.0)
    return None
