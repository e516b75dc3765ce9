/* A libnvidia-ml.so.1 that does what a text file says, so that the real Python bindings can be tested without a GPU.
 *
 * The file named by FAKE_NVML_SCRIPT is read again on every call. Its lines:
 *   device UUID TOTAL_MIB USED_MIB UTILIZATION MAJOR MINOR NAME...   one GPU, in index order
 *   mig PARENT_UUID UUID TOTAL_MIB USED_MIB GI CI                    one MIG instance of a GPU
 *   process UUID PID MIB         a process with memory on that GPU or MIG instance; MIB -1: its memory is not known
 *   fact UUID KEY VALUE          a figure of that GPU: bus_id pcie_gen pcie_gen_max pcie_width pcie_width_max numa
 *                                cpus (a mask in hex) temperature power_mw persistence ecc mig events (a mask)
 *   field UUID ID VALUE          what nvmlDeviceGetFieldValues says; a field without a line is not supported
 *   nvlink UUID LINK BUS_ID      an active link and the GPU at its other end
 *   event NUMBER UUID TYPE DATA  an event; those with growing numbers are given once each, to whoever registered
 *   return FUNCTION CODE         FUNCTION returns CODE
 *   return FUNCTION@UUID CODE    ... when asked about that GPU
 *   hang FUNCTION                FUNCTION does not return while this line stands
 *   delay FUNCTION MS            FUNCTION takes that long
 *   once NUMBER FUNCTION[@UUID] CODE   FUNCTION returns CODE one time; those with growing numbers are taken in turn
 *   count NUMBER                 how many GPUs NVML says there are, whatever there is
 *   driver VERSION               the version of the driver; a library compiled with -DOF_DRIVER=VERSION refuses another
 * A figure without a line is not supported. As in the real library, nothing works before nvmlInit, and the list and
 * order of the GPUs is taken at nvmlInit only; all figures are read live. An event waits until somebody registered for
 * it. Compiled with -DOMIT_<function> it lacks that function.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEVICES_MAX 32
#define UUID_BYTES 96
#define MIG_HANDLES 1000
#define SUCCESS 0
#define UNINITIALIZED 1
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define TIMEOUT 10
#define LIB_RM_VERSION_MISMATCH 18
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
static char migs[DEVICES_MAX][UUID_BYTES]; /* the instances that were ever given a handle */
static unsigned mig_count;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER, rules = PTHREAD_MUTEX_INITIALIZER;

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

static void nap_ms(long ms) {
    const struct timespec nap = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&nap, NULL);
}

/* Rules: what a function is to return, and how slowly ----------------------------------------------------------- */

struct question { const char *function, *uuid; int code, delay_ms; };

static long long last_once;

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

static int is_once_rule(const char *line, void *with) {
    struct question *q = with;
    char word[256];
    long long number;
    int code, is_next = 0;
    if (sscanf(line, "once %lld %255s %d", &number, word, &code) != 3 || !matches(word, q)) return 0;
    pthread_mutex_lock(&rules);
    if (number > last_once) {
        last_once = number;
        is_next = 1;
    }
    pthread_mutex_unlock(&rules);
    if (is_next) q->code = code;
    return is_next;
}

static int is_hang_rule(const char *line, void *with) {
    char word[256];
    return sscanf(line, "hang %255s", word) == 1 && matches(word, with);
}

static int is_delay_rule(const char *line, void *with) {
    struct question *q = with;
    char word[256];
    int ms;
    if (sscanf(line, "delay %255s %d", word, &ms) != 2 || !matches(word, q)) return 0;
    q->delay_ms = ms;
    return 1;
}

static int is_driver(const char *line, void *with) { return sscanf(line, "driver %79s", (char *)with) == 1; }

/* The library and the kernel module are of two drivers. */
static int driver_mismatch(void) {
#ifdef OF_DRIVER
    char version[80] = OF_DRIVER;
    over_script(is_driver, version);
    return strcmp(version, OF_DRIVER) ? LIB_RM_VERSION_MISMATCH : SUCCESS;
#else
    return SUCCESS;
#endif
}

/* What the script makes `function` return for the GPU `uuid` (or for none); hangs or waits first where it says so. */
static int ruled(const char *function, const char *uuid) {
    struct question q = {function, uuid, SUCCESS, 0};
    while (over_script(is_hang_rule, &q)) nap_ms(5);
    if (over_script(is_delay_rule, &q)) nap_ms(q.delay_ms);
    if (!over_script(is_once_rule, &q)) over_script(is_return_rule, &q);
    return q.code ? q.code : driver_mismatch();
}

/* Devices ------------------------------------------------------------------------------------------------------- */

static int read_gpu(const char *line, gpu *to) {
    memset(to, 0, sizeof *to);
    return sscanf(line, "device %95s %llu %llu %u %d %d %95[^\n]", to->uuid, &to->total_mib, &to->used_mib,
                  &to->utilization, &to->major, &to->minor, to->name) == 7;
}

struct mig { char parent[UUID_BYTES], uuid[UUID_BYTES]; unsigned long long total_mib, used_mib; unsigned gi, ci; };

static int read_mig(const char *line, struct mig *to) {
    return sscanf(line, "mig %95s %95s %llu %llu %u %u", to->parent, to->uuid, &to->total_mib, &to->used_mib, &to->gi,
                  &to->ci) == 6;
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

static int is_mig(const char *line, void *with) {
    struct mig one, *wanted = with;
    if (!read_mig(line, &one) || strcmp(one.uuid, wanted->uuid)) return 0;
    *wanted = one;
    return 1;
}

/* Live figures of an instance, as those of a GPU; its name is its parent's with a word more. */
static int asked_mig(const char *function, size_t number, gpu *to, struct mig *instance) {
    struct mig one = {0};
    gpu parent = {0};
    int code;
    if (number >= mig_count) return INVALID_ARGUMENT;
    strcpy(one.uuid, migs[number]);
    if ((code = ruled(function, one.uuid))) return code;
    if (!over_script(is_mig, &one)) return GPU_NOT_FOUND;
    strcpy(parent.uuid, one.parent);
    if (!over_script(is_gpu, &parent)) return GPU_NOT_FOUND;
    if (instance) *instance = one;
    *to = parent;
    strcpy(to->uuid, one.uuid);
    to->total_mib = one.total_mib;
    to->used_mib = one.used_mib;
    return SUCCESS;
}

/* The GPU or MIG instance behind a handle with its live figures. */
static int asked(const char *function, void *handle, gpu *to) {
    size_t index = (size_t)handle - 1;
    int code;
    if (!references) return UNINITIALIZED;
    if (index >= MIG_HANDLES - 1) return asked_mig(function, (size_t)handle - MIG_HANDLES, to, NULL);
    if (index >= known_count) return INVALID_ARGUMENT;
    *to = known[index];
    if ((code = ruled(function, to->uuid))) return code;
    return over_script(is_gpu, to) ? SUCCESS : GPU_NOT_FOUND;
}

static int put_text(char *to, unsigned size, const char *text) {
    if (strlen(text) >= size) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return SUCCESS;
}

struct fact { const char *uuid, *key; char value[128]; };

static int is_fact(const char *line, void *with) {
    struct fact *f = with;
    char uuid[UUID_BYTES], key[64], value[128];
    if (sscanf(line, "fact %95s %63s %127s", uuid, key, value) != 3) return 0;
    if (strcmp(uuid, f->uuid) || strcmp(key, f->key)) return 0;
    strcpy(f->value, value);
    return 1;
}

/* One figure as text: a `fact` line, or not supported. */
static int text_fact(const char *function, void *handle, const char *key, char *to) {
    gpu one;
    struct fact f = {one.uuid, key, ""};
    int code = asked(function, handle, &one);
    if (code) return code;
    if (!over_script(is_fact, &f)) return NOT_SUPPORTED;
    strcpy(to, f.value);
    return SUCCESS;
}

static int number_fact(const char *function, void *handle, const char *key, unsigned *to) {
    char text[128];
    int code = text_fact(function, handle, key, text);
    if (!code) *to = (unsigned)strtol(text, NULL, 0);
    return code;
}

/* Life of the library ------------------------------------------------------------------------------------------- */

int nvmlInitWithFlags(unsigned flags) {
    int code = ruled("nvmlInitWithFlags", NULL);
    (void)flags;
    if (code) return code;
    pthread_mutex_lock(&turn);
    if (!references++) {
        known_count = 0;
        over_script(note_gpu, NULL);
    }
    pthread_mutex_unlock(&turn);
    return SUCCESS;
}

int nvmlShutdown(void) {
    pthread_mutex_lock(&turn);
    int was = references;
    if (references) references--;
    pthread_mutex_unlock(&turn);
    return was ? ruled("nvmlShutdown", NULL) : UNINITIALIZED;
}

const char *nvmlErrorString(int code) {
    (void)code;
    return "an error of the fake NVML";
}

#ifndef OMIT_nvmlSystemGetDriverVersion
int nvmlSystemGetDriverVersion(char *to, unsigned size) {
    char version[80] = "580.00.00";
    int code = ruled("nvmlSystemGetDriverVersion", NULL);
    if (!references) return UNINITIALIZED;
    if (code) return code;
    over_script(is_driver, version);
    return put_text(to, size, version);
}
#endif

static int is_count(const char *line, void *with) { return sscanf(line, "count %u", (unsigned *)with) == 1; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (!references) return UNINITIALIZED;
    *count = known_count;
    over_script(is_count, count);
    return ruled("nvmlDeviceGetCount_v2", NULL);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    gpu unused;
    *handle = (void *)(size_t)(index + 1);
    return asked("nvmlDeviceGetHandleByIndex_v2", *handle, &unused);
}

static void *mig_handle(const char *uuid) {
    unsigned number;
    pthread_mutex_lock(&turn);
    for (number = 0; number < mig_count && strcmp(migs[number], uuid); number++) continue;
    if (number == mig_count && mig_count < DEVICES_MAX) strcpy(migs[mig_count++], uuid);
    pthread_mutex_unlock(&turn);
    return (void *)(size_t)(MIG_HANDLES + number);
}

#ifndef OMIT_nvmlDeviceGetHandleByUUID
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    struct mig one = {0};
    int code = ruled("nvmlDeviceGetHandleByUUID", uuid);
    if (!references) return UNINITIALIZED;
    if (code) return code;
    for (size_t index = 0; index < known_count; index++) {
        if (strcmp(known[index].uuid, uuid)) continue;
        *handle = (void *)(index + 1);
        return SUCCESS;
    }
    if (strlen(uuid) >= UUID_BYTES) return INVALID_ARGUMENT;
    strcpy(one.uuid, uuid);
    if (!over_script(is_mig, &one)) return NOT_FOUND;
    *handle = mig_handle(uuid);
    return SUCCESS;
}
#endif

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
    if ((size_t)handle >= MIG_HANDLES) return NOT_SUPPORTED;
    gpu_memory[0] = one.utilization;
    gpu_memory[1] = one.utilization / 2;
    return SUCCESS;
}
#endif

/* Processes ----------------------------------------------------------------------------------------------------- */

typedef struct { unsigned pid; unsigned long long used_bytes; unsigned gi, ci; } process_info;
struct processes { const char *uuid; process_info *to; unsigned count, room; };

static int note_process(const char *line, void *with) {
    struct processes *p = with;
    char uuid[UUID_BYTES];
    unsigned pid;
    long long mib;
    if (sscanf(line, "process %95s %u %lld", uuid, &pid, &mib) != 3 || strcmp(uuid, p->uuid)) return 0;
    if (p->to && p->count < p->room) {
        process_info one = {pid, mib < 0 ? ~0ULL : (unsigned long long)mib << 20, ~0U, ~0U};
        p->to[p->count] = one;
    }
    p->count++;
    return 0;
}

#ifndef OMIT_nvmlDeviceGetComputeRunningProcesses_v3
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_info *to) {
    gpu one;
    struct processes p = {one.uuid, to, 0, *count};
    int code = asked("nvmlDeviceGetComputeRunningProcesses_v3", handle, &one);
    if (code) return code;
    over_script(note_process, &p);
    *count = p.count;
    return p.count > p.room ? INSUFFICIENT_SIZE : SUCCESS;
}
#endif

/* Place and state ----------------------------------------------------------------------------------------------- */

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} pci_info;

static void put_pci(const char *bus_id, pci_info *to) {
    memset(to, 0, sizeof *to);
    snprintf(to->bus_id, sizeof to->bus_id, "%s", bus_id);
    sscanf(bus_id, "%x:%x:%x", &to->domain, &to->bus, &to->device);
    snprintf(to->bus_id_legacy, sizeof to->bus_id_legacy, "%04X:%02X:%02X.0", to->domain & 0xffff, to->bus & 0xff,
             to->device & 0xff);
}

#ifndef OMIT_nvmlDeviceGetPciInfo_v3
int nvmlDeviceGetPciInfo_v3(void *handle, pci_info *to) {
    char bus_id[128];
    int code = text_fact("nvmlDeviceGetPciInfo_v3", handle, "bus_id", bus_id);
    if (!code) put_pci(bus_id, to);
    return code;
}
#endif

#define NUMBER(function, key)                                                                                          \
    int function(void *handle, unsigned *to) { return number_fact(#function, handle, key, to); }

#ifndef OMIT_nvmlDeviceGetCurrPcieLinkGeneration
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_gen")
#endif
#ifndef OMIT_nvmlDeviceGetMaxPcieLinkGeneration
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_gen_max")
#endif
#ifndef OMIT_nvmlDeviceGetCurrPcieLinkWidth
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width")
#endif
#ifndef OMIT_nvmlDeviceGetMaxPcieLinkWidth
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max")
#endif
#ifndef OMIT_nvmlDeviceGetNumaNodeId
NUMBER(nvmlDeviceGetNumaNodeId, "numa")
#endif
#ifndef OMIT_nvmlDeviceGetPersistenceMode
NUMBER(nvmlDeviceGetPersistenceMode, "persistence")
#endif
#ifndef OMIT_nvmlDeviceGetPowerUsage
NUMBER(nvmlDeviceGetPowerUsage, "power_mw")
#endif

#ifndef OMIT_nvmlDeviceGetTemperature
int nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *to) {
    if (sensor) return INVALID_ARGUMENT;
    return number_fact("nvmlDeviceGetTemperature", handle, "temperature", to);
}
#endif

#ifndef OMIT_nvmlDeviceGetEccMode
int nvmlDeviceGetEccMode(void *handle, unsigned *now, unsigned *pending) {
    int code = number_fact("nvmlDeviceGetEccMode", handle, "ecc", now);
    *pending = *now;
    return code;
}
#endif

#ifndef OMIT_nvmlDeviceGetCpuAffinity
int nvmlDeviceGetCpuAffinity(void *handle, unsigned words, unsigned long *to) {
    char mask[128];
    int code = text_fact("nvmlDeviceGetCpuAffinity", handle, "cpus", mask);
    if (code) return code;
    memset(to, 0, words * sizeof *to);
    to[0] = strtoul(mask, NULL, 16);
    return SUCCESS;
}
#endif

typedef struct {
    unsigned field, scope;
    long long timestamp, latency_us;
    unsigned value_type, code;
    union { unsigned long long number; double real; } value;
} field_value;

struct field { const char *uuid; unsigned id; unsigned long long value; };

static int is_field(const char *line, void *with) {
    struct field *f = with;
    char uuid[UUID_BYTES];
    unsigned id;
    unsigned long long value;
    if (sscanf(line, "field %95s %u %llu", uuid, &id, &value) != 3 || id != f->id || strcmp(uuid, f->uuid)) return 0;
    f->value = value;
    return 1;
}

#ifndef OMIT_nvmlDeviceGetFieldValues
int nvmlDeviceGetFieldValues(void *handle, int count, field_value *fields) {
    gpu one;
    int code = asked("nvmlDeviceGetFieldValues", handle, &one);
    if (code) return code;
    for (int n = 0; n < count; n++) {
        struct field f = {one.uuid, fields[n].field, 0};
        fields[n].code = over_script(is_field, &f) ? SUCCESS : NOT_SUPPORTED;
        fields[n].value_type = 3; /* unsigned long long */
        fields[n].value.number = f.value;
    }
    return SUCCESS;
}
#endif

/* Links and instances ------------------------------------------------------------------------------------------- */

struct link { const char *uuid; unsigned number; char bus_id[32]; };

static int is_link(const char *line, void *with) {
    struct link *l = with;
    char uuid[UUID_BYTES], bus_id[32];
    unsigned number;
    if (sscanf(line, "nvlink %95s %u %31s", uuid, &number, bus_id) != 3) return 0;
    if (number != l->number || strcmp(uuid, l->uuid)) return 0;
    strcpy(l->bus_id, bus_id);
    return 1;
}

static int has_links(const char *line, void *with) {
    char uuid[UUID_BYTES];
    return sscanf(line, "nvlink %95s", uuid) == 1 && !strcmp(uuid, with);
}

#ifndef OMIT_nvmlDeviceGetNvLinkState
int nvmlDeviceGetNvLinkState(void *handle, unsigned number, unsigned *is_active) {
    gpu one;
    struct link l = {one.uuid, number, ""};
    int code = asked("nvmlDeviceGetNvLinkState", handle, &one);
    if (code) return code;
    if (!over_script(has_links, one.uuid)) return NOT_SUPPORTED;
    *is_active = (unsigned)over_script(is_link, &l);
    return SUCCESS;
}
#endif

#ifndef OMIT_nvmlDeviceGetNvLinkRemotePciInfo_v2
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *handle, unsigned number, pci_info *to) {
    gpu one;
    struct link l = {one.uuid, number, ""};
    int code = asked("nvmlDeviceGetNvLinkRemotePciInfo_v2", handle, &one);
    if (code) return code;
    if (!over_script(is_link, &l)) return NOT_SUPPORTED;
    put_pci(l.bus_id, to);
    return SUCCESS;
}
#endif

struct instance { const char *parent; unsigned wanted, seen; char uuid[UUID_BYTES]; };

static int is_instance(const char *line, void *with) {
    struct instance *i = with;
    struct mig one;
    if (!read_mig(line, &one) || strcmp(one.parent, i->parent) || i->seen++ != i->wanted) return 0;
    strcpy(i->uuid, one.uuid);
    return 1;
}

#ifndef OMIT_nvmlDeviceGetMigMode
int nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *pending) {
    int code = number_fact("nvmlDeviceGetMigMode", handle, "mig", now);
    *pending = *now;
    return code;
}
#endif

#ifndef OMIT_nvmlDeviceGetMaxMigDeviceCount
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
    gpu one;
    *count = 7;
    return asked("nvmlDeviceGetMaxMigDeviceCount", handle, &one);
}
#endif

#ifndef OMIT_nvmlDeviceGetMigDeviceHandleByIndex
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **to) {
    gpu one;
    struct instance i = {one.uuid, index, 0, ""};
    int code = asked("nvmlDeviceGetMigDeviceHandleByIndex", handle, &one);
    if (code) return code;
    if (!over_script(is_instance, &i)) return NOT_FOUND;
    *to = mig_handle(i.uuid);
    return SUCCESS;
}
#endif

static int mig_id(const char *function, void *handle, int is_compute, unsigned *to) {
    gpu unused;
    struct mig one;
    int code;
    if (!references) return UNINITIALIZED;
    if ((size_t)handle < MIG_HANDLES) return NOT_SUPPORTED;
    code = asked_mig(function, (size_t)handle - MIG_HANDLES, &unused, &one);
    if (!code) *to = is_compute ? one.ci : one.gi;
    return code;
}

#ifndef OMIT_nvmlDeviceGetGpuInstanceId
int nvmlDeviceGetGpuInstanceId(void *handle, unsigned *to) {
    return mig_id("nvmlDeviceGetGpuInstanceId", handle, 0, to);
}
#endif

#ifndef OMIT_nvmlDeviceGetComputeInstanceId
int nvmlDeviceGetComputeInstanceId(void *handle, unsigned *to) {
    return mig_id("nvmlDeviceGetComputeInstanceId", handle, 1, to);
}
#endif

/* Events -------------------------------------------------------------------------------------------------------- */

typedef struct { char uuid[DEVICES_MAX][UUID_BYTES]; unsigned long long types[DEVICES_MAX]; unsigned count; } event_set;
typedef struct { void *device; unsigned long long type, data; unsigned gi, ci; } event_data;
struct wanted { event_set *set; long long after, number; char uuid[UUID_BYTES]; unsigned long long type, data; };

static long long last_event;

#ifndef OMIT_nvmlDeviceGetSupportedEventTypes
int nvmlDeviceGetSupportedEventTypes(void *handle, unsigned long long *types) {
    unsigned mask = 0;
    int code = number_fact("nvmlDeviceGetSupportedEventTypes", handle, "events", &mask);
    *types = mask;
    return code;
}
#endif

#ifndef OMIT_nvmlEventSetCreate
int nvmlEventSetCreate(event_set **set) {
    int code = ruled("nvmlEventSetCreate", NULL);
    if (!references) return UNINITIALIZED;
    if (code) return code;
    *set = calloc(1, sizeof **set);
    return SUCCESS;
}
#endif

#ifndef OMIT_nvmlDeviceRegisterEvents
int nvmlDeviceRegisterEvents(void *handle, unsigned long long types, event_set *set) {
    gpu one;
    unsigned supported = 0;
    int code = asked("nvmlDeviceRegisterEvents", handle, &one);
    if (code) return code;
    if ((code = number_fact("nvmlDeviceGetSupportedEventTypes", handle, "events", &supported))) return code;
    if (types & ~(unsigned long long)supported) return NOT_SUPPORTED;
    strcpy(set->uuid[set->count], one.uuid);
    set->types[set->count++] = types;
    return SUCCESS;
}
#endif

static int is_registered(const event_set *set, const char *uuid, unsigned long long type) {
    for (unsigned n = 0; n < set->count; n++)
        if (!strcmp(set->uuid[n], uuid) && set->types[n] & type) return 1;
    return 0;
}

static int is_event(const char *line, void *with) {
    struct wanted *w = with;
    char uuid[UUID_BYTES], type[32];
    long long number;
    unsigned long long data;
    if (sscanf(line, "event %lld %95s %31s %llu", &number, uuid, type, &data) != 4 || number <= w->after) return 0;
    w->type = strtoull(type, NULL, 0);
    if (!is_registered(w->set, uuid, w->type)) return 0;
    w->number = number;
    w->data = data;
    strcpy(w->uuid, uuid);
    return 1;
}

static void *handle_of(const char *uuid) {
    for (size_t index = 0; index < known_count; index++)
        if (!strcmp(known[index].uuid, uuid)) return (void *)(index + 1);
    return NULL;
}

#ifndef OMIT_nvmlEventSetWait_v2
int nvmlEventSetWait_v2(event_set *set, event_data *to, unsigned timeout_ms) {
    struct wanted w = {set, last_event, 0, "", 0, 0};
    int code;
    for (unsigned waited = 0;; waited += 5) {
        if (!references) return UNINITIALIZED;
        if ((code = ruled("nvmlEventSetWait_v2", NULL))) return code;
        if (over_script(is_event, &w)) break;
        if (waited >= timeout_ms) return TIMEOUT;
        nap_ms(5);
    }
    last_event = w.number;
    to->device = handle_of(w.uuid);
    to->type = w.type;
    to->data = w.data;
    to->gi = to->ci = ~0U;
    return SUCCESS;
}
#endif

#ifndef OMIT_nvmlEventSetFree
int nvmlEventSetFree(event_set *set) {
    free(set);
    return SUCCESS;
}
#endif
