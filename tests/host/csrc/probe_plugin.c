/*
 * A plugin for the tests of this host. It hands over numbered records, honours a pause by its own
 * flag, and misbehaves where its properties tell it to.
 *
 * Properties: batch N (records per collect, 10), append on (use flb_input_log_append), block_ms N,
 * naive on (collect although paused), fail on (Init returns 0), poison_at N (batch with a bad
 * record), event_type on (Register time: PROBE_EVENT_TYPE in the environment), foreign_log on,
 * late_append on, leak_thread on, size N (bytes of padding per record).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

struct def {
    int type, proxy, flags;
    char *name, *description;
    int event_type;
};
struct api {
    void *output_get_property;
    const char *(*get_property)(const char *, void *);
    void *output_cmt;
    void *(*get_cmt)(void *);
    void (*log_print)(int, const char *, int, const char *, ...);
    int (*log_check)(void *, int);
};
struct plugin {
    char *name;
    struct api *api;
    void *ins;
    void *context;
    void *slots[6];
};
struct instance {
    struct api *api;
    void *ins;
    int append, naive, fail, foreign_log, late_append, leak_thread;
    long batch, block_ms, poison_at, size;
    long next, batches;
    volatile int paused;
    char label[64];
};
typedef int (*append_fn)(void *, const char *, size_t, const void *, size_t);

static __thread struct instance *mine;
int FLBPluginInputCallbackCtx(void *context, void **data, size_t *len);

static int on(struct instance *self, const char *key)
{
    const char *text = self->api->get_property(key, self->ins);
    return text != NULL && strcasecmp(text, "on") == 0;
}

static long number(struct instance *self, const char *key, long fallback)
{
    const char *text = self->api->get_property(key, self->ins);
    return text == NULL ? fallback : atol(text);
}

static void say(struct instance *self, const char *what)
{
    if (self->api->log_check(self->ins, 3)) {
        self->api->log_print(3, "", 0, "[probe:%s] %s", self->label, what);
    }
}

int FLBPluginPreRegister(int hot)
{
    (void) hot;
    return 0;
}

int FLBPluginRegister(struct def *def)
{
    def->type = 1;
    def->proxy = 11;
    def->flags = 0;
    def->name = "probe";
    def->description = "numbered records";
    if (getenv("PROBE_EVENT_TYPE") != NULL) {
        def->event_type = 1;
    }
    return 0;
}

int FLBPluginUnregister(void *def)
{
    (void) def;
    return 0;
}

static void *foreign(void *argument)
{
    say(argument, "line of a foreign thread");
    return NULL;
}

static void *leaked(void *argument)
{
    (void) argument;
    pthread_setname_np(pthread_self(), "probe-leak");
    sleep(2);
    return NULL;
}

int FLBPluginInit(struct plugin *plugin)
{
    pthread_t thread;
    struct instance *self = calloc(1, sizeof(*self));
    const char *label;

    self->api = plugin->api;
    self->ins = plugin->ins;
    label = self->api->get_property("label", self->ins);
    snprintf(self->label, sizeof(self->label), "%s", label == NULL ? "?" : label);
    self->append = on(self, "append");
    self->naive = on(self, "naive");
    self->fail = on(self, "fail");
    self->foreign_log = on(self, "foreign_log");
    self->late_append = on(self, "late_append");
    self->leak_thread = on(self, "leak_thread");
    self->batch = number(self, "batch", 10);
    self->block_ms = number(self, "block_ms", 0);
    self->poison_at = number(self, "poison_at", -1);
    self->size = number(self, "size", 0);
    mine = self;
    /* Slot 2 holds the context callback only where the host knows it. */
    if (plugin->slots[2] == (void *) FLBPluginInputCallbackCtx) {
        ((void **) plugin->context)[1] = self;
        say(self, "init with context");
    }
    else {
        say(self, "init without context");
    }
    if (self->foreign_log && pthread_create(&thread, NULL, foreign, self) == 0) {
        pthread_join(thread, NULL);
    }
    if (self->leak_thread) {
        pthread_create(&thread, NULL, leaked, NULL);
    }
    return self->fail ? 0 : 1;
}

int FLBPluginInputPreRun(int hot)
{
    (void) hot;
    say(mine, "pre_run");
    return 0;
}

/* [EventTime, {"n": uint64, "p": bin16}] */
static size_t record(unsigned char *out, struct instance *self, long n)
{
    uint32_t secs = (uint32_t) time(NULL);
    size_t at = 0;
    int i;

    out[at++] = 0x92;
    out[at++] = 0xd7;
    out[at++] = 0x00;
    for (i = 3; i >= 0; i--) {
        out[at++] = (unsigned char) (secs >> (8 * i));
    }
    memset(out + at, 0, 4);
    at += 4;
    out[at++] = 0x82;
    out[at++] = 0xa1;
    out[at++] = 'n';
    out[at++] = 0xcf;
    for (i = 7; i >= 0; i--) {
        out[at++] = (unsigned char) ((uint64_t) n >> (8 * i));
    }
    out[at++] = 0xa1;
    out[at++] = 'p';
    out[at++] = 0xc5;
    out[at++] = (unsigned char) (self->size >> 8);
    out[at++] = (unsigned char) self->size;
    memset(out + at, 'x', (size_t) self->size);
    return at + (size_t) self->size;
}

static int collect(struct instance *self, void **data, size_t *len)
{
    unsigned char *out;
    size_t used = 0;
    long i;
    append_fn append;

    *len = 0;
    if (self == NULL || (self->paused && !self->naive)) {
        return 1;
    }
    if (self->block_ms > 0) {
        usleep((useconds_t) (self->block_ms * 1000));
    }
    out = malloc((size_t) (self->batch + 1) * (size_t) (64 + self->size));
    for (i = 0; i < self->batch; i++) {
        used += record(out + used, self, self->next + i);
    }
    if (self->batches == self->poison_at) {
        out[used++] = 0xc0;
        used += record(out + used, self, 999999);
    }
    self->batches++;
    append = (append_fn) dlsym(RTLD_DEFAULT, "flb_input_log_append");
    if (self->append && append != NULL) {
        char tag[80];
        int size = snprintf(tag, sizeof(tag), "tag.%s", self->label);
        if (append(self->ins, tag, (size_t) size, out, used) == 0) {
            self->next += self->batch;
        }
        free(out);
        return 1;
    }
    self->next += self->batch;
    *data = out;
    *len = used;
    return 1;
}

int FLBPluginInputCallbackCtx(void *context, void **data, size_t *len)
{
    return collect(context, data, len);
}

int FLBPluginInputCallback(void **data, size_t *len)
{
    return collect(mine, data, len);
}

int FLBPluginInputCleanupCallback(void *data)
{
    free(data);
    return 1;
}

int FLBPluginInputCleanupCallbackCtx(void *context, void *data)
{
    (void) context;
    free(data);
    return 1;
}

void FLBPluginInputPause(void)
{
    mine->paused = 1;
    say(mine, "pause");
}

void FLBPluginInputResume(void)
{
    mine->paused = 0;
    say(mine, "resume");
}

void FLBPluginInputPreExit(int by_reload)
{
    char text[64];
    char *(*encode)(void *, int) = (char *(*)(void *, int)) dlsym(RTLD_DEFAULT,
                                                                  "cmt_encode_prometheus_create");
    void (*destroy)(char *) = (void (*)(char *)) dlsym(RTLD_DEFAULT,
                                                       "cmt_encode_prometheus_destroy");

    snprintf(text, sizeof(text), "pre_exit %d", by_reload);
    say(mine, text);
    if (encode != NULL) {
        char *metrics = encode(mine->api->get_cmt(mine->ins), 0);
        say(mine, metrics);
        destroy(metrics);
    }
}

int FLBPluginExit(void)
{
    append_fn append = (append_fn) dlsym(RTLD_DEFAULT, "flb_input_log_append");

    if (mine->late_append && append != NULL) {
        unsigned char out[128];
        size_t used = record(out, mine, mine->next);
        append(mine->ins, NULL, 0, out, used);
    }
    say(mine, "exit");
    free(mine);
    mine = NULL;
    return 1;
}
