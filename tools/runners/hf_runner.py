#!/usr/bin/env python3
"""Models of Hugging Face transformers as arms of a sweep (docs/RUNNER.md): decoders, encoder–decoders and encoders, on any device.

    models:
      hf: {engine: {exec: [python3, tools/runners/hf_runner.py, --compile, decode], ids_from: ours}, path: models/m, dtype: bf16, device: cuda}

--compile none (default: dynamic cache, eager kernels), decode (static cache, the decode step through torch.compile, as transformers' own
generate does it) or all (the prefill too: a graph a length, made in the warm-ups). --attention sdpa (default) or eager. Keys of a model
beside `path`: `dtype` (f32, bf16, f16, auto: as stored), `device` (cpu, cuda, cuda:N; auto: the CPU, as ours), `threads`,
`weights: random:SEED` (path is a config). Needs python3 with torch and transformers.
"""
import argparse
import inspect
import json
import math
import os
import sys

from peer import Fault, out_of_memory, reset_peak, resident, serve

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
try:
    import torch
    import transformers
except ImportError as e:
    sys.exit(f"hf_runner: {e}: a python3 with torch and transformers is needed")

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
COMPILE = ("none", "decode", "all")


def config_of(entry):
    path = entry.get("path")
    if not path or not os.path.exists(path):
        raise Fault("load", f"path: {path} is not there")
    try:
        return transformers.AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as e:
        raise Fault("load", f"{path}: {str(e).splitlines()[0]}") from e


def dtype_of(entry, config):
    name = entry.get("dtype") or "auto"
    if name != "auto" and name not in TYPES:
        raise Fault("load", f"dtype: \"{name}\", expected f32, bf16, f16 or auto")
    stored = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None) or torch.float32
    return TYPES.get(name, getattr(torch, stored) if isinstance(stored, str) else stored)


def device_of(entry):
    name = entry.get("device") or "auto"
    if name in ("auto", "cpu"):
        return torch.device("cpu")
    if name.split(":")[0] != "cuda":
        raise Fault("load", f"device: \"{name}\", expected auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise Fault("load", f"device {name}: torch sees no GPU")
    return torch.device("cuda:0" if name == "cuda" else name)


def class_of(config):
    """What runs it: a decoder, an encoder with a decoder, or an encoder."""
    if config.is_encoder_decoder:
        return "seq2seq", transformers.AutoModelForSeq2SeqLM
    if type(config) in transformers.AutoModelForCausalLM._model_mapping.keys() and config.model_type not in ("bert", "roberta", "distilbert"):
        return "decoder", transformers.AutoModelForCausalLM
    return "encoder", transformers.AutoModel


def parameters(entry, config, cls):
    """How many: of the files' headers, or of the shape alone."""
    n, files = 0, sorted(f for f in os.listdir(entry["path"]) if f.endswith(".safetensors")) if os.path.isdir(entry["path"]) else []
    if entry.get("weights") or not files:
        with torch.device("meta"):
            return sum(p.numel() for p in cls.from_config(config).parameters())
    for name in files:
        with open(os.path.join(entry["path"], name), "rb") as f:
            head = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        n += sum(math.prod(t["shape"]) for key, t in head.items() if key != "__metadata__")
    return n


class Weights:
    """A model's tensors, once for all entries that differ only in how they run."""

    def __init__(self, entry, config, cls, device, dtype, attention):
        torch.manual_seed(0)
        self.users = 0
        if entry.get("weights"):
            seed = str(entry["weights"]).partition("random:")[2]
            if not seed.isdigit():
                raise Fault("load", f"weights: \"{entry['weights']}\", expected random:SEED")
            torch.manual_seed(int(seed))
            config._attn_implementation = attention
            before = torch.get_default_dtype()
            torch.set_default_dtype(dtype)
            try:
                with device:
                    self.module = cls.from_config(config)
            finally:
                torch.set_default_dtype(before)
        else:
            self.module = cls.from_pretrained(entry["path"], dtype=dtype, attn_implementation=attention).to(device)
        self.module.eval()


class Model:
    def __init__(self, engine, entry, want):
        self.config = config_of(entry)
        self.kind, cls = class_of(self.config)
        self.device, self.how = device_of(entry), engine.how
        attention, dtype = engine.attention, dtype_of(entry, self.config)
        self.path, self.synthetic, self.vocab = entry["path"], bool(entry.get("weights")), self.config.vocab_size
        if self.how != "none" and self.kind != "decoder":
            raise Fault("load", f"--compile {self.how} is for decoders, {self.path} is none")
        self.threads = entry.get("threads") or want["threads"]
        torch.set_num_threads(self.threads)
        torch.set_grad_enabled(False)
        self.key = (os.path.realpath(self.path), str(entry.get("weights")), str(dtype), str(self.device), attention)
        self.engine, self.weights = engine, engine.weights.get(self.key)
        if not self.weights:
            self.weights = engine.weights[self.key] = Weights(entry, self.config, cls, self.device, dtype, attention)
        self.weights.users += 1
        self.module = self.weights.module
        self.takes = inspect.signature(self.module.forward).parameters
        ends = self.module.generation_config.eos_token_id if self.kind != "encoder" else None
        ends = self.config.eos_token_id if ends is None and hasattr(self.config, "eos_token_id") else ends
        self.ends = [e for e in (ends if isinstance(ends, list) else [ends]) if e is not None and 0 <= e < self.vocab]
        self.ends_at = torch.tensor(self.ends, dtype=torch.long, device=self.device)
        self.tokenizer, self.cache, self.room, self.step = None, None, (0, 0), None

    def bytes(self):
        n = sum(p.numel() * p.element_size() for p in self.module.parameters())
        held = n + sum(b.numel() * b.element_size() for b in self.module.buffers())
        return {"weights_bytes": n, "resident_bytes": held}

    def close(self):
        self.weights.users -= 1
        self.cache = self.step = self.module = None
        if self.weights.users == 0:
            self.engine.weights.pop(self.key, None)
        self.weights = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def tokenize(self, text, context):
        if not self.tokenizer:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.path)
        return self.tokenizer(text, truncation=True, max_length=context)["input_ids"]

    @torch.inference_mode()
    def ready(self, batch, context, tokens):
        """Room for a trial, before its clock runs; the peak of memory starts anew."""
        torch.set_num_threads(self.threads)
        if self.kind == "decoder" and self.how != "none":
            if self.room[0] != batch or self.room[1] < context + tokens:
                self.cache = transformers.StaticCache(config=self.config, max_cache_len=context + tokens)
                self.room = (batch, context + tokens)
            elif self.cache.layers and getattr(self.cache.layers[0], "is_initialized", True):
                self.cache.reset()
            if self.step is None:
                mode = "reduce-overhead" if self.device.type == "cuda" else "default"
                self.step = torch.compile(self.module.__call__, mode=mode, dynamic=False)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            torch.cuda.synchronize(self.device)
        else:
            reset_peak()

    def pick(self, logits, stop):
        """The best id of each sequence, on the host: the device is waited for."""
        last = logits[:, -1].float()
        if not stop and self.ends:
            last = last.index_fill(1, self.ends_at, float("-inf"))
        best = last.max(-1)
        ids, high = best.indices.tolist(), best.values.tolist()
        if not all(abs(h) < float("inf") for h in high):  # NaN wins a maximum
            raise Fault("numeric", "the logits are NaN or infinite")
        return best.indices[:, None], ids

    def forward(self, run, ids, cache, at, more):
        more = dict(more, past_key_values=cache, use_cache=True)
        if "logits_to_keep" in self.takes:
            more["logits_to_keep"] = 1
        positions = torch.arange(at, at + ids.shape[1], device=self.device)
        if "cache_position" in self.takes:
            more["cache_position"] = positions
        if "position_ids" in self.takes:
            more["position_ids"] = positions[None]
        if run is self.step and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        return run(**{"decoder_input_ids" if self.kind == "seq2seq" else "input_ids": ids}, **more)

    @torch.inference_mode()
    def generate(self, prompts, tokens, stop, clock):
        ids, made, more, cache, at = torch.tensor(prompts, device=self.device), [[] for _ in prompts], {}, None, 0
        if self.kind == "encoder":
            self.module(ids).last_hidden_state.float().cpu()
            clock.mark("encode")
            return made
        if self.kind == "seq2seq":
            more["encoder_outputs"] = self.module.get_encoder()(ids)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            clock.mark("encode")
            ids = torch.full((len(prompts), 1), self.config.decoder_start_token_id, device=self.device)
            cache = transformers.EncoderDecoderCache(transformers.DynamicCache(config=self.config), transformers.DynamicCache(config=self.config))
        elif self.how != "none":
            cache = self.cache
        else:
            cache = transformers.DynamicCache(config=self.config)
        open_ = [True] * len(prompts)
        for n in range(tokens):
            run = self.module if self.how == "none" or (n == 0 and self.how == "decode") else self.step
            out = self.forward(run, ids, cache, at, more)
            at += ids.shape[1]
            ids, known = self.pick(out.logits, stop)
            clock.token()
            for b, one in enumerate(known):
                if open_[b]:
                    made[b].append(one)
                    open_[b] = not (stop and one in self.ends)
            if not any(open_):
                break
        self.cache_now = cache
        return made

    def kv_len(self, prompts):
        if self.kind == "encoder":
            return None
        n, text = len(prompts[0]), self.config.get_text_config(decoder=True)
        kinds = getattr(text, "layer_types", None) or [None] * layers_of(self.config)
        window = getattr(text, "sliding_window", None) or n
        return [[min(n, window) if k == "sliding_attention" else n for k in kinds] for _ in prompts]

    def memory(self, prompts, made):
        out, kv = {"weights": self.bytes()["weights_bytes"]}, 0
        if self.kind != "encoder":
            caches = [self.cache_now] if self.kind == "decoder" else [self.cache_now.self_attention_cache, self.cache_now.cross_attention_cache]
            for layer in (layer for c in caches for layer in c.layers):
                kv += sum(t.numel() * t.element_size() for t in (layer.keys, layer.values) if t is not None)
            out["kv"], self.cache_now = kv, None
        if self.device.type == "cuda":
            out["device_peak"] = torch.cuda.max_memory_reserved(self.device)
        else:
            out["device_peak"] = resident()[1]
        out["other"] = max(0, out["device_peak"] - out["weights"] - kv)
        return out


def layers_of(config):
    text = config.get_text_config(decoder=True)
    return getattr(text, "num_decoder_layers", None) or text.num_hidden_layers


class Engine:
    name, version = "hf_runner", f"transformers {transformers.__version__} torch {torch.__version__}"

    def __init__(self, how, attention):
        self.weights, self.how, self.attention = {}, how, attention

    @staticmethod
    def devices():
        out = [{"kind": "cpu", "uuid": "cpu", "name": "cpu", "bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}]
        for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            p = torch.cuda.get_device_properties(i)
            out.append({"kind": "cuda", "uuid": f"GPU-{p.uuid}", "name": p.name, "bytes": p.total_memory})
        return out

    def describe(self, entry):
        config = config_of(entry)
        kind, cls = class_of(config)
        dtype = dtype_of(entry, config)
        device_of(entry)
        text = config.get_text_config(decoder=True)
        heads = text.num_attention_heads
        size = getattr(text, "head_dim", None) or getattr(text, "d_kv", None) or text.hidden_size // heads
        kv = 2 * layers_of(config) * (getattr(text, "num_key_value_heads", None) or heads) * size * torch.empty(0, dtype=dtype).element_size()
        errors = []
        if self.how != "none" and kind != "decoder":
            errors.append(f"--compile {self.how} is for decoders, {entry['path']} is none")
        return dict(layers=layers_of(config), vocab=config.vocab_size, max_positions=getattr(text, "max_position_embeddings", 0) or 0,
                    weights_bytes=parameters(entry, config, cls) * torch.empty(0, dtype=dtype).element_size(), kv_bytes_per_token=0 if kind == "encoder" else kv,
                    synthetic=bool(entry.get("weights")), encoder=kind != "decoder", errors=errors)

    def load(self, entry, want):
        try:
            return Model(self, entry, want)
        except (OSError, ValueError, KeyError, RuntimeError) as e:
            if out_of_memory(e):
                raise
            raise Fault("load", f"{entry.get('path')}: {str(e).strip().splitlines()[0][:300]}") from e


def main():
    p = argparse.ArgumentParser(prog="hf_runner.py", description="Hugging Face transformers as a runner of paceline (docs/RUNNER.md).")
    p.add_argument("--compile", choices=COMPILE, default="none")
    p.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    a = p.parse_args()
    serve(Engine(a.compile, a.attention))


if __name__ == "__main__":
    main()
