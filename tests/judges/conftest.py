"""Tiny judges, and a chat server that answers, stumbles and falls silent as told."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.judges import Spec

ROOT = Path(__file__).parents[2]
TINY = ROOT / "harness" / "families" / "tiny"
CPU = {"device": "cpu", "threads": 1}


def tokenizer_like_tiny(path, pad=True):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY / "base")
    if not pad:
        tokenizer.pad_token = None
    tokenizer.save_pretrained(path)
    return tokenizer


def reward_model(path, kind="llama", labels=1, pad=True, seed=0):
    """A random sequence classifier with the tiny family's tokenizer."""
    import torch
    import transformers

    tokenizer = tokenizer_like_tiny(path, pad)
    sizes = dict(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        num_labels=labels,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )
    name = {"llama": "Llama", "qwen2": "Qwen2", "deberta": "DebertaV2"}[kind]
    if kind == "deberta":  # as the Safety-Tuned judge
        sizes |= dict(relative_attention=True, position_buckets=32, pos_att_type=["p2c", "c2p"])
        del sizes["num_key_value_heads"]
    config = getattr(transformers, f"{name}Config")(**sizes)
    torch.manual_seed(seed)
    getattr(transformers, f"{name}ForSequenceClassification")(config).save_pretrained(path)
    return path


class Server(ThreadingHTTPServer):
    """`script(number, body) -> reply`; `number` counts requests from 0. A reply is a dict with `status`,
    `body` (str or JSON), `headers`, `wait` (seconds before it), `cut` (close after half of the body)."""

    daemon_threads = True

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen, self.headers_seen, self.times = script, [], [], []
        self.lock, self.flying, self.most = threading.Lock(), 0, 0
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        pass  # clients that hang up are part of the tests


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            number = len(server.seen)
            server.seen.append(body)
            server.headers_seen.append({name.lower(): value for name, value in self.headers.items()})
            server.times.append(time.monotonic())
            server.flying += 1
            server.most = max(server.most, server.flying)
        try:
            self.reply(server.script(number, body))
        finally:
            with server.lock:
                server.flying -= 1

    def reply(self, reply):
        time.sleep(reply.get("wait", 0))
        body = reply["body"] if isinstance(reply["body"], str) else json.dumps(reply["body"])
        data = body.encode()
        self.send_response(reply.get("status", 200))
        headers = {
            "Content-Type": "application/json",
            "Content-Length": len(data),
            **reply.get("headers", {}),
        }
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if reply.get("cut"):
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
            return
        self.wfile.write(data)

    def log_message(self, *args):
        pass


def completion(text, finish="stop", usage=(7, 3), **message):
    body = {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "served-1",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
    }
    if usage:
        body["usage"] = {
            "prompt_tokens": usage[0],
            "completion_tokens": usage[1],
            "total_tokens": sum(usage),
        }
    return {"body": body}


def asked(body):
    """The question of a request."""
    return body["messages"][-1]["content"]


KEY = "sk-test-3f9c2b7a51e84d60-secret"
QUICK = {"backoff": 0.01, "backoff_max": 0.05, "timeout": 5, "retries": 3, "concurrency": 2}
QUESTIONS = [f"question {i}" for i in range(6)]


def spec_for(server, model="local-judge", **parameters):
    return Spec("chat", model, parameters={**QUICK, "base_url": server.url, **parameters})


def echo(number, body):
    return completion(f"about {asked(body)}")


@pytest.fixture
def serve():
    """Starts servers; ends them with the test."""
    servers = []

    def start(script):
        servers.append(Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
