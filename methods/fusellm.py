"""FuseLLM: the base, trained on rows towards the token distributions of the experts.

Knowledge Fusion of Large Language Models (ICLR 2024, arXiv:2401.10491, sections 3.2 and 3.3); code
github.com/fanqiwan/FuseAI @4135974 (folder FuseLLM). Every source reads every row, teacher-forced; a row's
target is the distribution of the source with the lowest cross-entropy on it (`min_ce`), or the sources' mean
with weights softmax(1 / exp(cross-entropy)) (`avg_ce`). Loss: (1 - w) LM + w CE(target, student), w = 0.1.
Ours differs: sources share the base's tokenizer, so no tokens are aligned; the base is a source only under
`sources: experts_and_base` (the code's run has the target among its sources). A row is one sequence, cut at
`max_tokens`; the code packs texts, each with an end token, into 2048 tokens. The fused loss is on the tokens
that the LM loss is on; the code adds each sequence's last position. Logits are rounded to float16 after their
highest is subtracted, in the code before. The first step of the warm-up has a rate above zero. The student's
weights are float32 for either `dtype`. The code ran one epoch of MiniPile in batches of 128 sequences.
"""

from typing import Literal

from harness import merge_method, param, train


@merge_method("fusellm", title="FuseLLM", paper="arXiv:2401.10491")
class FuseLLM:
    fusion: Literal["min_ce", "avg_ce"] = param("min_ce", "a row's target: its best source, or a mixture")
    sources: Literal["experts", "experts_and_base"] = param("experts", "whose distributions are fused")
    steps: int = param(100, "optimizer steps", low=0, noop=0)
    batch_size: int = param(8, "rows per step", low=1)
    learning_rate: float = param(1e-5, "highest rate of AdamW, betas 0.9 and 0.95", low=0, high=1, noop=0.0)
    warmup: float = param(
        0.008, "share of the steps in which the rate rises; a cosine follows", low=0, high=1
    )
    weight_decay: float = param(0.1, "of matrices; norms and biases are not decayed", low=0, high=1, noop=0.0)
    top_k: int = param(10, "tokens of a source's distribution that are kept, per position", low=1)
    fuse_weight: float = param(0.1, "w, share of the fused loss in the loss", low=0, high=1, noop=0.0)
    max_tokens: int = param(512, "tokens of a row that are read", low=2)
    dtype: Literal["float32", "bfloat16"] = param("float32", "of teachers, and of the student's products")

    def reads_rows(self, roles):
        return roles

    def degenerate(self, roles):
        said = [
            (self.steps == 0 or self.learning_rate == 0, "no training takes place: the result is the base"),
            (
                self.fuse_weight == 0,
                "fuse_weight 0: the base is trained on the rows, the experts are not used",
            ),
            (
                len(roles) == 1 and self.sources == "experts",
                "one source: this is distillation, nothing is fused",
            ),
        ]
        return [sentence for holds, sentence in said if holds]

    def build(self, context):
        return train.fuse(context, self)
