#!/usr/bin/env python3
"""GGUF models in llama.cpp as arms of a sweep (docs/RUNNER.md), through the package llama-cpp-python.

    models:
      lcpp: {engine: {exec: [python3, tools/runners/llama_runner.py], ids_from: ours}, path: m.gguf, kv: f16}

--no-repack: weights as they stand in the file (which is faster depends on the format, and prompt and generation differ in it).
--ubatch N (512). Keys of a model beside `path`: `device` (cpu, cuda, cuda:N; auto: the CPU, as ours; cuda needs a package that was built
with it), `threads`, `kv` (f16, f32, bf16; f16). Decoders only. LLAMA_CPP_LIB_PATH names another build of its library.
"""
import argparse
import ctypes
import os
import sys

from peer import Fault, reset_peak, resident, serve

try:
    import llama_cpp as lc
    import numpy as np
except ImportError as e:
    sys.exit(f"llama_runner: {e}: a python3 with llama-cpp-python and numpy is needed")

KV_TYPES = {"f16": lc.GGML_TYPE_F16, "f32": lc.GGML_TYPE_F32, "bf16": 30}  # GGML_TYPE_BF16, which the package does not name
BATCH = 2048  # ids of one call, as llama-bench has it


def quiet(level, text, _):
    if level >= 3:  # warnings and errors
        sys.stderr.write(text.decode("utf-8", "replace"))


QUIET = lc.llama_log_callback(quiet)  # kept: C calls it


def layers_on_gpu(entry):
    name = entry.get("device") or "auto"
    if name in ("auto", "cpu"):
        return 0, 0
    if name.split(":")[0] != "cuda":
        raise Fault("load", f"device: \"{name}\", expected auto, cpu, cuda or cuda:N")
    if not lc.llama_supports_gpu_offload():
        raise Fault("load", f"device {name}: this llama-cpp-python was built without a GPU backend")
    return 1000, int(name.partition(":")[2] or 0)


def kv_of(entry):
    name = entry.get("kv") or "f16"
    name = "f16" if name == "auto" else name
    if name not in KV_TYPES:
        raise Fault("load", f"kv: \"{name}\", expected f16, f32 or bf16")
    return name


def open_model(entry, vocab_only, repack=True):
    path = entry.get("path")
    if not path or not os.path.isfile(path):
        raise Fault("load", f"path: {path} is no file, expected a GGUF")
    if entry.get("weights"):
        raise Fault("load", "weights: llama.cpp has no random ones")
    p = lc.llama_model_default_params()
    p.n_gpu_layers, p.main_gpu = layers_on_gpu(entry)
    p.vocab_only = vocab_only
    p.use_extra_bufts = repack
    model = lc.llama_model_load_from_file(path.encode(), p)
    if not model:
        raise Fault("load", f"{path}: llama.cpp does not load it")
    return model


def meta(model, key):
    """A number of the file, 0 where it has none; `{arch}` stands for the architecture."""
    out = ctypes.create_string_buffer(256)
    if "{arch}" in key:
        lc.llama_model_meta_val_str(model, b"general.architecture", out, 256)
        key = key.replace("{arch}", out.value.decode())
    n = lc.llama_model_meta_val_str(model, key.encode(), out, 256)
    return int(out.value) if n > 0 and out.value.isdigit() else 0


class Model:
    synthetic = False

    def __init__(self, engine, entry, want):
        self.context, self.ubatch = None, engine.ubatch
        self.model = open_model(entry, False, engine.repack)
        if lc.llama_model_has_encoder(self.model):
            raise Fault("load", f"{entry['path']} has an encoder: this runner is for decoders")
        self.entry, self.kv, self.threads = entry, kv_of(entry), entry.get("threads") or want["threads"]
        self.vocab_ = lc.llama_model_get_vocab(self.model)
        self.vocab, self.layers = lc.llama_vocab_n_tokens(self.vocab_), lc.llama_model_n_layer(self.model)
        end = lc.llama_vocab_eos(self.vocab_)
        self.ends = [end] if 0 <= end < self.vocab else []
        self.room, self.batch = (0, 0), lc.llama_batch_init(BATCH, 0, 1)

    def bytes(self):
        n = lc.llama_model_size(self.model)
        return {"weights_bytes": n, "resident_bytes": n}

    def close(self):
        if self.context:
            lc.llama_free(self.context)
        if self.model:
            lc.llama_batch_free(self.batch)
            lc.llama_model_free(self.model)
        self.context = self.model = None

    def tokenize(self, text, context):
        data, room = text.encode(), len(text.encode()) + 8
        out = (lc.llama_token * room)()
        n = lc.llama_tokenize(self.vocab_, data, len(data), out, room, True, False)
        return list(out[:min(max(n, 0), context)])

    def ready(self, batch, context, tokens):
        if self.room[0] < batch or self.room[1] < context + tokens:
            if self.context:
                lc.llama_free(self.context)
            p = lc.llama_context_default_params()
            p.n_ctx, p.n_seq_max = batch * (context + tokens), batch
            p.n_batch, p.n_ubatch = BATCH, self.ubatch
            p.n_threads = p.n_threads_batch = self.threads
            p.type_k = p.type_v = KV_TYPES[self.kv]
            self.context, self.room = lc.llama_init_from_model(self.model, p), (batch, context + tokens)
            if not self.context:
                self.room = (0, 0)
                raise Fault("oom", f"llama.cpp makes no context of {batch} × {context + tokens} tokens")
        lc.llama_memory_clear(lc.llama_get_memory(self.context), False)
        reset_peak()

    def run(self, ids, at, sequences, last):
        """Ids at position `at` of these sequences, one each, or all of the one sequence; logits of the last of each."""
        b = self.batch
        b.n_tokens = len(ids)
        for i, one in enumerate(ids):
            b.token[i], b.n_seq_id[i] = one, 1
            b.pos[i] = at if len(sequences) > 1 else at + i
            b.seq_id[i][0] = sequences[i] if len(sequences) > 1 else sequences[0]
            b.logits[i] = len(sequences) > 1 or (last and i == len(ids) - 1)
        if lc.llama_decode(self.context, b):
            raise Fault("runner", f"llama_decode failed at position {at}")

    def pick(self, i, stop):
        """The best id of row i; waits for it. The buffer is the context's, and ours until the next call."""
        logits = np.ctypeslib.as_array(lc.llama_get_logits_ith(self.context, i), (self.vocab,))
        if not stop:
            for end in self.ends:
                logits[end] = -np.inf
        best = int(logits.argmax())  # NaN wins a maximum
        if not np.isfinite(logits[best]):
            raise Fault("numeric", "the logits are NaN or infinite")
        return best

    def generate(self, prompts, tokens, stop, clock):
        made, context, known = [[] for _ in prompts], len(prompts[0]), []
        for s, ids in enumerate(prompts):
            for at in range(0, context, BATCH):
                self.run(ids[at:at + BATCH], at, [s], at + BATCH >= context)
            known.append(self.pick(-1, stop))
        clock.token()
        open_ = list(range(len(prompts)))
        for n in range(tokens):
            if n:
                self.run([made[s][-1] for s in open_], context + n - 1, open_, True)
                known = [self.pick(i, stop) for i in range(len(open_))]
                clock.token()
            for s, one in zip(open_, known):
                made[s].append(one)
            open_ = [s for s in open_ if not (stop and made[s][-1] in self.ends)]
            if not open_:
                break
        return made

    def kv_len(self, prompts):
        return None if lc.llama_model_n_swa(self.model) else [[len(prompts[0])] * self.layers for _ in prompts]

    def memory(self, prompts, made):
        """What the library tells: it says nothing of its KV cache, nor of a GPU's memory."""
        out = {"weights": lc.llama_model_size(self.model)}
        if not layers_on_gpu(self.entry)[0]:
            out["device_peak"] = resident()[1]
        return out


class Engine:
    name, version = "llama_runner", f"llama-cpp-python {lc.__version__}"

    def __init__(self, repack, ubatch):
        self.repack, self.ubatch = repack, ubatch
        lc.llama_log_set(QUIET, None)
        lc.llama_backend_init()

    @staticmethod
    def devices():
        return [{"kind": "cpu", "uuid": "cpu", "name": "cpu", "bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}]

    @staticmethod
    def describe(entry):
        model = open_model(entry, True)
        try:
            heads, wide = meta(model, "{arch}.attention.head_count"), meta(model, "{arch}.embedding_length")
            size = meta(model, "{arch}.attention.key_length") or (wide // heads if heads else 0)
            layers, kv_heads = meta(model, "{arch}.block_count"), meta(model, "{arch}.attention.head_count_kv") or heads
            return dict(layers=layers or 1, vocab=lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model)),
                        max_positions=meta(model, "{arch}.context_length"), weights_bytes=os.path.getsize(entry["path"]),
                        kv_bytes_per_token=2 * layers * kv_heads * size * (4 if kv_of(entry) == "f32" else 2), synthetic=False)
        finally:
            lc.llama_model_free(model)

    def load(self, entry, want):
        return Model(self, entry, want)


def main():
    p = argparse.ArgumentParser(prog="llama_runner.py", description="llama.cpp as a runner of paceline (docs/RUNNER.md).")
    p.add_argument("--no-repack", action="store_true")
    p.add_argument("--ubatch", type=int, default=512)
    a = p.parse_args()
    serve(Engine(not a.no_repack, a.ubatch))


if __name__ == "__main__":
    main()
