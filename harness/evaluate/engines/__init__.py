"""One file per engine, loaded by `harness.evaluate.serve` in the child process.

An engine is a file here (or, with a dot in its name, any module) with a class `Engine(settings)` that has

    load(checkpoint) -> facts                        raises LoadError for a checkpoint that cannot be used;
                                                     {"restart": why} asks for a new process, and with
                                                     "warning": True the user is told
    render(messages, add_generation_prompt) -> text
    generate(requests, emit)                         (index, {"context", "kwargs", "seed"}) pairs
    loglikelihood(requests, emit)                    (index, {"context", "continuation", "seed"}) pairs
    loglikelihood_rolling(requests, emit)            (index, {"text", "seed"}) pairs

`emit([(index, answer), ...])` hands a finished batch to the parent, which stores it at once; it returns when
the batch before is stored. Answers:
{"text", "tokens", "finish": "stop" or "length"}; {"logprob", "greedy"}; {"logprob", "tokens"}.
"""


class LoadError(Exception):
    """The checkpoint is at fault, not the engine; args: what is wrong, what to do about it."""
