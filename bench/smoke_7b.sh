#!/usr/bin/env bash
# [CLIP=FILE] bench/smoke_7b.sh [eventgpt|video-llava] [text]: whether the published 7B shapes plan, load and give one token on the CPU: random bf16
# weights, about 15 GB of memory, one model at a time. Shows the model the trained pair's first scene; "text": three ids alone, which
# leaves out the tower and 580 or 2060 rows of prompt (minutes on a few cores).
set -eu
cd "$(dirname "$0")/.."
which=${1:-eventgpt}
runner=${PACELINE_RUNNER:-build/release/cli/runner/paceline-runner}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
llama='"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
  "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2'
clip='"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
  "patch_size": 14, "hidden_act": "quick_gelu"'
if [ "$which" = eventgpt ]; then
  echo "{\"architectures\": [\"EventChatModel\"], \"vocab_size\": 32003, \"torch_dtype\": \"bfloat16\", $llama,
    \"vision_config\": {$clip, \"image_size\": 336}}" >"$work/config.json"
  picture=(--ids "1 20 -200 30" --events examples/data/pair/event_npy/shapes/0.npy)
else
  echo "{\"architectures\": [\"VideoLlavaForConditionalGeneration\"], \"torch_dtype\": \"bfloat16\",
    \"text_config\": {\"model_type\": \"llama\", \"vocab_size\": 32064, $llama}, \"vision_config\": {$clip, \"image_size\": 224}}" >"$work/config.json"
  picture=(--ids "1 20 32001 30" --video "${CLIP:-examples/data/pair/mp4/shapes/0.mp4}")
fi
if [ "${2:-}" = text ]; then picture=(--ids "1 20 30"); fi
"$runner" check "$work" --weights random:1 --dtype bf16 --context 3072
/usr/bin/env time -f '%e s, %M KiB at most' "$runner" generate "$work" --weights random:1 --dtype bf16 "${picture[@]}" --tokens 1 --json
