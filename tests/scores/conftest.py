import json

import pytest
import torch

ROWS = [
    {"prompt": "how much is 2 + 2 ?", "completion": " it is 4 ."},
    {"prompt": "über die Brücke", "completion": " geht das Kamel , und der Fluss ist breit"},
    {"prompt": "a", "completion": "b c d"},
    {"prompt": "the quick brown fox", "completion": " jumps over the lazy dog again and again"},
]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)  # the models are too small for more


def tokenizer():
    """Bytes as tokens, with merges of some common pairs: every text can be coded and decoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False)  # fmt: skip
    made.train_from_iterator([row["prompt"] + row["completion"] for row in ROWS] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """checkpoint("qwen2", tied=True): a folder with a random model of two layers and its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    kinds = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}

    def make(kind="qwen2", tied=True, seed=0):
        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(seed)
        config, model = kinds[kind]
        config = config(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                        num_key_value_heads=2, vocab_size=320, max_position_embeddings=128,
                        tie_word_embeddings=tied, initializer_range=0.2)  # fmt: skip
        model(config).to(torch.bfloat16).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        if kind == "llama":  # transformers would build Llama's own tokenizer class from the model type
            path = folder / "tokenizer_config.json"
            path.write_text(
                json.dumps({**json.loads(path.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"})
            )
        return folder

    return make


@pytest.fixture(scope="session")
def model_folder(checkpoint):
    return checkpoint()
