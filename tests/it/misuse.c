/*
 * A host that does everything wrong, against the public header alone.
 *
 * misuse PLUGIN URL KEY [wrong]
 *
 * Prints one line per check that failed and ends with 1, or with 0 if the plugin stood it all. With
 * `wrong` it reads freed memory at the end, so that whoever runs it sees that a tool would tell.
 */
#define _GNU_SOURCE
#include "in_trendmicro.h"

#include <dirent.h>
#include <dlfcn.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS 4
#define ROUNDS 300
#define TICK_US 20000
#define TICKS_MAX 3000
/* What a host from 4.0.3 on allocates for its table of functions. */
#define API_BYTES 72
/* What hosts from 4.1 on allocate. */
#define PLUGIN_BYTES 80
#define CONTEXT_BYTES 24

extern char **environ;

static const char *url, *key;
static int failures, lines;
static volatile int is_over;

#define FUNCTIONS(f)                                                                             \
    f(PreRegister) f(Register) f(Init) f(InputPreRun) f(InputCallback) f(InputCallbackCtx)       \
    f(InputCleanupCallback) f(InputCleanupCallbackCtx) f(InputPause) f(InputResume)              \
    f(InputPreExit) f(Exit) f(Unregister)
#define DECLARE(name) static __typeof__(&FLBPlugin##name) name;
FUNCTIONS(DECLARE)

#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            failures++;                                                                          \
            printf("line %d: not %s\n", __LINE__, #condition);                                   \
        }                                                                                        \
    } while (0)

static const char *property(const char *name, void *ins) {
    (void)ins;
    if (strcmp(name, "connector") == 0) return "email_security";
    if (strcmp(name, "username") == 0) return "admin@example.com";
    if (strcmp(name, "api_key") == 0) return key;
    if (strcmp(name, "base_url") == 0) return url;
    if (strcmp(name, "interval") == 0) return "1s";
    if (strcmp(name, "lookback") == 0) return "1h";
    return NULL;
}

static int log_check(void *ins, int level) {
    (void)ins;
    (void)level;
    return 1;
}

static void log_print(int level, const char *file, int line, const char *format, ...) {
    char text[4096];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    (void)file;
    (void)line;
    __atomic_add_fetch(&lines, 1, __ATOMIC_RELAXED);
    fprintf(stderr, "%d %s\n", level, text);
    CHECK(!is_over);
}

/* Everything about the process that belongs to the host alone. */
struct belongings {
    struct sigaction actions[NSIG];
    sigset_t mask;
    mode_t umask;
    char cwd[4096];
    char locale[256];
    char environ[65536];
};

static void look(struct belongings *own) {
    memset(own, 0, sizeof *own);
    for (int signal = 1; signal < NSIG; signal++) sigaction(signal, NULL, &own->actions[signal]);
    pthread_sigmask(SIG_SETMASK, NULL, &own->mask);
    own->umask = umask(0);
    umask(own->umask);
    CHECK(getcwd(own->cwd, sizeof own->cwd) != NULL);
    snprintf(own->locale, sizeof own->locale, "%s", setlocale(LC_ALL, NULL));
    size_t at = 0;
    for (char **entry = environ; *entry != NULL && at < sizeof own->environ; entry++)
        at += (size_t)snprintf(own->environ + at, sizeof own->environ - at, "%s\n", *entry);
}

static void check_belongings(const struct belongings *before) {
    static struct belongings after;
    look(&after);
    for (int signal = 1; signal < NSIG; signal++)
        CHECK(before->actions[signal].sa_handler == after.actions[signal].sa_handler);
    for (int signal = 1; signal < NSIG; signal++)
        CHECK(sigismember(&before->mask, signal) == sigismember(&after.mask, signal));
    CHECK(before->umask == after.umask);
    CHECK(strcmp(before->cwd, after.cwd) == 0);
    CHECK(strcmp(before->locale, after.locale) == 0);
    CHECK(strcmp(before->environ, after.environ) == 0);
}

/* How many threads of this process have a name that begins so. */
static int threads(const char *prefix) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; tasks != NULL && (entry = readdir(tasks)) != NULL;) {
        char path[300], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL) continue;
        if (fgets(name, sizeof name, file) != NULL && strncmp(name, prefix, strlen(prefix)) == 0)
            count++;
        fclose(file);
    }
    closedir(tasks);
    return count;
}

/* Every callback, with a context and a buffer that may be nonsense. */
static void call_all(void *context, void *buffer) {
    void *data = (void *)1;
    size_t len = 1;
    CHECK(PreRegister(0) == FLB_OK);
    CHECK(InputPreRun(1) == FLB_OK);
    CHECK(InputCallback(NULL, NULL) == FLB_OK);
    CHECK(InputCallback(&data, NULL) == FLB_OK);
    CHECK(InputCallback(NULL, &len) == FLB_OK);
    CHECK(InputCallback(&data, &len) == FLB_OK && data == NULL && len == 0);
    CHECK(InputCallbackCtx(context, NULL, NULL) == FLB_OK);
    data = (void *)1;
    CHECK(InputCallbackCtx(context, &data, &len) == FLB_OK && data == NULL && len == 0);
    CHECK(InputCleanupCallback(NULL) == FLB_OK);
    CHECK(InputCleanupCallback(buffer) == FLB_OK);
    CHECK(InputCleanupCallbackCtx(context, NULL) == FLB_OK);
    CHECK(InputCleanupCallbackCtx(context, buffer) == FLB_OK);
    InputPause();
    InputResume();
    InputPreExit(0);
    CHECK(Exit() == FLB_OK);
    CHECK(Exit() == FLB_OK);
    CHECK(Unregister(NULL) == FLB_OK);
}

struct stanza {
    struct flb_api *api;
    struct flbgo_input_plugin *plugin;
    struct flb_plugin_input_proxy_context *context;
};

static struct stanza make_stanza(void) {
    struct stanza made = { calloc(1, API_BYTES), calloc(1, PLUGIN_BYTES), calloc(1, CONTEXT_BYTES) };
    made.api->input_get_property = property;
    made.api->log_print = log_print;
    made.api->input_log_check = log_check;
    made.plugin->name = "trendmicro";
    made.plugin->api = made.api;
    made.plugin->i_ins = made.plugin;
    made.plugin->context = made.context;
    made.plugin->cb_init = Init;
    made.plugin->cb_collect = InputCallback;
    made.plugin->slot_48 = InputCallbackCtx;
    return made;
}

static void free_stanza(struct stanza stanza) {
    free(stanza.api);
    free(stanza.plugin);
    free(stanza.context);
}

static void refuse_unusable_stanzas(void) {
    struct stanza stanza = make_stanza();
    CHECK(Init(NULL) == FLB_ERROR);
    stanza.plugin->api = NULL;
    CHECK(Init(stanza.plugin) == FLB_ERROR);
    stanza.plugin->api = stanza.api;
    stanza.plugin->i_ins = NULL;
    CHECK(Init(stanza.plugin) == FLB_ERROR);
    stanza.plugin->i_ins = stanza.plugin;
    memset(stanza.api, 0, API_BYTES);
    CHECK(Init(stanza.plugin) == FLB_ERROR);
    free_stanza(stanza);
    CHECK(threads("tm-") == 0);
}

/* Collects until records come; returns their first byte, as a host reads what it was handed. */
static unsigned char *collect(void *context, size_t *len) {
    for (int tick = 0; tick < TICKS_MAX; tick++) {
        void *data = NULL;
        *len = 0;
        CHECK(InputCallbackCtx(context, &data, len) == FLB_OK);
        if (*len > 0) return data;
        usleep(TICK_US);
    }
    CHECK(!"records within a minute");
    return NULL;
}

/* Calls everything from a thread that no instance belongs to, while the instance runs. */
static void *disturb(void *context) {
    for (int round = 0; round < ROUNDS; round++) {
        void *data = NULL;
        size_t len = 0;
        CHECK(InputCallback(&data, &len) == FLB_OK && len == 0);
        CHECK(InputCallbackCtx(context, &data, &len) == FLB_OK);
        CHECK(InputCleanupCallbackCtx(context, data) == FLB_OK);
        CHECK(InputCleanupCallbackCtx(context, data) == FLB_OK);
        call_all((void *)0x123456789, (void *)&round);
    }
    return NULL;
}

static void run_instance(void) {
    struct stanza stanza = make_stanza();
    CHECK(Init(stanza.plugin) == FLB_OK);
    /* The host overwrites what Init was given when its next input starts. */
    memset(stanza.plugin, 0xa5, PLUGIN_BYTES);
    void *context = stanza.context->remote_context;
    CHECK(context != NULL);
    size_t len = 0;
    unsigned char *data = collect(context, &len);
    CHECK(threads("tm-") > 0);
    /* Giving back what is not ours to give back leaves the buffer as it is. */
    CHECK(InputCleanupCallbackCtx(context, data + 1) == FLB_OK);
    CHECK(InputCleanupCallbackCtx(context, NULL) == FLB_OK);
    unsigned sum = 0;
    for (size_t i = 0; i < len; i++) sum += data[i];
    CHECK(sum > 0 && data[0] == 0x92);
    CHECK(InputCleanupCallbackCtx(context, data) == FLB_OK);
    CHECK(InputCleanupCallbackCtx(context, data) == FLB_OK);

    pthread_t others[THREADS];
    for (int i = 0; i < THREADS; i++) pthread_create(&others[i], NULL, disturb, context);
    for (int round = 0; round < ROUNDS; round++) {
        InputPause();
        InputResume();
    }
    for (int i = 0; i < THREADS; i++) pthread_join(others[i], NULL);
    CHECK(threads("tm-") > 0);

    InputPreExit(1);
    CHECK(Exit() == FLB_OK);
    is_over = 1;
    CHECK(threads("tm-") == 0);
    free_stanza(stanza);
    call_all(context, data);
    is_over = 0;
}

int main(int count, char **arguments) {
    static struct belongings before;
    if (count < 4) return 2;
    url = arguments[2];
    key = arguments[3];
    void *library = dlopen(arguments[1], RTLD_LAZY);
    if (library == NULL) {
        printf("%s\n", dlerror());
        return 2;
    }
#define FIND(name) name = (__typeof__(name))dlsym(library, "FLBPlugin" #name);
    FUNCTIONS(FIND)

    call_all(NULL, NULL);
    call_all((void *)0xdeadbeef, (void *)0xdeadbeef);
    CHECK(Register(NULL) == -1);
    struct flb_plugin_proxy_def *def = malloc(sizeof *def);
    CHECK(Register(def) == 0 && strcmp(def->name, "trendmicro") == 0);
    look(&before);
    refuse_unusable_stanzas();
    run_instance();
    run_instance();
    check_belongings(&before);
    CHECK(Unregister(def) == FLB_OK);
    CHECK(Unregister(def) == FLB_OK);
    /* Volatile, or the compiler would see the mistake that a tool shall find. */
    int *volatile freed = (int *)def;
    free(def);
    CHECK(lines > 0);
    dlclose(library);
    usleep(10 * TICK_US);
    if (count > 4) printf("%d\n", *freed);
    return failures > 0;
}
