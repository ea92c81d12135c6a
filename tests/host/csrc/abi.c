/*
 * The structures that pass between a Fluent Bit host and an input plugin behind its Go proxy, in
 * every shape a host from 2.0 to 5.1 gives them, and the few operations the host does on them.
 * Rust never looks inside these structures: it holds opaque pointers and calls the functions below.
 */
#include <malloc.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CANARY 0xAA
/* The real host formats into a buffer of this size and cuts the rest. */
#define LOG_LINE_MAX 4096

/* ---- flb_plugin_proxy_def: 32 bytes to 4.2.2, 40 from 4.2.3, 48 from 5.1.1 ---- */
struct def_32 {
    int type;
    int proxy;
    int flags;
    char *name;
    char *description;
};
struct def_40 {
    struct def_32 base;
    int event_type;
};
struct def_48 {
    struct def_32 base;
    int event_type;
    void *config_map;
};

/* ---- flb_api: 56 bytes to 4.0.2, 72 from 4.0.3 ---- */
struct api_56 {
    const char *(*output_get_property)(const char *, void *);
    const char *(*input_get_property)(const char *, void *);
    void *(*output_get_cmt_instance)(void *);
    void *(*input_get_cmt_instance)(void *);
    void (*log_print)(int, const char *, int, const char *, ...);
    int (*input_log_check)(void *, int);
    int (*output_log_check)(void *, int);
};
struct api_72 {
    struct api_56 base;
    const char *(*custom_get_property)(const char *, void *);
    int (*custom_log_check)(void *, int);
};

/* ---- flbgo_input_plugin: 64 bytes before 4.1, 80 since ---- */
struct plugin_64 {
    char *name;
    void *api;
    void *i_ins;
    void *context;
    int (*cb_init)(void *);
    int (*cb_collect)(void **, size_t *);
    int (*cb_cleanup)(void *);
    int (*cb_exit)(void);
};
struct plugin_80 {
    char *name;
    void *api;
    void *i_ins;
    void *context;
    int (*cb_init)(void *);
    int (*cb_collect)(void **, size_t *);
    int (*cb_collect_ctx)(void *, void **, size_t *);
    int (*cb_cleanup)(void *);
    int (*cb_cleanup_ctx)(void *, void *);
    int (*cb_exit)(void);
};

/* ---- what `context` points to at Init ---- */
struct context_16 {
    void *remote_context;
    void *proxy;
};
struct context_24 {
    int coll_fd;
    void *remote_context;
    void *proxy;
};

/* ---- layout table ---- */
struct entry {
    const char *name;
    size_t value;
};
#define SIZE(s) { #s, sizeof(struct s) }
#define FIELD(s, f) { #s "." #f, offsetof(struct s, f) }
static const struct entry table[] = {
    SIZE(def_32), FIELD(def_32, type), FIELD(def_32, proxy), FIELD(def_32, flags),
    FIELD(def_32, name), FIELD(def_32, description),
    SIZE(def_40), FIELD(def_40, event_type),
    SIZE(def_48), FIELD(def_48, event_type), FIELD(def_48, config_map),
    SIZE(api_56), FIELD(api_56, output_get_property), FIELD(api_56, input_get_property),
    FIELD(api_56, output_get_cmt_instance), FIELD(api_56, input_get_cmt_instance),
    FIELD(api_56, log_print), FIELD(api_56, input_log_check), FIELD(api_56, output_log_check),
    SIZE(api_72), FIELD(api_72, custom_get_property), FIELD(api_72, custom_log_check),
    SIZE(plugin_64), FIELD(plugin_64, name), FIELD(plugin_64, api), FIELD(plugin_64, i_ins),
    FIELD(plugin_64, context), FIELD(plugin_64, cb_init), FIELD(plugin_64, cb_collect),
    FIELD(plugin_64, cb_cleanup), FIELD(plugin_64, cb_exit),
    SIZE(plugin_80), FIELD(plugin_80, name), FIELD(plugin_80, api), FIELD(plugin_80, i_ins),
    FIELD(plugin_80, context), FIELD(plugin_80, cb_init), FIELD(plugin_80, cb_collect),
    FIELD(plugin_80, cb_collect_ctx), FIELD(plugin_80, cb_cleanup),
    FIELD(plugin_80, cb_cleanup_ctx), FIELD(plugin_80, cb_exit),
    SIZE(context_16), FIELD(context_16, remote_context), FIELD(context_16, proxy),
    SIZE(context_24), FIELD(context_24, coll_fd), FIELD(context_24, remote_context),
    FIELD(context_24, proxy),
};

size_t embedded_host_layout(size_t index, const char **name, size_t *value)
{
    if (index < sizeof(table) / sizeof(table[0])) {
        *name = table[index].name;
        *value = table[index].value;
    }
    return sizeof(table) / sizeof(table[0]);
}

/* ---- callbacks into Rust ---- */
static const char *(*cb_property)(const char *, void *);
static void *(*cb_metrics)(void *);
static int (*cb_log_check)(void *, int);
static void (*cb_log_line)(int, const char *);

void embedded_host_callbacks(const char *(*property)(const char *, void *),
                             void *(*metrics)(void *), int (*log_check)(void *, int),
                             void (*log_line)(int, const char *))
{
    cb_property = property;
    cb_metrics = metrics;
    cb_log_check = log_check;
    cb_log_line = log_line;
}

static void log_print(int type, const char *file, int line, const char *fmt, ...)
{
    char text[LOG_LINE_MAX];
    va_list args;

    (void) file;
    (void) line;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    cb_log_line(type, text);
}

static const char *input_get_property(const char *key, void *ins)
{
    return cb_property(key, ins);
}

static void *input_get_metrics(void *ins)
{
    return cb_metrics(ins);
}

static int input_log_check(void *ins, int level)
{
    return cb_log_check(ins, level);
}

/* The other kinds of plugin have these; an input that calls them gets nothing. */
static const char *no_property(const char *key, void *ins)
{
    (void) key;
    (void) ins;
    return NULL;
}

static void *no_metrics(void *ins)
{
    (void) ins;
    return NULL;
}

static int no_log(void *ins, int level)
{
    (void) ins;
    (void) level;
    return 0;
}

/* ---- the definition ---- */

/* Old hosts leave everything but `type` uninitialised; those that know `event_type` clear it all.
 * What malloc gives beyond the struct is filled, so that a write past its end shows. */
void *embedded_host_def_new(size_t size)
{
    struct def_32 *def = malloc(size);

    if (def == NULL) {
        return NULL;
    }
    memset(def, CANARY, malloc_usable_size(def));
    if (size > sizeof(struct def_32)) {
        memset(def, 0, size);
    }
    def->type = 1;
    return def;
}

/* 1: written past the end, 2: event_type set, 4: config_map set. */
int embedded_host_def_check(void *def, size_t size)
{
    int found = 0;
    size_t i;
    size_t usable = malloc_usable_size(def);
    const unsigned char *bytes = def;

    for (i = size; i < usable; i++) {
        if (bytes[i] != CANARY) {
            found |= 1;
        }
    }
    if (size >= sizeof(struct def_40) && ((struct def_40 *) def)->event_type != 0) {
        found |= 2;
    }
    if (size >= sizeof(struct def_48) && ((struct def_48 *) def)->config_map != NULL) {
        found |= 4;
    }
    return found;
}

void embedded_host_def_read(void *def, int numbers[3], const char *texts[2])
{
    struct def_32 *base = def;

    numbers[0] = base->type;
    numbers[1] = base->proxy;
    numbers[2] = base->flags;
    texts[0] = base->name;
    texts[1] = base->description;
}

void *embedded_host_api_new(int from_4_0_3)
{
    size_t size = from_4_0_3 ? sizeof(struct api_72) : sizeof(struct api_56);
    struct api_56 *api = malloc(size);

    if (api == NULL) {
        return NULL;
    }
    api->output_get_property = no_property;
    api->input_get_property = input_get_property;
    api->output_get_cmt_instance = no_metrics;
    api->input_get_cmt_instance = input_get_metrics;
    api->log_print = log_print;
    api->input_log_check = input_log_check;
    api->output_log_check = no_log;
    if (from_4_0_3) {
        ((struct api_72 *) api)->custom_get_property = no_property;
        ((struct api_72 *) api)->custom_log_check = no_log;
    }
    return api;
}

/* ---- the plugin struct; symbols: init, collect, collect_ctx, cleanup, cleanup_ctx, exit ---- */
void *embedded_host_plugin_new(int from_4_1, const char *name, void *const symbols[6])
{
    if (from_4_1) {
        struct plugin_80 *plugin = malloc(sizeof(*plugin));
        if (plugin == NULL) {
            return NULL;
        }
        memset(plugin, CANARY, sizeof(*plugin));
        plugin->name = strdup(name);
        memcpy(&plugin->cb_init, symbols, 6 * sizeof(void *));
        return plugin;
    }
    struct plugin_64 *plugin = malloc(sizeof(*plugin));
    if (plugin == NULL) {
        return NULL;
    }
    memset(plugin, CANARY, sizeof(*plugin));
    plugin->name = strdup(name);
    memcpy(&plugin->cb_init, &symbols[0], sizeof(void *));
    memcpy(&plugin->cb_collect, &symbols[1], sizeof(void *));
    memcpy(&plugin->cb_cleanup, &symbols[3], sizeof(void *));
    memcpy(&plugin->cb_exit, &symbols[5], sizeof(void *));
    return plugin;
}

void *embedded_host_context_new(int from_4_1, void *proxy)
{
    if (from_4_1) {
        struct context_24 *context = calloc(1, sizeof(*context));
        if (context != NULL) {
            context->proxy = proxy;
        }
        return context;
    }
    struct context_16 *context = calloc(1, sizeof(*context));
    if (context != NULL) {
        context->proxy = proxy;
    }
    return context;
}

/* One struct serves all instances: api, i_ins and context are overwritten at every Init. */
int embedded_host_init(void *plugin, void *api, void *ins, void *context)
{
    struct plugin_64 *head = plugin;

    head->api = api;
    head->i_ins = ins;
    head->context = context;
    return head->cb_init(plugin);
}

int embedded_host_collect(int from_4_1, void *plugin, void *context, void **data, size_t *len)
{
    if (from_4_1) {
        struct plugin_80 *p = plugin;
        if (p->cb_collect_ctx != NULL) {
            return p->cb_collect_ctx(((struct context_24 *) context)->remote_context, data, len);
        }
    }
    return ((struct plugin_64 *) plugin)->cb_collect(data, len);
}

int embedded_host_cleanup(int from_4_1, void *plugin, void *context, void *data)
{
    int (*cleanup)(void *);

    if (from_4_1) {
        struct plugin_80 *p = plugin;
        if (p->cb_cleanup_ctx != NULL) {
            return p->cb_cleanup_ctx(((struct context_24 *) context)->remote_context, data);
        }
        cleanup = p->cb_cleanup;
    }
    else {
        cleanup = ((struct plugin_64 *) plugin)->cb_cleanup;
    }
    if (cleanup != NULL) {
        return cleanup(data);
    }
    free(data);
    return 0;
}

int embedded_host_exit(int from_4_1, void *plugin)
{
    int (*leave)(void) = from_4_1 ? ((struct plugin_80 *) plugin)->cb_exit
                                  : ((struct plugin_64 *) plugin)->cb_exit;

    return leave != NULL ? leave() : 0;
}

/* ---- calls through plain symbols ---- */
int embedded_host_call_int(void *symbol, int argument)
{
    return ((int (*)(int)) symbol)(argument);
}

int embedded_host_call_pointer(void *symbol, void *argument)
{
    return ((int (*)(void *)) symbol)(argument);
}

void embedded_host_call_void(void *symbol)
{
    ((void (*)(void)) symbol)();
}
