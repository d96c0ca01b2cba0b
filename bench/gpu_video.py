#!/usr/bin/env python3
"""gpu_video.py CONFIG_DIR DEVICE FRAMES REPEATS: time to the first token of transformers' Video-LLaVA of that config.json, random weights in bf16:
pixels on the device → towers, projector, prompt, argmax on the host. One JSON line. Called by bench/gpu.py where torch and transformers are there."""
import json
import statistics
import sys
import time

import torch
from transformers import AutoConfig, VideoLlavaForConditionalGeneration

folder, device, frames, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
config = AutoConfig.from_pretrained(folder)
torch.manual_seed(1)
with torch.device(device):
    torch.set_default_dtype(torch.bfloat16 if device.startswith("cuda") else torch.float32)
    model = VideoLlavaForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval()
size, patch = config.vision_config.image_size, config.vision_config.patch_size
rows = frames * ((size // patch) ** 2 + 1)
video = config.video_token_index if hasattr(config, "video_token_index") else config.video_token_id
ids = torch.tensor([[1, 20] + [video] * rows + [30]], device=device)
pixels = torch.randn(1, frames, 3, size, size, device=device, dtype=model.dtype)
times = []
with torch.inference_mode():
    for i in range(repeats + 2):
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        began = time.perf_counter()
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values_videos=pixels, use_cache=True, logits_to_keep=1)
        int(out.logits[0, -1].argmax())
        if i >= 2:  # two to warm up
            times.append((time.perf_counter() - began) * 1e3)
print(json.dumps({"ttft_ms": statistics.median(times), "least_ms": min(times), "rows": rows + 3}))
