/* scenario NAME FILE DIR: writes a results file of a known kind and its report. */
#include "analysis/report.h"
#include "fixture.h"

#include <stdio.h>
#include <string.h>

#define HOSTILE "<script>alert(1)</script> & \"a\", 'b'|c\\d_e%$#{}~^"

static const struct {
    const char *name;
    struct fixture f;
} scenarios[] = {
    {"plain",
     {.arms = 4,
      .contexts = 3,
      .samples = 100,
      .repeats = 3,
      .devices = 2,
      .names = {"baseline", "keep09", "keep05", "slow"},
      .scale = {1, 0.95, 0.7, 1.03},
      .noise = 0.05,
      .sample_effect = 0.2,
      .device_effect = 0.03,
      .real = true,
      .name = "pruning at three lengths"}},
    {"many",
     {.arms = 21,
      .contexts = 4,
      .samples = 40,
      .devices = 6,
      .names = {"baseline", "a very long arm name that goes on and on {keep=0.9}"},
      .scale = {1, 0.5, 2, 0.99, 1.01, 0.8, 1.2, 0.7, 0.9, 1.1},
      .noise = 0.05,
      .sample_effect = 0.2,
      .memory = true,
      .fail = 0.01,
      .name = "twenty arms"}},
    {"hostile",
     {.arms = 3,
      .samples = 12,
      .names = {"base", HOSTILE, "naïve → 模型 🙂"},
      .noise = 0.05,
      .fail = 0.2,
      .name = HOSTILE}},
    {"scaling",
     {.arms = 3,
      .contexts = 6,
      .samples = 12,
      .repeats = 3,
      .context = {128, 256, 512, 1024, 2048, 4096},
      .names = {"gpt2", "t5", "bert"},
      .noise = 0.05,
      .sample_effect = 0.2,
      .tokens = 50,
      .encodes = true,
      .memory = true,
      .real = true,
      .name = "three families over context"}},
    {"pruned",
     {.arms = 3,
      .contexts = 4,
      .samples = 20,
      .context = {1024, 2048, 4096, 8192},
      .names = {"baseline", "other", "keep07"},
      .scale = {1, 1, 0.6},
      .noise = 0.1,
      .sample_effect = 0.2,
      .memory = true,
      .quality = true,
      .real = true,
      .name = "pruning over length"}},
    {"empty", {.arms = 2, .samples = 10, .leave = 1}},
    {"partial", {.arms = 2, .samples = 40, .leave = 0.5, .noise = 0.05, .real = true}},
    {"failed", {.arms = 2, .samples = 10, .fail = 1, .real = true}},
    {"one", {.arms = 1, .samples = 10, .noise = 0.05, .real = true}},
    {"single", {.arms = 2, .samples = 1, .noise = 0.05, .real = true}},
    {"foreign", {.arms = 2, .samples = 20, .noise = 0.05, .few_phases = true}},
    {"prefill", {.arms = 2, .samples = 20, .scale = {1, 0.9}, .noise = 0.05, .prefill = true}},
    {"drafts",
     {.arms = 2,
      .contexts = 2,
      .samples = 30,
      .devices = 5,
      .noise = 0.05,
      .drafts = true,
      .memory = true}},
    {"drift", {.arms = 2, .samples = 200, .noise = 0.02, .drift = 0.2}},
};

int main(int argc, char **argv)
{
    struct pl_report r;
    struct pl_err err = {""};

    if (argc != 4)
        return 2;
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        if (strcmp(scenarios[i].name, argv[1]) != 0)
            continue;
        fixture_write(argv[2], &scenarios[i].f);
        enum pl_status st = pl_report_load(argv[2], &r, &err);
        if (st == PL_OK)
            st = pl_report_write(&r, argv[3], NULL, ~0u, &err);
        pl_report_release(&r);
        if (st != PL_OK)
            fprintf(stderr, "%s\n", err.text);
        return st == PL_OK ? 0 : 1;
    }
    fprintf(stderr, "no scenario %s\n", argv[1]);
    return 2;
}
