/* A libnvidia-ml.so.1 that answers from a trace, so that the sampler's own path through ctypes is what tests exercise.

   cc -shared -fPIC -o libnvidia-ml.so.1 fake_nvml.c
   LD_LIBRARY_PATH=. FAKE_NVML_TRACE=two_h100.trace python -m workloads.metrics.sampler ...

   A line of the trace is "seconds gpu field value", sorted by time: from so many seconds after nvmlInit on, the field of that GPU has
   this value, in NVML's units, or gives the error "!code". A field that no line names is not supported (code 3). "#" begins a comment.
   For a GPU: utilization, memory_used, power_mw, energy_mj, temperature_c, sm_mhz, memory_mhz, reasons, older_reasons, pcie_tx_kb,
   pcie_rx_kb, nvlink_tx_kib, nvlink_rx_kib, ecc_corrected, ecc_uncorrected; process:PID (bytes); xid (an event, once);
   gpu (!code: every question about it; 0: it is back); hang_s (each question takes so long).
   For the library the GPU is "-": count, init, init_s (how long nvmlInit takes).
   loaded: a GPU was reset, or with "-" the driver loaded anew, and a session that began before knows nothing of it (code 15); library:
   another driver's library lies in this one's place, and this one, until it is loaded anew, starts no session (code 18). A session
   counts the GPUs that answer when it begins, and keeps the trace open as NVML does the driver.
   Types and layouts are those that nvidia-ml-py declares. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OK = 0, NO_SESSION = 1, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, SMALL = 7, TIMEOUT = 10, LOST = 15, MISMATCH = 18, XID_EVENT = 8, UNSIGNED_LONG_LONG = 3, MOST = 100000 };

typedef struct { double at; int gpu; char field[32]; int error; unsigned long long value; int told; } Line;
typedef struct { int index; int watched; } Device;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned pid; unsigned long long bytes; unsigned instance, compute; } Process;
typedef struct { Device *device; unsigned long long type, data; unsigned instance, compute; } Event;
typedef struct { uint32_t field, scope; int64_t at_us, latency_us; unsigned type, result; union { double d; unsigned long long ull; } value; } Field;

static Line *lines;
static int count;
static Device devices[64];
static int order[64], sessions, opened;
static double zero, loaded, began;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static Line *find(int gpu, const char *field) {
    double t = now() - zero;
    Line *found = NULL;
    for (int i = 0; i < count && lines[i].at <= t; i++)
        if (lines[i].gpu == gpu && !strcmp(lines[i].field, field)) found = &lines[i];
    return found;
}

static int begun_after(int gpu, const char *field, double since) {
    Line *found = find(gpu, field);
    return found && found->at > since;
}

static int stale(int gpu) {
    if (!sessions) return NO_SESSION;
    return begun_after(-1, "loaded", began) || begun_after(gpu, "loaded", began) ? LOST : OK;
}

static int answer(int gpu, const char *field, unsigned long long *value) {
    if (stale(gpu)) return stale(gpu);
    Line *found = find(gpu, "hang_s");
    if (found && found->value) sleep(found->value);
    found = find(gpu, "gpu");
    if (found && found->error) return found->error;
    found = find(gpu, field);
    if (!found) return UNSUPPORTED;
    if (!found->error) *value = found->value;
    return found->error;
}

static int answer32(Device *d, const char *field, unsigned *value) {
    unsigned long long wide = 0;
    int error = answer(d->index, field, &wide);
    if (!error) *value = wide;
    return error;
}

static int load(const char *path) {
    char text[256], gpu[16], value[32], *before = getenv("FAKE_NVML_ZERO");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return INVALID;
    zero = before ? atof(before) : now();
    loaded = now() - zero;
    lines = calloc(MOST, sizeof *lines);
    for (count = 0; count < MOST && fgets(text, sizeof text, file);) {
        Line *l = &lines[count];
        if (text[0] == '#' || text[0] == '\n') continue;
        if (sscanf(text, "%lf %15s %31s %31s", &l->at, gpu, l->field, value) != 4) return INVALID;
        l->gpu = gpu[0] == '-' ? -1 : atoi(gpu);
        if (value[0] == '!') l->error = atoi(value + 1); else l->value = strtoull(value, NULL, 10);
        l->told = l->at < loaded;
        count++;
    }
    fclose(file);
    snprintf(text, sizeof text, "%.9f", zero);
    return setenv("FAKE_NVML_ZERO", text, 1) ? INVALID : OK;
}

int nvmlInitWithFlags(unsigned flags) {
    const char *path = getenv("FAKE_NVML_TRACE");
    if (!lines && load(path)) return INVALID;
    Line *init = find(-1, "init_s");
    if (init && init->value) sleep(init->value);
    init = find(-1, "init");
    if (init && init->error) return init->error;
    if (begun_after(-1, "library", loaded)) return MISMATCH;
    if (sessions++) return OK;
    began = now() - zero;
    opened = open(path, O_RDONLY);
    for (int i = 0, n = 0; i < 64; i++) {
        Line *gone = find(i, "gpu");
        devices[i] = (Device){.index = i};
        if (!gone || !gone->error) order[n++] = i;
    }
    return OK;
}
int nvmlSystemGetDriverVersion(char *text, unsigned length) { return snprintf(text, length, "fake") < 0; }
int nvmlShutdown(void) {
    if (!sessions) return NO_SESSION;
    if (!--sessions) close(opened);
    return OK;
}
const char *nvmlErrorString(int error) { return "an error of the fake NVML"; }

int nvmlDeviceGetCount_v2(unsigned *n) {
    unsigned long long wide = 0;
    int error = answer(-1, "count", &wide);
    *n = wide;
    return error;
}
static int handle(unsigned index, Device **device) {
    if (index >= 64) return NOT_FOUND;
    Line *gone = find(index, "gpu");
    *device = &devices[index];
    return stale(index) ? stale(index) : gone ? gone->error : OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) { return handle(order[index], device); }
int nvmlDeviceGetHandleByPciBusId_v2(const char *place, Device **device) {
    unsigned bus = 0;
    return sscanf(place, "00000000:%x:00.0", &bus) == 1 ? handle(bus, device) : NOT_FOUND;
}
int nvmlDeviceGetPciInfo_v3(Device *d, Pci *pci) { return snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", d->index) < 0; }
int nvmlDeviceGetUtilizationRates(Device *d, Utilization *u) { return answer32(d, "utilization", &u->gpu); }
int nvmlDeviceGetMemoryInfo(Device *d, Memory *m) { return answer(d->index, "memory_used", &m->used); }
int nvmlDeviceGetPowerUsage(Device *d, unsigned *mw) { return answer32(d, "power_mw", mw); }
int nvmlDeviceGetTotalEnergyConsumption(Device *d, unsigned long long *mj) { return answer(d->index, "energy_mj", mj); }
int nvmlDeviceGetTemperature(Device *d, unsigned sensor, unsigned *c) { return sensor ? INVALID : answer32(d, "temperature_c", c); }
int nvmlDeviceGetClockInfo(Device *d, unsigned clock, unsigned *mhz) {
    return clock == 1 ? answer32(d, "sm_mhz", mhz) : clock == 2 ? answer32(d, "memory_mhz", mhz) : INVALID;
}
int nvmlDeviceGetCurrentClocksEventReasons(Device *d, unsigned long long *bits) { return answer(d->index, "reasons", bits); }
int nvmlDeviceGetCurrentClocksThrottleReasons(Device *d, unsigned long long *bits) { return answer(d->index, "older_reasons", bits); }
int nvmlDeviceGetPcieThroughput(Device *d, unsigned direction, unsigned *kb) {
    usleep(20000);
    return answer32(d, direction ? "pcie_rx_kb" : "pcie_tx_kb", kb);
}
int nvmlDeviceGetTotalEccErrors(Device *d, unsigned kind, unsigned counter, unsigned long long *n) {
    return counter ? INVALID : answer(d->index, kind ? "ecc_uncorrected" : "ecc_corrected", n);
}
int nvmlDeviceGetFieldValues(Device *d, int n, Field *fields) {
    for (int i = 0; i < n; i++) {
        const char *name = fields[i].field == 138 ? "nvlink_tx_kib" : fields[i].field == 139 ? "nvlink_rx_kib" : "";
        fields[i].type = UNSIGNED_LONG_LONG;
        fields[i].result = fields[i].scope == UINT32_MAX ? answer(d->index, name, &fields[i].value.ull) : INVALID;
    }
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(Device *d, unsigned *n, Process *processes) {
    unsigned found = 0, room = processes ? *n : 0;
    unsigned long long bytes = 0;
    int error = answer(d->index, "processes", &bytes), some = 0;
    for (int i = 0; i < count; i++) {
        Line *l = &lines[i];
        if (l->gpu != d->index || strncmp(l->field, "process:", 8)) continue;
        some = 1;
        if (l->at > now() - zero || l != find(l->gpu, l->field) || !l->value) continue;
        if (found < room) processes[found] = (Process){.pid = atoi(l->field + 8), .bytes = l->value};
        found++;
    }
    if (!some) return error;
    *n = found;
    return found > room ? SMALL : OK;
}
int nvmlEventSetCreate(void **set) { *set = devices; return OK; }
int nvmlDeviceRegisterEvents(Device *d, unsigned long long types, void *set) {
    int some = 0;
    for (int i = 0; i < count; i++) some |= lines[i].gpu == d->index && !strcmp(lines[i].field, "xid");
    if (!some) return UNSUPPORTED;
    d->watched = 1;
    return OK;
}
int nvmlEventSetWait_v2(void *set, Event *event, unsigned timeout_ms) {
    double t = now() - zero;
    for (int i = 0; i < count && lines[i].at <= t; i++) {
        Line *l = &lines[i];
        if (strcmp(l->field, "xid") || l->told || !l->value || !devices[l->gpu].watched) continue;
        l->told = 1;
        *event = (Event){.device = &devices[l->gpu], .type = XID_EVENT, .data = l->value};
        return OK;
    }
    usleep(timeout_ms * 1000);
    return TIMEOUT;
}
