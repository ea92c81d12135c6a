/*
 * The functions a Fluent Bit executable offers through its dynamic symbol table, as far as an input
 * plugin may look them up. Each build leaves some of them out, as a host built differently would.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int (*append_fn)(void *ins, const char *tag, size_t tag_len, const void *buf, size_t size);
typedef char *(*encode_fn)(void *cmt, int format, int add_timestamp);
typedef void *(*create_fn)(void *cmt, int is_counter, const char **names, int count, char **keys);
typedef int (*set_fn)(void *metric, double value, int count, char **values);

static append_fn append;
static encode_fn encode;
static create_fn create;
static set_fn set;

void embedded_host_exports(append_fn a, encode_fn e, create_fn c, set_fn s)
{
    append = a;
    encode = e;
    create = c;
    set = s;
}

#ifndef NO_APPEND
int flb_input_log_append(void *ins, const char *tag, size_t tag_len, const void *buf, size_t size)
{
    return append(ins, tag, tag_len, buf, size);
}
#endif

#ifndef NO_METRICS
/* The host's strings carry their length in front of the text; who frees one with free() crashes
 * there, and so here. */
struct sds {
    uint64_t len;
    uint64_t alloc;
    char text[];
};

static char *encoded(void *cmt, int format, int add_timestamp)
{
    struct sds *sds;
    size_t len;
    char *text = encode(cmt, format, add_timestamp);

    if (text == NULL) {
        return NULL;
    }
    len = strlen(text);
    sds = malloc(sizeof(*sds) + len + 1);
    if (sds != NULL) {
        sds->len = len;
        sds->alloc = len;
        memcpy(sds->text, text, len + 1);
    }
    free(text);
    return sds == NULL ? NULL : sds->text;
}

static void destroyed(char *text)
{
    if (text != NULL) {
        free(text - offsetof(struct sds, text));
    }
}

char *cmt_encode_prometheus_create(void *cmt, int add_timestamp)
{
    return encoded(cmt, 0, add_timestamp);
}

void cmt_encode_prometheus_destroy(char *text)
{
    destroyed(text);
}

char *cmt_encode_text_create(void *cmt)
{
    return encoded(cmt, 1, 1);
}

void cmt_encode_text_destroy(char *text)
{
    destroyed(text);
}

void *cmt_counter_create(void *cmt, char *ns, char *subsystem, char *name, char *help, int count,
                         char **keys)
{
    const char *names[] = { ns, subsystem, name, help };

    return create(cmt, 1, names, count, keys);
}

void *cmt_gauge_create(void *cmt, char *ns, char *subsystem, char *name, char *help, int count,
                       char **keys)
{
    const char *names[] = { ns, subsystem, name, help };

    return create(cmt, 0, names, count, keys);
}

int cmt_counter_set(void *metric, uint64_t timestamp, double value, int count, char **values)
{
    (void) timestamp;
    return set(metric, value, count, values);
}

int cmt_gauge_set(void *metric, uint64_t timestamp, double value, int count, char **values)
{
    (void) timestamp;
    return set(metric, value, count, values);
}
#endif
