"""The families beside Llama for make_goldens.py: tiny random models of odd shapes in the layouts of the wild, with what
transformers says about them. A directory a case: config.json, model.safetensors, and

    decoders          ids, logits (the last rows, where the prompt is long), hidden1 (after block 1), greedy
    encoders          ids (types, mask), hidden (last), hidden1, pooled where there is a pooler
    encoder-decoders  ids (mask), decoder_ids, logits, hidden1 (decoder), encoded, greedy
    image towers      pixels [2, channels, size, size], hidden, hidden1: both images' rows one after the other
"""

import json
import os

import numpy as np
import torch
import transformers as tf
from safetensors.torch import save_file

GREEDY = 24
VOCAB = 97
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
DTYPES = {F32: "float32", F16: "float16", BF16: "bfloat16"}

LM = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=44, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
          max_position_embeddings=640, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False)
BERT = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=52, num_hidden_layers=2, num_attention_heads=3,
            max_position_embeddings=60, pad_token_id=0)
T5 = dict(vocab_size=VOCAB, d_model=24, d_kv=10, d_ff=44, num_layers=2, num_heads=3, relative_attention_num_buckets=16,
          relative_attention_max_distance=50, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0)
VISION = dict(hidden_size=24, intermediate_size=44, num_hidden_layers=3, num_attention_heads=3, image_size=20, patch_size=6)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, rope_theta=10000.0)


def case(cls, conf, layout, n, dtype=F32, tail=0, **more):
    return dict(cls=cls, conf=conf, layout=layout, n=n, dtype=dtype, tail=tail or n, **more)


# layout: v5 (as transformers 5 saves it), hub (keys as on the Hub) or bare (the same, no prefix)
CASES = {
    "qwen2": case("Qwen2ForCausalLM", {**LM, "num_attention_heads": 5, "num_key_value_heads": 1, "hidden_size": 30}, "hub", 37, F16),
    "qwen2_window": case("Qwen2ForCausalLM", {**LM, "num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 20,
                                              "max_window_layers": 1, "tie_word_embeddings": True}, "v5", 71, BF16, 30),
    "qwen3": case("Qwen3ForCausalLM", {**LM, "head_dim": 12}, "v5", 33, BF16),
    "qwen3_hub": case("Qwen3ForCausalLM", {**LM, "head_dim": 16, "tie_word_embeddings": True}, "bare", 1, F16),
    # a prompt that goes round the ring, and a window of many chunks
    "mistral_window": case("MistralForCausalLM", {**LM, "sliding_window": 24, "head_dim": 16}, "hub", 411, F32, 20),
    "mistral_wide": case("MistralForCausalLM", {**LM, "sliding_window": 150}, "v5", 500, F16, 12),
    "yarn": case("LlamaForCausalLM", {**LM, "rope_scaling": YARN}, "hub", 150, BF16, 20),
    "yarn_factor": case("LlamaForCausalLM", {**LM, "rope_scaling": {**YARN, "attention_factor": 0.8, "beta_fast": 16.0,
                                                                    "beta_slow": 2.0, "truncate": False}}, "v5", 90, BF16, 20),
    "gpt2": case("GPT2LMHeadModel", dict(vocab_size=VOCAB, n_embd=20, n_layer=2, n_head=5, n_positions=160, bos_token_id=1,
                                         eos_token_id=2), "bare", 70, F32, 30),
    "gpt2_v5": case("GPT2LMHeadModel", dict(vocab_size=VOCAB, n_embd=30, n_layer=2, n_head=3, n_positions=64, n_inner=50,
                                            activation_function="gelu_pytorch_tanh", bos_token_id=1, eos_token_id=2,
                                            scale_attn_weights=False), "v5", 1, F16),
    "bert": case("BertModel", BERT, "v5", 23, F32, types=True, padding=4),
    # as it was published: prefix, gamma and beta, heads for pre-training, position_ids
    "bert_old": case("BertForPreTraining", {**BERT, "max_position_embeddings": 320}, "hub", 300, F16, 20, types=True, padding=70),
    "bert_one": case("BertModel", {**BERT, "hidden_act": "relu", "type_vocab_size": 1}, "bare", 1, BF16),
    "roberta": case("RobertaForMaskedLM", {**BERT, "max_position_embeddings": 50, "pad_token_id": 1, "type_vocab_size": 1}, "hub",
                    40, BF16, padding=9),
    "distilbert": case("DistilBertModel", dict(vocab_size=VOCAB, dim=24, hidden_dim=40, n_layers=2, n_heads=3,
                                               max_position_embeddings=64), "v5", 33, F32, padding=5),
    "distilbert_mlm": case("DistilBertForMaskedLM", dict(vocab_size=VOCAB, dim=30, hidden_dim=40, n_layers=2, n_heads=5,
                                                         max_position_embeddings=64), "hub", 9, BF16),
    "t5": case("T5ForConditionalGeneration", T5, "hub", 150, F32, decoder=9),
    # FLAN: gated, a head of its own, no scaling
    "flan": case("T5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu", "num_decoder_layers": 3, "num_heads": 4,
                                                "d_kv": 16, "d_ff": 36, "tie_word_embeddings": False}, "hub", 40, F16, decoder=33, padding=7),
    "flan_v5": case("T5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-silu", "tie_word_embeddings": False}, "v5", 1,
                    BF16, decoder=1),
    "t5_encoder": case("T5EncoderModel", T5, "hub", 290, BF16, 20, padding=20),
    "clip": case("CLIPVisionModel", VISION, "v5", 2, F32),
    "clip_gelu": case("CLIPModel", {**VISION, "hidden_act": "gelu", "image_size": 50, "patch_size": 3}, "hub", 1, F16, 24),
}


def make_config(c):
    cls = getattr(tf, c["cls"])
    if c["cls"] == "CLIPModel":
        text = dict(vocab_size=VOCAB, hidden_size=12, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                    max_position_embeddings=8)
        return tf.CLIPConfig(vision_config=c["conf"], text_config=text, projection_dim=8)
    return cls.config_class(**c["conf"])


def randomise(model, dtype):
    with torch.no_grad():
        for k, p in model.named_parameters():
            if "norm" in k.lower() or ".ln_" in k or k.endswith("layrnorm.weight"):
                p.copy_(0.3 * torch.randn_like(p) + (0 if k.endswith("bias") else 1))
            elif k.endswith("bias"):
                p.copy_(0.3 * torch.randn_like(p))
            else:
                p.copy_(0.2 * torch.randn_like(p))
            p.copy_(p.to(dtype).float())


def config_json(conf, c):
    j = conf.to_dict()
    for k in ("_attn_implementation", "attn_implementation", "_name_or_path"):
        j.pop(k, None)
    j["architectures"] = [c["cls"]]
    if c["layout"] == "v5":
        j["dtype"] = DTYPES[c["dtype"]]
        return j
    # what files from before transformers 5 have, and no more
    for k in ("dtype", "layer_types", "scale_decoder_outputs", "transformers_version"):
        j.pop(k, None)
    j["torch_dtype"] = DTYPES[c["dtype"]]
    rope = j.pop("rope_parameters", None)
    if rope:
        j["rope_theta"] = rope.pop("rope_theta")
        kind = rope.pop("rope_type")
        j["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    if c["cls"].startswith("T5"):
        j["tie_word_embeddings"] = c["conf"].get("tie_word_embeddings", True)
    if c["cls"].startswith("CLIP"):
        j["vision_config"].pop("dtype", None)
    return j


def state_names(model, c):
    state = {k: v.to(c["dtype"]).contiguous().clone() for k, v in model.state_dict().items()}
    conf = c["conf"]
    if conf.get("tie_word_embeddings", c["cls"].startswith(("GPT2", "T5"))):
        state.pop("lm_head.weight", None)
    if c["cls"].startswith("T5"):
        state = {k: v for k, v in state.items() if "embed_tokens" not in k}
    if c["layout"] == "bare":
        state = {k.removeprefix("model.").removeprefix("transformer."): v for k, v in state.items()}
    if c["cls"].startswith("GPT2") and c["layout"] == "bare":  # the causal masks of old files
        for l in range(conf["n_layer"]):
            state[f"h.{l}.attn.bias"] = torch.ones(1, 1, 8, 8)
            state[f"h.{l}.attn.masked_bias"] = torch.tensor(-1e4)
    if c["cls"] == "BertForPreTraining":
        state = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
                 for k, v in state.items()}
        state["bert.embeddings.position_ids"] = torch.arange(320)[None]
    if c["cls"] == "CLIPModel":
        state = {k: v for k, v in state.items() if k.startswith("vision_model.") or k.endswith("_projection.weight")}
    return state


def save(d, **arrays):
    for k, v in arrays.items():
        v = v.numpy() if isinstance(v, torch.Tensor) else np.asarray(v)
        np.save(os.path.join(d, k + ".npy"), v.astype(np.int32 if v.dtype.kind in "iu" else np.float32))


def random_ids(rng, n, low=3):
    return rng.integers(low, VOCAB, n)


def greedy(step, ids):
    ids = list(ids)
    for _ in range(GREEDY):
        ids.append(int(step(torch.tensor([ids]))[0, -1].argmax()))
    return np.array(ids[-GREEDY:])


def run_decoder(d, model, c, rng):
    ids = random_ids(rng, c["n"])
    out = model(torch.tensor(ids[None]), output_hidden_states=True)
    save(d, ids=ids, logits=out.logits[0][-c["tail"]:], hidden1=out.hidden_states[1][0][-c["tail"]:],
         greedy=greedy(lambda x: model(x).logits, ids))


def run_encoder(d, model, c, rng):
    n, pad = c["n"], c.get("padding", 0)
    ids, extra = random_ids(rng, n), {}
    if pad:
        mask = np.ones(n, int)
        ids[n - pad:] = model.config.pad_token_id
        mask[n - pad:] = 0
        extra["attention_mask"] = torch.tensor(mask[None])
        save(d, mask=mask)
    if c.get("types"):
        types = (np.arange(n) > n // 2).astype(int)
        extra["token_type_ids"] = torch.tensor(types[None])
        save(d, types=types)
    base = model if c["cls"] == "T5EncoderModel" else getattr(model, model.base_model_prefix, model)
    out = base(torch.tensor(ids[None]), output_hidden_states=True, **extra)
    save(d, ids=ids, hidden=out.last_hidden_state[0][-c["tail"]:], hidden1=out.hidden_states[1][0][-c["tail"]:])
    if getattr(out, "pooler_output", None) is not None:
        save(d, pooled=out.pooler_output)


def run_t5(d, model, c, rng):
    n, pad = c["n"], c.get("padding", 0)
    ids, mask = random_ids(rng, n), np.ones(n, int)
    if pad:
        ids[n - pad:], mask[n - pad:] = 0, 0
        save(d, mask=mask)
    dec = np.concatenate([[0], random_ids(rng, c["decoder"] - 1)])
    source = dict(input_ids=torch.tensor(ids[None]), attention_mask=torch.tensor(mask[None]))
    out = model(**source, decoder_input_ids=torch.tensor(dec[None]), output_hidden_states=True)
    save(d, ids=ids, decoder_ids=dec, logits=out.logits[0], hidden1=out.decoder_hidden_states[1][0],
         encoded=out.encoder_last_hidden_state[0],
         greedy=greedy(lambda x: model(**source, decoder_input_ids=x).logits, dec))


def run_clip(d, model, c, rng):
    size = c["conf"]["image_size"]
    pixels = rng.standard_normal((c["n"], 3, size, size)).astype(np.float32)
    if size > 20:  # a smooth one is described by little
        y, x = np.mgrid[0:size, 0:size] / size
        pixels = np.stack([np.stack([np.sin(7 * (i + 1) * x * y + ch) for ch in range(3)]) for i in range(c["n"])])
        pixels = np.round(pixels * 8).astype(np.float32) / 8
    tower = model.vision_model if hasattr(model, "vision_model") else model
    out = tower(pixel_values=torch.tensor(pixels), output_hidden_states=True)
    hidden, hidden1 = (h.reshape(-1, h.shape[-1]) for h in (out.last_hidden_state, out.hidden_states[1]))
    tail = c["tail"] if c["tail"] > c["n"] else len(hidden)
    save(d, pixels=pixels, hidden=hidden[-tail:], hidden1=hidden1[-tail:])


def make_case(out, name, seed):
    c = CASES[name]
    d = os.path.join(out, name)
    os.makedirs(d, exist_ok=True)
    torch.manual_seed(seed)
    conf = make_config(c)
    conf._attn_implementation = "eager"
    model = getattr(tf, c["cls"])(conf).eval()
    if c["cls"].startswith("T5For") and not c["conf"].get("tie_word_embeddings", True):
        model.lm_head.weight = torch.nn.Parameter(torch.zeros(VOCAB, T5["d_model"]))
    randomise(model, c["dtype"])
    save_file(state_names(model, c), os.path.join(d, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(d, "config.json"), "w") as f:
        json.dump(config_json(conf, c), f, indent=1)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        if c["cls"].startswith("T5For"):
            run_t5(d, model, c, rng)
        elif c["cls"].startswith("CLIP"):
            run_clip(d, model, c, rng)
        elif c["cls"].endswith(("CausalLM", "LMHeadModel")):
            run_decoder(d, model, c, rng)
        else:
            run_encoder(d, model, c, rng)


def make_all(out, names=None):
    torch.set_num_threads(1)
    for i, name in enumerate(CASES):
        if not names or name in names:
            make_case(out, name, 200 + i)


if __name__ == "__main__":
    import sys

    make_all(os.path.join(os.path.dirname(__file__), "..", "tests", "model", "goldens", "families"), sys.argv[1:])
