/* A libnvidia-ml.so.1 that does what a text file says, so that the real Python bindings can be tested without a GPU.
 *
 * The file named by FAKE_NVML_SCRIPT is read again on every call. Its lines:
 *   device UUID TOTAL_MIB USED_MIB UTILIZATION MAJOR MINOR NAME...   one GPU, in index order
 *   return FUNCTION CODE         FUNCTION returns CODE
 *   return FUNCTION@UUID CODE    ... when asked about that GPU
 *   hang FUNCTION                FUNCTION does not return while this line stands
 * As in the real library, nothing works before nvmlInit, and the list and order of the GPUs is taken at nvmlInit only;
 * memory and utilisation are read live. Compiled with -DOMIT_<function> it lacks that function.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEVICES_MAX 32
#define UUID_BYTES 96
#define SUCCESS 0
#define UNINITIALIZED 1
#define INVALID_ARGUMENT 2
#define GPU_NOT_FOUND 28

typedef struct {
    char uuid[UUID_BYTES];
    unsigned long long total_mib, used_mib;
    unsigned utilization;
    int major, minor;
    char name[96];
} gpu;

static gpu known[DEVICES_MAX];
static unsigned known_count;
static int references;

/* Calls `each` on every line of the script until it returns non-zero. */
static int over_script(int (*each)(const char *line, void *with), void *with) {
    const char *path = getenv("FAKE_NVML_SCRIPT");
    FILE *file = path ? fopen(path, "re") : NULL;
    char line[512];
    int result = 0;
    if (!file) return 0;
    while (!result && fgets(line, sizeof line, file)) result = each(line, with);
    fclose(file);
    return result;
}

struct question { const char *function, *uuid; int code; };

static int matches(const char *word, const struct question *q) {
    size_t length = strlen(q->function);
    if (strncmp(word, q->function, length)) return 0;
    if (word[length] == 0) return 1;
    return word[length] == '@' && q->uuid && !strcmp(word + length + 1, q->uuid);
}

static int is_return_rule(const char *line, void *with) {
    struct question *q = with;
    char word[256];
    int code;
    if (sscanf(line, "return %255s %d", word, &code) != 2 || !matches(word, q)) return 0;
    q->code = code;
    return 1;
}

static int is_hang_rule(const char *line, void *with) {
    char word[256];
    return sscanf(line, "hang %255s", word) == 1 && matches(word, with);
}

/* What the script makes `function` return for the GPU `uuid` (or for none); hangs first where it says so. */
static int ruled(const char *function, const char *uuid) {
    struct question q = {function, uuid, SUCCESS};
    const struct timespec nap = {0, 5000000};
    while (over_script(is_hang_rule, &q)) nanosleep(&nap, NULL);
    over_script(is_return_rule, &q);
    return q.code;
}

static int read_gpu(const char *line, gpu *to) {
    memset(to, 0, sizeof *to);
    return sscanf(line, "device %95s %llu %llu %u %d %d %95[^\n]", to->uuid, &to->total_mib, &to->used_mib,
                  &to->utilization, &to->major, &to->minor, to->name) == 7;
}

static int note_gpu(const char *line, void *with) {
    (void)with;
    if (known_count < DEVICES_MAX && read_gpu(line, &known[known_count])) known_count++;
    return 0;
}

static int is_gpu(const char *line, void *with) {
    gpu one, *wanted = with;
    if (!read_gpu(line, &one) || strcmp(one.uuid, wanted->uuid)) return 0;
    *wanted = one;
    return 1;
}

/* The GPU behind a handle with its live figures. */
static int asked(const char *function, void *handle, gpu *to) {
    size_t index = (size_t)handle - 1;
    int code;
    if (!references) return UNINITIALIZED;
    if (index >= known_count) return INVALID_ARGUMENT;
    *to = known[index];
    if ((code = ruled(function, to->uuid))) return code;
    return over_script(is_gpu, to) ? SUCCESS : GPU_NOT_FOUND;
}

static int put_text(char *to, unsigned size, const char *text) {
    if (strlen(text) >= size) return 7; /* insufficient size */
    strcpy(to, text);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    int code = ruled("nvmlInitWithFlags", NULL);
    (void)flags;
    if (code) return code;
    if (!references++) {
        known_count = 0;
        over_script(note_gpu, NULL);
    }
    return SUCCESS;
}

int nvmlShutdown(void) {
    if (!references) return UNINITIALIZED;
    references--;
    return ruled("nvmlShutdown", NULL);
}

const char *nvmlErrorString(int code) {
    (void)code;
    return "an error of the fake NVML";
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (!references) return UNINITIALIZED;
    *count = known_count;
    return ruled("nvmlDeviceGetCount_v2", NULL);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    gpu unused;
    *handle = (void *)(size_t)(index + 1);
    return asked("nvmlDeviceGetHandleByIndex_v2", *handle, &unused);
}

int nvmlDeviceGetUUID(void *handle, char *to, unsigned size) {
    gpu one;
    int code = asked("nvmlDeviceGetUUID", handle, &one);
    return code ? code : put_text(to, size, one.uuid);
}

int nvmlDeviceGetName(void *handle, char *to, unsigned size) {
    gpu one;
    int code = asked("nvmlDeviceGetName", handle, &one);
    return code ? code : put_text(to, size, one.name);
}

int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *total_free_used) {
    gpu one;
    int code = asked("nvmlDeviceGetMemoryInfo", handle, &one);
    if (code) return code;
    total_free_used[0] = one.total_mib << 20;
    total_free_used[1] = (one.total_mib - one.used_mib) << 20;
    total_free_used[2] = one.used_mib << 20;
    return SUCCESS;
}

#ifndef OMIT_nvmlDeviceGetCudaComputeCapability
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    gpu one;
    int code = asked("nvmlDeviceGetCudaComputeCapability", handle, &one);
    if (code) return code;
    *major = one.major;
    *minor = one.minor;
    return SUCCESS;
}
#endif

#ifndef OMIT_nvmlDeviceGetUtilizationRates
int nvmlDeviceGetUtilizationRates(void *handle, unsigned *gpu_memory) {
    gpu one;
    int code = asked("nvmlDeviceGetUtilizationRates", handle, &one);
    if (code) return code;
    gpu_memory[0] = one.utilization;
    gpu_memory[1] = one.utilization / 2;
    return SUCCESS;
}
#endif
