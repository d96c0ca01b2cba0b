#include "npy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct npy npy_read(const char *path)
{
    struct npy n = {0};
    struct pl_buf b;
    struct pl_err err = {0};
    char header[512] = {0};
    size_t head, dims[4] = {0, 0, 0, 0}, k = 0;
    const char *shape;

    if (pl_read_file(path, 64u << 20, &b, &err))
        fail_msg("%s", err.text);
    assert_true(b.len > 10 && !memcmp(b.data, "\x93NUMPY\x01", 7));
    head = (unsigned char)b.data[8] + 256u * (unsigned char)b.data[9];
    assert_true(head < sizeof(header) && 10 + head <= b.len);
    memcpy(header, b.data + 10, head);
    assert_true(strstr(header, "'<f4'") || strstr(header, "'<i4'"));
    assert_non_null(strstr(header, "'fortran_order': False"));
    shape = strstr(header, "'shape': (");
    assert_non_null(shape);
    for (shape += 10; *shape && *shape != ')' && k < 4;) {
        char *end;
        dims[k++] = strtoull(shape, &end, 10);
        shape = end + strspn(end, ", ");
    }
    n.rows = 1;
    for (size_t i = 0; i + 1 < k; i++)
        n.rows *= dims[i];
    n.cols = k ? dims[k - 1] : 0;
    assert_true(b.len - 10 - head == n.rows * n.cols * 4);
    n.data = malloc(n.rows * n.cols * 4);
    assert_non_null(n.data);
    memcpy(n.data, b.data + 10 + head, n.rows * n.cols * 4);
    pl_buf_release(&b);
    return n;
}
