#!/usr/bin/env python3
"""Writes MODEL_DIR/NAME-KIND.gguf, which llama.cpp reads, from a Llama folder of Hugging Face, without a vocabulary: the
benchmark feeds token ids.

    make_gguf.py MODEL_DIR [KIND]

KIND of the matrices: f32 (the default), f16 or q8_0 (bytes with a scale for each 32 weights); norms are float32 in all of them.
"""
import json
import pathlib
import sys

import gguf
import numpy
import safetensors.numpy

LAYER_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}
KINDS = {
    "f32": (gguf.LlamaFileType.ALL_F32, gguf.GGMLQuantizationType.F32),
    "f16": (gguf.LlamaFileType.MOSTLY_F16, gguf.GGMLQuantizationType.F16),
    "q8_0": (gguf.LlamaFileType.MOSTLY_Q8_0, gguf.GGMLQuantizationType.Q8_0),
}
TOP_NAMES = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def interleaved(weight, heads):
    """llama.cpp rotates neighbours where Hugging Face rotates halves: the rows of a head change places."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def name_of(name):
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def main():
    folder = pathlib.Path(sys.argv[1])
    kind = sys.argv[2] if len(sys.argv) > 2 else "f32"
    if kind not in KINDS:
        sys.exit(f"make_gguf.py: {kind} is no kind of weights; known: {', '.join(KINDS)}")
    file_type, matrix_type = KINDS[kind]
    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    out = gguf.GGUFWriter(folder / f"{folder.name}-{kind}.gguf", "llama")
    out.add_vocab_size(config["vocab_size"])
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(heads)
    out.add_head_count_kv(kv_heads)
    out.add_rope_dimension_count(config["head_dim"])
    out.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_file_type(file_type)
    out.add_tokenizer_model("none")
    for name, weight in safetensors.numpy.load_file(folder / "model.safetensors").items():
        if "q_proj" in name:
            weight = interleaved(weight, heads)
        elif "k_proj" in name:
            weight = interleaved(weight, kv_heads)
        weight = numpy.ascontiguousarray(weight, dtype=numpy.float32)
        stored = matrix_type if weight.ndim == 2 else gguf.GGMLQuantizationType.F32
        out.add_tensor(name_of(name), gguf.quants.quantize(weight, stored), raw_dtype=stored)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    main()
