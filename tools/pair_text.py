"""The pair's one tokenizer and its prompts.

A BPE as Llama's (byte fallback, no normalisation, a space put before the text; unk 0, bos 1,
eos 2), learned by SentencePiece from the questions, the answers and both prompts, with six added tokens
behind it, so that both models share one vocabulary. Stored as tokenizer.json alone, which has the
added tokens in it.
"""
import io
import json

import numpy as np
import tokenizers

import pair_scenes as P

BOS, EOS = 1, 2
VISUAL = -200
PIECES = 634
ADDED = ["<image>", "<video>", "<pad>", "<ev_patch>", "<ev_start>", "<ev_end>"]
VOCAB = PIECES + len(ADDED)
SYSTEM = ("A chat between a curious human and an artificial intelligence assistant. The assistant "
          "gives helpful, detailed, and polite answers to the human's questions.")
PROMPTS = {"tiny-eventgpt": SYSTEM + " USER: <ev_start><event><ev_end>\n{q} ASSISTANT:",
           "tiny-video-llava": "USER: <video>\n{q} ASSISTANT:"}


def learn(path):
    """The tokenizer.json at `path`, from the sentences of 4000 scenes."""
    import sentencepiece as spm
    rng = np.random.default_rng(20263)
    lines = []
    for seed in range(4000):
        s = P.scene(seed)
        for what in P.TYPES:
            q = P.ask(s, rng, what)
            lines.append(f"USER: {q} ASSISTANT: {P.answer(s, q)[1]}")
        if seed % 10 == 0:
            lines.append(SYSTEM)
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=PIECES,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, split_by_whitespace=True, character_coverage=1.0,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, num_threads=1, minloglevel=2)
    path.write_text(fast(model.getvalue()))


class Tokenizer:
    """The space before the text goes before its first part alone; added tokens are cut out first,
    as Hugging Face's LlamaTokenizer does with legacy off."""

    def __init__(self, path):
        self.fast = tokenizers.Tokenizer.from_file(str(path))
        if self.fast.get_vocab_size() != VOCAB:
            raise SystemExit(f"{path}: {self.fast.get_vocab_size()} words, not {VOCAB}")

    def encode(self, text, first=True):
        """Ids, no bos; <event> and <video> give VISUAL."""
        text = ("" if first else "<s>") + text.replace("<event>", "<video>")
        ids = self.fast.encode(text, add_special_tokens=False).ids
        return [VISUAL if i == PIECES + 1 else i for i in ids[not first:]]

    def decode(self, ids):
        return self.fast.decode([int(i) for i in ids]).strip()

    def parts(self, name, question, answer=None, rows=0):
        """(head ids with the visual places, the rest of the prompt, the answer's with eos)."""
        ids = [BOS] + self.encode(PROMPTS[name].format(q=question))
        at = ids.index(VISUAL)
        said = self.encode(" " + answer, first=False) + [EOS] if answer is not None else []
        return ids[:at] + [VISUAL] * rows, ids[at + 1:], said

    def content_ids(self):
        """Ids of the pieces that are a word of P.CONTENT."""
        words = self.fast.get_vocab().items()
        return {i for w, i in words if w[0] == "▁" and w[1:] in P.CONTENT}


def fast(model):
    """tokenizer.json of SentencePiece's model: the same pieces, their merges by score, and the
    added tokens."""
    from sentencepiece import sentencepiece_model_pb2 as proto
    m = proto.ModelProto()
    m.ParseFromString(model)
    if len(m.pieces) != PIECES:
        raise SystemExit(f"SentencePiece learned {len(m.pieces)} pieces, not {PIECES}")
    vocab = {p.piece: i for i, p in enumerate(m.pieces)}
    merges = []
    for p in m.pieces:
        if p.type == 1:  # a normal piece; those made from two others are merges
            halves = [(p.piece[:k], p.piece[k:]) for k in range(1, len(p.piece))]
            halves = [(a, b) for a, b in halves if a in vocab and b in vocab]
            merges += sorted(halves, key=lambda ab: (vocab[ab[0]], vocab[ab[1]]))
    names = {0: "<unk>", BOS: "<s>", EOS: "</s>"}
    names.update({PIECES + k: a for k, a in enumerate(ADDED)})
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": a, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}
                         for i, a in names.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
                          "split": False},
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                      {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                    {"Sequence": {"id": "A", "type_id": 0}},
                                    {"SpecialToken": {"id": "<s>", "type_id": 1}},
                                    {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS],
                                                      "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": [f"{a} {b}" for a, b in merges]}},
        ensure_ascii=False, indent=1) + "\n"


def config():
    """tokenizer_config.json."""
    names = {0: "<unk>", BOS: "<s>", EOS: "</s>"}
    names.update({PIECES + k: a for k, a in enumerate(ADDED)})
    return json.dumps({
        "add_bos_token": True, "add_eos_token": False,
        "added_tokens_decoder": {str(i): {
            "content": a, "lstrip": False, "normalized": False, "rstrip": False,
            "single_word": False, "special": True} for i, a in names.items()},
        "bos_token": "<s>", "clean_up_tokenization_spaces": False, "eos_token": "</s>",
        "legacy": False, "model_max_length": 1024, "pad_token": "<pad>", "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>",
        "use_default_system_prompt": False}, indent=2) + "\n"
