/* The adapters against torch (tools/make_spec_goldens.py), and files that are not what they say. */
#include "fixture.h"

#include "spec_decode/adapter.h"

#include <math.h>

#define SPEC_GOLDENS PL_SOURCE_DIR "/tests/spec_decode/goldens/"
#define N 7
#define D 64

static struct pl_err err;
static struct pl_model *verifier; /* D wide: tiny-llama */

static int set_up(void **state)
{
    const struct pl_model_opts o = {.dtype = PL_DT_F32, .where = {.threads = 1}};

    (void)state;
    ok(pl_model_load(PL_SOURCE_DIR "/examples/models/tiny-llama", &o, &verifier, &err));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pl_model_free(verifier);
    return 0;
}

static size_t read_floats(const char *kind, const char *what, float *out, size_t most)
{
    char path[512];
    snprintf(path, sizeof(path), SPEC_GOLDENS "%s.%s.f32", kind, what);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(out, sizeof(*out), most, f);
    fclose(f);
    return n;
}

static enum pl_status open_adapter(const char *file, const char *kind, size_t width,
                                   struct pl_adapter **out)
{
    char path[512];
    snprintf(path, sizeof(path), SPEC_GOLDENS "%s.safetensors", file);
    const struct pl_adapter_opts o = {
        .path = path, .kind = kind, .verifier = verifier, .drafter_width = width, .max_rows = 16};
    return pl_adapter_open(&o, out, &err);
}

static void goldens(void **state)
{
    static const char *const kinds[] = {"L1", "L2", "L3", "L4", "L5", "B1", "L5F"};
    float e[N * D], v[N * D], want[N * D], got[N * D];

    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct pl_adapter *a = NULL;
        size_t width = read_floats(kinds[i], "e", e, N * D) / N;
        double worst = 0;
        assert_int_equal(read_floats(kinds[i], "v", v, N * D), N * D);
        assert_int_equal(read_floats(kinds[i], "out", want, N * D), N * D);
        ok(open_adapter(kinds[i], kinds[i], strcmp(kinds[i], "B1") == 0 ? 0 : width, &a));
        ok(pl_adapter_run(a, e, v, N, got, &err));
        for (size_t k = 0; k < N * D; k++)
            worst = fmax(worst, fabs((double)got[k] - (double)want[k]));
        if (!(worst < 2e-5))
            fail_msg("%s differs from torch by %g", kinds[i], worst);
        /* causal ones say the same of a row whatever follows it */
        if (strcmp(kinds[i], "L4") != 0) {
            float part[N * D];
            ok(pl_adapter_run(a, e, v, 3, part, &err));
            assert_memory_equal(part, got, 3 * D * sizeof(*part));
        }
        pl_adapter_free(a);
    }
}

/* Tokens: the verifier's head on the states; masked ids are never said. */
static void tokens(void **state)
{
    float e[N * D], out[N * D];
    int32_t ids[N], masked;
    struct pl_adapter *a = NULL;

    (void)state;
    assert_int_equal(read_floats("L1", "e", e, N * D), N * D);
    ok(open_adapter("L1", "L1", D, &a));
    ok(pl_adapter_run(a, e, NULL, N, out, &err));
    ok(pl_adapter_tokens(a, out, N, ids, &err));
    masked = ids[0];
    struct pl_draft d;
    ok(pl_draft_init(&d, N, D, 0, &err));
    memcpy(d.states, e, sizeof(e));
    d.n = N;
    ok(pl_adapter_translate(a, &d, NULL, &err));
    assert_memory_equal(d.ids, ids, sizeof(ids));
    pl_adapter_free(a);
    const struct pl_adapter_opts o = {.path = SPEC_GOLDENS "L1.safetensors",
                                      .kind = "L1",
                                      .verifier = verifier,
                                      .drafter_width = D,
                                      .max_rows = N,
                                      .masked = &masked,
                                      .n_masked = 1};
    ok(pl_adapter_open(&o, &a, &err));
    ok(pl_adapter_tokens(a, out, N, ids, &err));
    for (int i = 0; i < N; i++)
        assert_int_not_equal(ids[i], masked);
    out[3] = NAN;
    assert_int_equal(pl_adapter_tokens(a, out, N, ids, &err), PL_EFORMAT);
    pl_adapter_free(a);
    pl_draft_release(&d);
}

static void refused(const char *file, const char *kind, size_t width, enum pl_status status,
                    const char *part)
{
    struct pl_adapter *a = NULL;
    enum pl_status st = open_adapter(file, kind, width, &a);

    if (st != status || !strstr(err.text, part))
        fail_msg("%s as %s: expected \"%s\", got %s: %s", file, kind, part, pl_status_text(st),
                 err.text);
}

static void bad_files(void **state)
{
    (void)state;
    refused("L1", "L1", 48, PL_ERANGE, "64 wide, the drafter's states 48");
    refused("L2", "L2", D, PL_EFORMAT, "in_proj.weight is [64, 48], expected [64, 64]");
    refused("L1", "L4", D, PL_EFORMAT, "output_proj.0.weight misses, expected adapter L4");
    refused("L4", "L1", D, PL_EFORMAT, "final_norm.weight misses, expected adapter L1");
    refused("L1", "L2", D, PL_EFORMAT, "no bottleneck blocks, expected adapter L2");
    refused("L5F", "B1", D, PL_EFORMAT, "input_norm.weight misses");
    refused("L1", "L9", D, PL_EUNSUPPORTED, "no adapter \"L9\"");
    refused("nowhere", "L1", D, PL_ENOENT, "nowhere");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(goldens), cmocka_unit_test(tokens),
                                       cmocka_unit_test(bad_files)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
