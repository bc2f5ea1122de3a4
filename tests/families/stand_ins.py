"""Makers of tiny checkpoints in the official layouts: Qwen2, Llama with grouped queries, Mistral."""

from pathlib import Path

KINDS = {
    "qwen2": ("Qwen2", {}),
    "llama": ("Llama", {"num_key_value_heads": 2}),
    "mistral": ("Mistral", {"num_key_value_heads": 1, "sliding_window": None}),
}
SIZES = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    initializer_range=0.3,
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer_with(extra=(), template=True, eos="<|im_end|>"):
    """The tiny family's byte-level BPE, with tokens of one's own at the end."""
    from transformers import AutoTokenizer

    import harness.families.tiny as tiny

    made = AutoTokenizer.from_pretrained(Path(tiny.__file__).parent / "base")
    made.add_tokens(["<|im_start|>", "<|im_end|>", *extra], special_tokens=True)
    made.eos_token = eos
    made.chat_template = TEMPLATE if template else None
    return made


def stand_in(path, kind="llama", *, of=None, seed=0, tied=False, shards=1, extra=(), template=True, **config):
    """A random model of the architecture `kind`; `of`: a small change of that model, as a fine-tune is."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    name, own = KINDS[kind]
    tokenizer = tokenizer_with(extra, template)
    settings = SIZES | own | dict(vocab_size=len(tokenizer), tie_word_embeddings=tied)
    settings |= dict(eos_token_id=tokenizer.eos_token_id, bos_token_id=None, pad_token_id=None)
    torch.manual_seed(seed)
    made = getattr(transformers, f"{name}Config")(**settings | config)
    model = getattr(transformers, f"{name}ForCausalLM")(made).to(torch.bfloat16)
    if of is not None:
        near = transformers.AutoModelForCausalLM.from_pretrained(of, dtype=torch.float32).state_dict()
        state = model.state_dict()
        for key, held in state.items():
            rows = min(len(held), len(near[key]))
            held[:rows] = (near[key][:rows] + torch.randn_like(near[key][:rows]) * 0.01).to(torch.bfloat16)
    size = sum(p.numel() * 2 for p in model.parameters()) // shards + 50_000 if shards > 1 else "5GB"
    model.save_pretrained(path, max_shard_size=size)
    tokenizer.save_pretrained(path)
    return path
