/* .npz: a zip archive of .npy files, read through its central directory.
 * https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3.7, 4.3.12, 4.3.16. */
#include "model/npy.h"

#include <stdio.h>
#include <string.h>

#if PL_HAVE_ZLIB
#include <zlib.h>
#endif

#define END_SIZE 22       /* of the record at the end, less its comment */
#define DIRECTORY_SIZE 46 /* of an entry, less its name, extra and comment */
#define LOCAL_SIZE 30
#define MAX_INFLATED (1u << 30)

struct member {
    uint32_t flags, method, packed, size, local;
};

static uint32_t le(const uint8_t *p, int bytes)
{
    uint32_t v = 0;

    for (int i = 0; i < bytes; i++)
        v |= (uint32_t)p[i] << (8 * i);
    return v;
}

bool pl_npz_is(const void *data, size_t len)
{
    return len >= END_SIZE && (!memcmp(data, "PK\3\4", 4) || !memcmp(data, "PK\5\6", 4));
}

static enum pl_status bad(struct pl_err *err, const char *name, const char *what)
{
    return pl_fail(err, PL_EFORMAT, "%s: .npz: %s", name, what);
}

/* The end record: the last place where its signature stands and its comment fits. */
static const uint8_t *find_end(const uint8_t *p, size_t len)
{
    size_t least = len > END_SIZE + 65535 ? len - END_SIZE - 65535 : 0;

    for (size_t at = len - END_SIZE + 1; at-- > least;)
        if (!memcmp(p + at, "PK\5\6", 4) && le(p + at + 20, 2) <= len - at - END_SIZE)
            return p + at;
    return NULL;
}

/* PL_ENOENT: the archive has no file of that name. */
static enum pl_status find_member(const char *name, const uint8_t *p, size_t len, const char *want,
                                  struct member *out, struct pl_err *err)
{
    const uint8_t *end = find_end(p, len);
    size_t at, files, n = strlen(want);

    if (!end)
        return bad(err, name, "the archive has no end: it was cut off");
    files = le(end + 10, 2);
    at = le(end + 16, 4);
    for (size_t i = 0; i < files; i++) {
        const uint8_t *e = p + at;
        if (at > len || len - at < DIRECTORY_SIZE || memcmp(e, "PK\1\2", 4) != 0)
            return bad(err, name, "the archive's directory is broken");
        size_t name_len = le(e + 28, 2), all = name_len + le(e + 30, 2) + le(e + 32, 2);
        if (len - at - DIRECTORY_SIZE < all)
            return bad(err, name, "the archive's directory is broken");
        if (name_len == n && !memcmp(e + DIRECTORY_SIZE, want, n)) {
            *out = (struct member){.flags = le(e + 8, 2),
                                   .method = le(e + 10, 2),
                                   .packed = le(e + 20, 4),
                                   .size = le(e + 24, 4),
                                   .local = le(e + 42, 4)};
            return PL_OK;
        }
        at += DIRECTORY_SIZE + all;
    }
    return pl_fail(err, PL_ENOENT, "%s: the archive has no array %.40s", name, want);
}

#if PL_HAVE_ZLIB
static enum pl_status inflate_member(const char *name, const uint8_t *from, const struct member *m,
                                     struct pl_arena *arena, const uint8_t **out,
                                     struct pl_err *err)
{
    uint8_t *to = NULL;
    z_stream z = {.next_in = (Bytef *)(uintptr_t)from, .avail_in = m->packed};
    int rc;

    /* deflate makes no more than 1032 bytes of one */
    if (m->size > MAX_INFLATED || m->size / 1032 > m->packed)
        return bad(err, name, "an array is said to be larger than it can be");
    to = pl_arena_alloc(arena, (size_t)m->size + 1);
    if (!to || inflateInit2(&z, -15) != Z_OK)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", name);
    z.next_out = to;
    z.avail_out = m->size;
    rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    if (rc != Z_STREAM_END || z.total_out != m->size)
        return bad(err, name, "an array cannot be inflated");
    *out = to;
    return PL_OK;
}
#else
static enum pl_status inflate_member(const char *name, const uint8_t *from, const struct member *m,
                                     struct pl_arena *arena, const uint8_t **out,
                                     struct pl_err *err)
{
    (void)from;
    (void)m;
    (void)arena;
    (void)out;
    return pl_fail(err, PL_EUNSUPPORTED, "%s: deflated arrays need zlib, which this build has not",
                   name);
}
#endif

enum pl_status pl_npz_array(const char *name, const void *data, size_t len, const char *key,
                            struct pl_arena *arena, struct pl_npy *out, struct pl_err *err)
{
    const uint8_t *p = data, *body;
    struct member m = {0};
    char want[64], inside[256];
    size_t at, gap;
    enum pl_status st;

    snprintf(want, sizeof(want), "%s.npy", key);
    if (!pl_npz_is(data, len))
        return bad(err, name, "it is no archive");
    st = find_member(name, p, len, want, &m, err);
    if (st)
        return st;
    at = m.local;
    if (m.flags & 1)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: .npz: it is encrypted", name);
    if (m.packed == UINT32_MAX || m.size == UINT32_MAX)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: .npz: arrays beyond 4 GiB are not read", name);
    if (at > len || len - at < LOCAL_SIZE || memcmp(p + at, "PK\3\4", 4) != 0)
        return bad(err, name, "an array is not where the directory says");
    gap = LOCAL_SIZE + le(p + at + 26, 2) + le(p + at + 28, 2);
    if (len - at < gap || len - at - gap < m.packed)
        return bad(err, name, "an array is longer than the file");
    body = p + at + gap;
    if (m.method == 8)
        st = inflate_member(name, body, &m, arena, &body, err);
    else if (m.method != 0)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: .npz: compression method %u", name, m.method);
    else if (m.packed != m.size)
        return bad(err, name, "an array's two sizes differ");
    snprintf(inside, sizeof(inside), "%.180s: %s", name, want);
    return st ? st : pl_npy_parse(inside, body, m.size, out, err);
}
