/* A GGUF file: header, metadata, tensors, and the tokenizer inside. */
#include "fuzz.h"
#include "model/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pl_arena arena;
    struct pl_gguf *g = NULL;
    struct pl_err err;
    pl_arena_init(&arena);
    if (pl_gguf_parse("fuzz.gguf", data, size, &arena, &g, &err) == PL_OK) {
        struct pl_gguf_str *strings;
        int32_t *ints;
        float *floats;
        size_t n;
        int64_t i;
        (void)!pl_gguf_strings(g, "tokenizer.ggml.tokens", &arena, &strings, &n, &err);
        (void)!pl_gguf_ints(g, "tokenizer.ggml.token_type", &arena, &ints, &n, &err);
        (void)!pl_gguf_floats(g, "tokenizer.ggml.scores", &arena, &floats, &n, &err);
        (void)!pl_gguf_int(g, "llama.block_count", 0, 0, 1000, &i, &err);
    }
    pl_arena_release(&arena);
    return 0;
}
