/*
 * The symbols that in_trendmicro exports to Fluent Bit, and the host's structures as far as every
 * supported host has them. Generated from src/ffi; a test compares.
 */

#ifndef IN_TRENDMICRO_H
#define IN_TRENDMICRO_H

#include <stddef.h>

/**
 * `FLB_ERROR`: initialising failed.
 */
#define FLB_ERROR 0

/**
 * `FLB_OK`; a collect that has nothing returns it too, with a length of 0.
 */
#define FLB_OK 1

/**
 * `FLB_PROXY_INPUT_PLUGIN`
 */
#define FLB_PROXY_INPUT_PLUGIN 1

/**
 * `FLB_PROXY_GOLANG`: the kind of proxy whose calling convention this is.
 */
#define FLB_PROXY_GOLANG 11

/**
 * The size of `struct flb_api` from host 4.0.3 on; before, it ended with what is mirrored here.
 */
#define FLB_API_BYTES_4_0_3 72

/**
 * The first 32 bytes of `struct flb_plugin_proxy_def`, which all hosts have.
 */
struct flb_plugin_proxy_def {
  /**
   * Kind of plugin.
   */
  int type;
  /**
   * Kind of proxy.
   */
  int proxy;
  /**
   * Flags; always 0.
   */
  int flags;
  /**
   * Name of the plugin; the host copies it.
   */
  const char *name;
  /**
   * Description; the host keeps the pointer.
   */
  const char *description;
};

/**
 * The first 56 bytes of `struct flb_api`, the same since host 2.0.
 */
struct flb_api {
  /**
   * For outputs.
   */
  const void *output_get_property;
  /**
   * The value of a key, owned by the host; NULL if absent or empty.
   */
  const char *(*input_get_property)(const char *key, void *ins);
  /**
   * For outputs.
   */
  const void *output_get_cmt_instance;
  /**
   * The instance's metrics context, `struct cmt *`.
   */
  void *(*input_get_cmt_instance)(void *ins);
  /**
   * Prints a line, on the host's own threads only.
   */
  void (*log_print)(int level, const char *file, int line, const char *format, ...);
  /**
   * Whether the instance's log level lets a line through.
   */
  int (*input_log_check)(void *ins, int level);
  /**
   * For outputs.
   */
  const void *output_log_check;
};

/**
 * The first 56 bytes of `struct flbgo_input_plugin`, which all hosts have.
 */
struct flbgo_input_plugin {
  /**
   * Name of the plugin.
   */
  const char *name;
  /**
   * What the host can do for us.
   */
  const struct flb_api *api;
  /**
   * The input instance, `struct flb_input_instance *`.
   */
  void *i_ins;
  /**
   * The instance's context; its layout depends on `slot_48`.
   */
  void *context;
  /**
   * `FLBPluginInit`.
   */
  const void *cb_init;
  /**
   * `FLBPluginInputCallback`.
   */
  const void *cb_collect;
  /**
   * `FLBPluginInputCallbackCtx` from host 4.1 on, `FLBPluginInputCleanupCallback` before.
   */
  const void *slot_48;
};

/**
 * `struct flb_plugin_input_proxy_context` of hosts from 4.1 on.
 */
struct flb_plugin_input_proxy_context {
  /**
   * The host's collector.
   */
  int coll_fd;
  /**
   * What we get back in every `…Ctx` callback.
   */
  void *remote_context;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Called before registering; `is_hot_reload` tells a reload from a start.
 */
int FLBPluginPreRegister(int _is_hot_reload);

/**
 * Fills in the definition: its first 32 bytes and not one more.
 *
 * # Safety
 * `def` is NULL or points to the host's `struct flb_plugin_proxy_def`.
 */
int FLBPluginRegister(struct flb_plugin_proxy_def *def);

/**
 * Starts an instance; returns 1, or 0 after an error line if its configuration is wrong.
 *
 * # Safety
 * `plugin` is NULL or points to the host's `struct flbgo_input_plugin`.
 */
int FLBPluginInit(struct flbgo_input_plugin *plugin);

/**
 * Called once all inputs are initialised.
 */
int FLBPluginInputPreRun(int _is_hot_reload_enabled);

/**
 * One tick of a host before 4.1, which passes no context.
 *
 * # Safety
 * `data` and `len` are NULL or can be written to.
 */
int FLBPluginInputCallback(void **data, size_t *len);

/**
 * One tick of a host from 4.1 on.
 *
 * # Safety
 * `data` and `len` are NULL or can be written to.
 */
int FLBPluginInputCallbackCtx(void *context, void **data, size_t *len);

/**
 * The host has copied the buffer that collect returned; hosts before 2.1.10 pass NULL too.
 */
int FLBPluginInputCleanupCallback(void *data);

/**
 * The same, of a host from 4.1 on.
 */
int FLBPluginInputCleanupCallbackCtx(void *context, void *data);

/**
 * The host wants no more records from this thread's input.
 */
void FLBPluginInputPause(void);

/**
 * The host wants records again.
 */
void FLBPluginInputResume(void);

/**
 * The input is about to end; the argument is not to be trusted after a failed reload.
 */
void FLBPluginInputPreExit(int _is_hot_reload);

/**
 * Ends the input of this thread: its threads are joined, its state file is closed.
 */
int FLBPluginExit(void);

/**
 * The host drops a definition, perhaps that of a reload that failed while our instances run on.
 */
int FLBPluginUnregister(struct flb_plugin_proxy_def *_def);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* IN_TRENDMICRO_H */
