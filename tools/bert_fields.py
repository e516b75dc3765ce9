"""What stands in the head of a BERT encoder in the GGUF format: its sizes, its pooling and its WordPiece vocabulary."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tools.gguf_format import BOOL, F32, I32, STRING, U32, array_field, number_field, string_field, text

LAYER_NORM_EPSILON = 1e-12
_IDS = {
    "padding": "[PAD]",
    "unknown": "[UNK]",
    "bos": "[CLS]",
    "eos": "[SEP]",
    "cls": "[CLS]",
    "seperator": "[SEP]",  # the format's own spelling
    "mask": "[MASK]",
}


@dataclass(frozen=True, slots=True)
class BertSizes:
    """Positions, width of a vector, width between the layers, layers, attention heads."""

    context: int
    embd: int
    ff: int
    layers: int
    heads: int


def bert_fields(
    sizes: BertSizes,
    vocabulary: Sequence[tuple[str, int]],
    specials: Mapping[str, int],
    *,
    name: str,
    file_type: int,
    pooling: int,
) -> list[bytes]:
    """The fields in their order. `vocabulary` holds each word as the engine spells it and its token type.

    `specials` says where `[PAD] [UNK] [CLS] [SEP] [MASK]` stand in it. `file_type` and `pooling` are numbers of the
    engine's.
    """
    return [
        string_field("general.architecture", "bert"),
        string_field("general.name", name),
        number_field("general.file_type", U32, file_type),
        number_field("bert.context_length", U32, sizes.context),
        number_field("bert.embedding_length", U32, sizes.embd),
        number_field("bert.feed_forward_length", U32, sizes.ff),
        number_field("bert.block_count", U32, sizes.layers),
        number_field("bert.attention.head_count", U32, sizes.heads),
        number_field("bert.attention.layer_norm_epsilon", F32, LAYER_NORM_EPSILON),
        number_field("bert.attention.causal", BOOL, 0),
        number_field("bert.pooling_type", U32, pooling),
        string_field("tokenizer.ggml.model", "bert"),
        string_field("tokenizer.ggml.pre", "default"),
        number_field("tokenizer.ggml.token_type_count", U32, 2),
        array_field("tokenizer.ggml.tokens", STRING, [text(word) for word, _ in vocabulary]),
        array_field("tokenizer.ggml.scores", F32, [struct.pack("<f", 0.0) for _ in vocabulary]),
        array_field("tokenizer.ggml.token_type", I32, [struct.pack("<i", kind) for _, kind in vocabulary]),
        *(number_field(f"tokenizer.ggml.{key}_token_id", U32, specials[word]) for key, word in _IDS.items()),
    ]
