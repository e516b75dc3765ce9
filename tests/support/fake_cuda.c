/* A libcuda.so.1 for tests: memory of the GPU that CUDA_VISIBLE_DEVICES names is taken in the fake NVML's script, where
 * the driver then lists this process. FAKE_CUDA_FAILS names a function that fails with code 2.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAILED 2

static int code_of(const char *function) {
    const char *failing = getenv("FAKE_CUDA_FAILS");
    return failing && !strcmp(failing, function) ? FAILED : 0;
}

int cuInit(unsigned flags) { return flags ? FAILED : code_of("cuInit"); }

int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return code_of("cuDeviceGet");
}

int cuCtxCreate_v2(void **context, unsigned flags, int device) {
    *context = context;
    return flags || device ? FAILED : code_of("cuCtxCreate_v2");
}

int cuMemAlloc_v2(unsigned long long *address, size_t bytes) {
    const char *script = getenv("FAKE_NVML_SCRIPT"), *uuid = getenv("CUDA_VISIBLE_DEVICES");
    FILE *file = script && uuid ? fopen(script, "a") : NULL;
    *address = 1;
    if (!file) return FAILED;
    fprintf(file, "process %s %d %zu\n", uuid, (int)getpid(), bytes >> 20);
    return fclose(file) ? FAILED : code_of("cuMemAlloc_v2");
}
