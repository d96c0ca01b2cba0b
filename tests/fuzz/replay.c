/* Runs a fuzz target once over every file of a folder: replay FOLDER. No file at all is a failure.
 */
#include "fuzz.h"

#include "base/buf.h"

#include <dirent.h>

int main(int argc, char **argv)
{
    struct dirent **names = NULL;
    const int n = argc == 2 ? scandir(argv[1], &names, NULL, alphasort) : -1;
    int ran = 0;
    for (int i = 0; i < n; i++) {
        char path[4096];
        struct pl_buf file = {0};
        struct pl_err err;
        snprintf(path, sizeof path, "%s/%s", argv[1], names[i]->d_name);
        if (names[i]->d_name[0] != '.' && pl_read_file(path, 1u << 24, &file, &err) == PL_OK) {
            LLVMFuzzerTestOneInput((const uint8_t *)file.data, file.len);
            ran++;
            pl_buf_release(&file);
        }
        free(names[i]);
    }
    free(names);
    printf("%d inputs\n", ran);
    return ran ? 0 : 1;
}
