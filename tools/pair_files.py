"""Writes the pair's Hugging Face directories and held-out scenes, and reads both back.

Nothing here trains: what is read back are the files that paceline reads, stored weights and all.
"""
import io
import json
import pickle
import shutil
import subprocess

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import pair_models as M
import pair_scenes as P
import pair_text as T

TOWER = "clip-vit-tiny-patch14-84"
POSITIONS = 1024
HELD = 2_000_000  # seeds of the held-out scenes; the development ones begin at 1,000,000
SEQUENCE = "shapes"

# our names → the file's; the image tower holds the video tower's weights
NAMES = {
    "tiny-eventgpt": [("tower.", "model.visual_tower.visual_tower.vision_model."),
                      ("projector.", "model.visual_projector."),
                      ("adaptor.", "model.feature_adaptor."), ("llama.", "model."),
                      ("lm_head.", "lm_head.")],
    "tiny-video-llava": [("tower.", "video_tower.vision_model."),
                         ("tower.", "image_tower.vision_model."),
                         ("projector.0.", "multi_modal_projector.linear_1."),
                         ("projector.2.", "multi_modal_projector.linear_2."),
                         ("llama.", "language_model.model."),
                         ("lm_head.", "language_model.lm_head.")],
}


def renamed(name, state):
    """[(our name, the file's name)]."""
    return [(k, new + k[len(old):]) for k in state for old, new in NAMES[name]
            if k.startswith(old)]


def dump(path, what):
    path.write_text(json.dumps(what, indent=2) + "\n")


def tower_config(shape):
    return dict(architectures=["CLIPVisionModel"], attention_dropout=0.0, hidden_act="quick_gelu",
                image_size=P.IMAGE, initializer_factor=1.0, initializer_range=0.02,
                layer_norm_eps=1e-5, model_type="clip_vision_model", num_channels=3,
                patch_size=P.PATCH, projection_dim=shape["hidden_size"], **shape)


def text_config(name):
    s = M.SHAPES[name]
    return dict(attention_bias=False, attention_dropout=0.0, bos_token_id=T.BOS,
                eos_token_id=T.EOS, pad_token_id=T.PIECES + T.ADDED.index("<pad>"),
                hidden_act="silu", initializer_range=0.02, max_position_embeddings=POSITIONS,
                num_key_value_heads=s["llama"]["num_attention_heads"], pretraining_tp=1,
                rms_norm_eps=s["eps"], rope_scaling=None, rope_theta=10000.0,
                tie_word_embeddings=False, torch_dtype="bfloat16", use_cache=True,
                vocab_size=T.VOCAB, **s["llama"])


def preprocessor(kind):
    return dict(crop_size=dict(height=P.IMAGE, width=P.IMAGE), do_center_crop=True,
                do_convert_rgb=True, do_normalize=True, do_rescale=True, do_resize=True,
                image_mean=[float(f"{v:.8f}") for v in P.MEAN],
                image_std=[float(f"{v:.8f}") for v in P.STD], image_processor_type=kind, resample=3,
                rescale_factor=1 / 255, size=dict(shortest_edge=P.IMAGE))


def export(name, model, tokenizer, folder):
    """The model as its users get it; weights rounded to bf16."""
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    tensors = {new: state[old].to(torch.bfloat16).clone().contiguous()
               for old, new in renamed(name, state)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    tower = tower_config(M.SHAPES[name]["tower"])
    if name == "tiny-eventgpt":
        dump(folder / "config.json", dict(
            architectures=["EventChatModel"], model_type="EventChat_llama",
            mm_visual_tower=TOWER, event_feature_adaptor=True, mm_use_im_start_end=True,
            mm_use_im_patch_token=False, tokenizer_model_max_length=POSITIONS,
            transformers_version="4.40.0", **text_config(name)))
        (folder / TOWER).mkdir(exist_ok=True)
        dump(folder / TOWER / "config.json", tower)
        dump(folder / TOWER / "preprocessor_config.json", preprocessor("CLIPImageProcessor"))
    else:
        dump(folder / "config.json", dict(
            architectures=["VideoLlavaForConditionalGeneration"], model_type="video_llava",
            ignore_index=-100, image_token_index=T.PIECES, video_token_index=T.PIECES + 1,
            pad_token_id=T.PIECES + 2, image_seq_length=M.PLACES - 1,
            video_seq_length=8 * M.PLACES, projector_hidden_act="gelu",
            vision_feature_layer=-2, vision_feature_select_strategy="default",
            tie_word_embeddings=False, torch_dtype="bfloat16", vocab_size=T.VOCAB,
            vision_config=dict(tower, model_type="clip_vision_model"),
            text_config=dict(text_config(name), model_type="llama")))
        dump(folder / "preprocessor_config.json", preprocessor("VideoLlavaImageProcessor"))
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(T.config())
    dump(folder / "generation_config.json", dict(
        bos_token_id=T.BOS, eos_token_id=T.EOS, pad_token_id=T.PIECES + 2))


def read_model(name, folder):
    """The model of the stored weights, in float32."""
    model = M.Pair(name, T.VOCAB)
    state = model.state_dict()
    tensors = load_file(folder / "model.safetensors")
    want = dict((new, old) for old, new in renamed(name, state))
    if set(want) != set(tensors):
        raise SystemExit(f"{folder}: other tensors: {sorted(set(want) ^ set(tensors))[:4]}")
    model.load_state_dict({old: tensors[new].float() for new, old in want.items()})
    return model.eval()


# ---- scenes --------------------------------------------------------------------------------

def conversation(s, rng):
    """Ten questions about one scene with their answers, as {from, value} turns."""
    shape = s["shapes"][rng.integers(len(s["shapes"]))]
    other = s["shapes"][rng.integers(len(s["shapes"]))]
    absent = [k for k in P.KINDS if all(q["kind"] != k for q in s["shapes"])]
    asked = ["Describe the scene.", f"Which way does the {shape['color']} {shape['kind']} move?",
             "How many shapes are there?", "How do the shapes move?",
             f"Where is the {other['kind']}?", "Which shapes are there?",
             f"How fast does the {shape['kind']} move?", "Where are the shapes?",
             f"Is the {absent[0] if absent else other['kind']} small or large?",
             f"What color is the {other['kind']}?"]
    turns = []
    for k, q in enumerate(asked):
        turns += [{"from": "human", "value": q if k else "<event>\n" + q},
                  {"from": "gpt", "value": P.answer(s, q)[1]}]
    return turns


def save_events(path, e):
    """A 0-d object array as the official samples are: pickle protocol 3, numpy 1's module name,
    which numpy 2 reads too, while numpy 1 does not know the new one."""
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(raw, dict(descr="|O", fortran_order=False, shape=()))
    raw.write(pickle.dumps(np.array(e, dtype=object), protocol=3).replace(b"cnumpy._core.",
                                                                          b"cnumpy.core."))
    path.write_bytes(raw.getvalue())


def write_scenes(folder, count):
    """`count` held-out scenes in both layouts, their questions and their truth."""
    parts = {k: folder / k / SEQUENCE for k in ("event_npy", "event_image", "mp4")}
    for path in parts.values():
        path.mkdir(parents=True, exist_ok=True)
    items, truth = [], []
    for k in range(count):
        s = P.scene(HELD + k)
        e = P.events(s)
        save_events(parts["event_npy"] / f"{k}.npy", e)
        for j, image in enumerate(P.event_frames(e)):
            Image.fromarray(image).save(parts["event_image"] / f"{k}_{j}.png", optimize=True)
        P.encode(P.clip(s), parts["mp4"] / f"{k}.mp4")
        items.append(dict(id=f"{SEQUENCE}-{k}", event_data=f"event_npy/{SEQUENCE}/{k}.npy",
                          conversations=conversation(s, np.random.default_rng([20264, k]))))
        truth.append({key: s[key] for key in ("seed", "shapes")})
    (folder / "questions.txt").write_text("".join(q + "\n" for q in P.SCENE_FREE))
    (folder / "instruction.json").write_text(
        "[\n" + ",\n".join(json.dumps(i) for i in items) + "\n]\n")
    with open(folder / "scenes.jsonl", "w") as f:
        for t in truth:
            f.write(json.dumps(dict(seed=t["seed"], shapes=[
                {k: round(v, 2) if isinstance(v, float) else v for k, v in q.items()}
                for q in t["shapes"]])) + "\n")


def read_scene(folder, k, name):
    """[frames, 84, 84, 3] u1 of held-out scene k, from its own files."""
    if name == "tiny-eventgpt":
        e = np.load(folder / "event_npy" / SEQUENCE / f"{k}.npy", allow_pickle=True).item()
        return np.stack([P.shrink(i) for i in P.event_frames(e)])
    raw = subprocess.run(["ffmpeg", "-hide_banner", "-loglevel", "error", "-i",
                          str(folder / "mp4" / SEQUENCE / f"{k}.mp4"), "-f", "rawvideo",
                          "-pix_fmt", "rgb24", "-vsync", "0", "-"],
                         stdout=subprocess.PIPE, check=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, P.SIZE, P.SIZE, 3)
    picks = [int(i) for i in np.arange(0, len(frames), len(frames) / 8)]
    return np.stack([P.shrink(frames[i]) for i in picks])


def read_questions(folder):
    """[(scene's number, question, true answer)]."""
    out = []
    for k, item in enumerate(json.loads((folder / "instruction.json").read_text())):
        turns = item["conversations"]
        out += [(k, a["value"].removeprefix("<event>\n"), b["value"])
                for a, b in zip(turns[::2], turns[1::2])]
    return out
