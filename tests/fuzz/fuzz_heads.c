/* What drafts from a verifier's states: the first byte chooses an EAGLE head, Medusa heads or a
 * kind of adapter, the rest is its safetensors file. One that opens is run on a few rows. */
#include "fuzz.h"
#include "spec_decode/adapter.h"
#include "spec_decode/eagle.h"
#include "spec_decode/medusa.h"

#include <string.h>

#define HIDDEN 16
#define VOCAB 32
#define ROWS 3

static const char config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":16,"
    "\"intermediate_size\":16,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
    "\"num_key_value_heads\":1,\"vocab_size\":32,\"max_position_embeddings\":64,"
    "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"hidden_act\":\"silu\","
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"float32\"}";
static char dir[] = "/tmp/paceline-fuzz-XXXXXX";
static char link_path[64]; /* what is opened: NAME.safetensors → the input */

static struct pl_model *verifier(void)
{
    const struct pl_model_opts o = {.dtype = PL_DT_F32, .random = true, .where = {.threads = 1}};
    static struct pl_model *m;
    char path[64];
    struct pl_err err;

    if (m)
        return m;
    if (!mkdtemp(dir))
        abort();
    snprintf(path, sizeof path, "%s/config.json", dir);
    snprintf(link_path, sizeof link_path, "%s/heads.safetensors", dir);
    FILE *f = fopen(path, "w");
    if (!f || fputs(config, f) < 0 || fclose(f))
        abort();
    if (pl_model_load(path, &o, &m, &err) != PL_OK) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    unlink(path);
    return m;
}

static const float *states(void)
{
    static float v[ROWS * HIDDEN];

    for (size_t i = 0; i < ROWS * HIDDEN; i++)
        v[i] = (float)(i * 7919 % 1000) / 500 - 1;
    return v;
}

/* Nothing is asked of what they say: a file may hold NaN. */
static void run_head(const struct pl_drafter_ops *ops, void *d, float *logits)
{
    static const int32_t ids[] = {3, 4, 5, 6};
    const struct pl_prompt prompt = {.ids = ids, .n = ROWS};
    const struct pl_verified text = {
        .ids = ids, .n_prompt = ROWS, .n = 1, .states = states(), .n_states = ROWS};
    struct pl_draft out;
    struct pl_err err;
    enum pl_status st = pl_draft_init(&out, 64, 0, 0, &err);

    if (!st)
        st = ops->begin(d, &prompt, 0, &err);
    if (!st)
        st = ops->draft(d, &text, 4, &out, &err);
    if (!st && (out.n > out.max || (out.n && (out.ids[0] < 0 || out.ids[0] >= VOCAB))))
        abort();
    st = ops == &pl_draft_eagle ? pl_draft_eagle_logits(d, ids, states(), ROWS, logits, &err)
                                : pl_draft_medusa_logits(d, states(), 0, logits, &err);
    (void)st;
    pl_draft_release(&out);
    ops->free(d);
}

static void adapter(const char *kind)
{
    const struct pl_adapter_opts o = {.path = link_path,
                                      .kind = kind,
                                      .verifier = verifier(),
                                      .drafter_width = strcmp(kind, "B1") ? HIDDEN : 0,
                                      .max_rows = ROWS};
    float out[ROWS * HIDDEN];
    int32_t ids[ROWS];
    struct pl_adapter *a = NULL;
    struct pl_err err = {""};
    enum pl_status st = pl_adapter_open(&o, &a, &err);

    if ((st != PL_OK) != (err.text[0] != '\0'))
        abort();
    if (!st)
        st = pl_adapter_run(a, states(), states(), 1, out, &err);
    if (!st)
        st = pl_adapter_tokens(a, out, 1, ids, &err);
    if (!st && (ids[0] < 0 || ids[0] >= VOCAB))
        abort();
    pl_adapter_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const kinds[] = {"eagle", "medusa", "L1", "L2", "L3",
                                        "L4",    "L5",     "B1", "L5F"};
    struct pl_model *m = verifier();
    const size_t kind = size ? data[0] % (sizeof kinds / sizeof kinds[0]) : 0;
    struct pl_err err = {""};
    char path[64];
    float logits[VOCAB];
    void *d = NULL;
    enum pl_status st;

    if (!size)
        return 0;
    const int fd = fuzz_file(data + 1, size - 1, path);
    if (symlink(path, link_path) != 0)
        abort();
    if (kind < 2) {
        const struct pl_eagle_opts o = {.path = link_path,
                                        .verifier = m,
                                        .max_prompt = 8,
                                        .max_tokens = 8,
                                        .depth = 4,
                                        .top = 3,
                                        .nodes = 12};
        st = kind ? pl_draft_medusa_open(link_path, m, NULL, 0, 3, 12, &d, &err)
                  : pl_draft_eagle_open(&o, &d, &err);
        if ((st != PL_OK) != (err.text[0] != '\0'))
            abort();
        if (!st)
            run_head(kind ? &pl_draft_medusa : &pl_draft_eagle, d, logits);
    } else {
        adapter(kinds[kind]);
    }
    unlink(link_path);
    close(fd);
    return 0;
}
