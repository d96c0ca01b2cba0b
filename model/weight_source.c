#include "model/backend.h"
#include "model/quant.h"

/* Uniform in ±std·√3 (so of standard deviation std). Elements 2i and 2i + 1 are the halves of one
 * mix of (key, i), whoever asks in whatever order. */
static void random_read(const struct pl_weight_source *src, size_t first, float *out, size_t n)
{
    const double step = (double)src->std * 1.7320508075688772 * 2 / 4294967296.0;

    for (size_t i = first; i < first + n; i++) {
        uint64_t z = src->key + (uint64_t)(i / 2) * UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
        out[i - first] = (float)((double)(int32_t)(uint32_t)(i % 2 ? z >> 32 : z) * step);
        if (i % 2 == 0 && i + 1 < first + n) {
            i++;
            out[i - first] = (float)((double)(int32_t)(uint32_t)(z >> 32) * step);
        }
    }
}

void pl_weight_read(const struct pl_weight_source *src, size_t first, float *out, size_t n)
{
    if (src->view) {
        enum pl_dtype dt = src->view->dtype;
        const char *from =
            (const char *)src->view->data + pl_dtype_bytes(dt, first + (size_t)src->skip);
        if (pl_quant_decodes(dt))
            pl_quant_to_f32(dt, from, out, n);
        else
            pl_dtype_to_f32(dt, from, out, n);
    } else if (src->std > 0) {
        random_read(src, first, out, n);
    } else {
        for (size_t i = 0; i < n; i++)
            out[i] = src->fill;
    }
}

int64_t pl_weight_f32_bytes(const struct pl_weight_source *s)
{
    return pl_weight_absent(s) ? 0 : s->rows * s->cols * (int64_t)sizeof(float);
}

bool pl_sources_own_embed(const struct pl_arch *a, const struct pl_model_sources *s)
{
    return !pl_weight_absent(&s->embed) && (!a->head || !pl_weight_absent(&s->lm_head));
}

const struct pl_weight_source *pl_sources_head(const struct pl_model_sources *s)
{
    return pl_weight_absent(&s->lm_head) ? &s->embed : &s->lm_head;
}
