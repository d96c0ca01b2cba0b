#!/usr/bin/env python3
"""One peer on one Hugging Face model, as JSON {test: ms} on stdout: peers_hf.py transformers|ctranslate2 DIR THREADS f32|bf16

Tests: GPT-2 prefill512, decode@16 and decode@512 (ms a token), T5 encode512+33 (ms in all), BERT encode512. The least of
three runs after one to warm up, since a neighbour can only add.
"""

import json
import os
import sys
import time

STEPS = 16


def best(run):
    run()
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - begin))
    return min(times)


def with_transformers(path, kind, threads, dtype):
    import torch
    import transformers as t

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    make = {"gpt2": t.GPT2LMHeadModel, "t5": t.T5ForConditionalGeneration, "bert": t.BertModel}[kind]
    m = make.from_pretrained(path, dtype=torch.float32 if dtype == "f32" else torch.bfloat16).eval()
    ids = torch.randint(5, 20000, (1, 512), generator=torch.Generator().manual_seed(1))

    def decode(depth):
        def once():
            past, token = m(ids[:, :depth], use_cache=True, logits_to_keep=1).past_key_values, ids[:, :1]
            begin = time.perf_counter()
            for _ in range(STEPS):
                out = m(token, past_key_values=past, use_cache=True)
                past, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
            return 1e3 * (time.perf_counter() - begin) / STEPS
        once()
        return min(once() for _ in range(3))

    if kind == "bert":
        return {"encode512": best(lambda: m(ids))}
    if kind == "t5":
        def run():
            encoded = m.get_encoder()(ids)
            past, token = None, torch.zeros((1, 1), dtype=torch.long)
            for _ in range(33):
                out = m(encoder_outputs=encoded, decoder_input_ids=token, past_key_values=past, use_cache=True)
                past, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
        return {"encode512+33": best(run)}
    return {"prefill512": best(lambda: m(ids, use_cache=True, logits_to_keep=1)), "decode@16": decode(16), "decode@512": decode(512)}


def converted(path):
    """The model as CTranslate2 holds it, made once; a directory without a tokenizer gets one of numbered words."""
    import ctranslate2
    import tokenizers
    import transformers

    out = path + ".ct2"
    if not os.path.exists(out):
        with open(os.path.join(path, "config.json"), encoding="utf-8") as f:
            plain = json.load(f)
        if plain["model_type"] == "bert" and "position_embedding_type" not in plain:  # the converter asks for it, newer configs lack it
            with open(os.path.join(path, "config.json"), "w", encoding="utf-8") as f:
                json.dump({**plain, "position_embedding_type": "absolute"}, f)
        config = transformers.AutoConfig.from_pretrained(path)
        words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"t{i}": i for i in range(config.vocab_size)}, unk_token="t2"))
        transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="t0", eos_token="t1", unk_token="t2",
                                             pad_token="t0").save_pretrained(path)
        ctranslate2.converters.TransformersConverter(path).convert(out + ".part", force=True)
        os.rename(out + ".part", out)
    return out


def with_ctranslate2(path, kind, threads, dtype):
    import ctranslate2

    path = converted(path)
    own = {"inter_threads": 1, "intra_threads": threads, "compute_type": {"f32": "float32", "bf16": "bfloat16"}[dtype]}
    words = [f"t{7 + 31 * i % 20000}" for i in range(512)]
    if kind == "bert":
        e = ctranslate2.Encoder(path, **own)
        return {"encode512": best(lambda: e.forward_batch([words]))}
    if kind == "t5":
        e = ctranslate2.Translator(path, **own)
        return {"encode512+33": best(lambda: e.translate_batch([words], beam_size=1, min_decoding_length=33, max_decoding_length=33))}
    g = ctranslate2.Generator(path, **own)

    def generate(prompt, n):
        return best(lambda: g.generate_batch([words[:prompt]], beam_size=1, min_length=n, max_length=n, include_prompt_in_result=False))

    def decode(depth):
        return (generate(depth, STEPS + 1) - generate(depth, 1)) / STEPS

    return {"prefill512": generate(512, 1), "decode@16": decode(16), "decode@512": decode(512)}


def main():
    peer, path, threads, dtype = sys.argv[1:]
    os.environ["OMP_NUM_THREADS"] = threads
    name = os.path.basename(path.rstrip("/"))
    kind = next(k for k in ("gpt2", "t5", "bert") if name.startswith(k))
    run = {"transformers": with_transformers, "ctranslate2": with_ctranslate2}[peer]
    print(json.dumps(run(path, kind, int(threads), dtype)))


main()
