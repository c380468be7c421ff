/* The world `verifier` of pipeline:plugin 0.1.0 for C and C++. The structs have the layout of the canonical ABI on wasm32:
 * what the host wrote is read in place, without a copy. Nothing need be freed: an instance lives for one call. */
#ifndef PIPELINE_PLUGIN_H
#define PIPELINE_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* UTF-8, without a zero at the end. */
typedef struct { const char *data; size_t size; } plugin_string;

typedef struct { plugin_string role, content; } plugin_message;
typedef struct { plugin_string name, value; } plugin_field;
typedef struct { plugin_string name; double value; } plugin_metric;
typedef struct { uint8_t is_some; plugin_string value; } plugin_option;

enum { PLUGIN_STOP, PLUGIN_LENGTH, PLUGIN_ABORTED };
typedef struct {
  uint64_t id;
  plugin_string text;
  uint32_t tokens;
  uint8_t finish; /* PLUGIN_STOP, ... */
} plugin_completion;

typedef struct { uint64_t step, seed; uint32_t max_tokens; bool evaluating; } plugin_context;

/* A prompt and its completions. */
typedef struct {
  uint64_t prompt_id;
  plugin_string source;
  struct { const plugin_message *data; size_t size; } prompt;
  plugin_option reference;
  struct { const plugin_field *data; size_t size; } fields; /* what is no string is JSON */
  struct { const plugin_completion *data; size_t size; } completions;
} plugin_group;

/* 1 is fully right, 0 is wrong. `answer` is the extracted answer, `note` is for whoever looks at the verdict. */
typedef struct {
  double score;
  plugin_option answer;
  struct { const plugin_metric *data; size_t size; } metrics;
  plugin_option note;
} plugin_finding;

enum { PLUGIN_DECIDED, PLUGIN_UNDECIDED, PLUGIN_NOT_APPLICABLE };
typedef struct {
  uint8_t kind; /* PLUGIN_DECIDED, ... */
  union { plugin_finding finding; plugin_string reason; } as;
} plugin_verdict;

/* ---- What the plugin defines. ---- */

/* The JSON Schema of the config. The host holds every config against it before the plugin sees it. */
extern const char plugin_schema[];

/* The verdict for one completion of the group. */
plugin_verdict plugin_verify(const plugin_context *context, const plugin_group *group, const plugin_completion *completion);

/* ---- What it may call. ---- */

/* The string or the number at `key` of the config's table, or `otherwise` where there is none. */
plugin_string plugin_config_string(const char *key, const char *otherwise);
double plugin_config_number(const char *key, double otherwise);
/* The JSON of the value at `key` of the config's table, of size 0 where there is none. */
plugin_string plugin_config_json(const char *key);

plugin_string plugin_text(const char *text);
plugin_option plugin_some(plugin_string value);
/* The parts, one behind the other. */
plugin_string plugin_joined(const plugin_string *parts, size_t count);
#ifndef __cplusplus
#define PLUGIN_PARTS(...) ((const plugin_string[]){__VA_ARGS__})
#define plugin_join(...) plugin_joined(PLUGIN_PARTS(__VA_ARGS__), sizeof PLUGIN_PARTS(__VA_ARGS__) / sizeof(plugin_string))
#endif
bool plugin_equal(plugin_string a, plugin_string b);
/* Without white space at both ends. */
plugin_string plugin_trim(plugin_string text);
/* Where `part` first (last) stands in `text`, or -1. */
ptrdiff_t plugin_find(plugin_string text, plugin_string part);
ptrdiff_t plugin_find_last(plugin_string text, plugin_string part);
/* `text` from `begin` to `end`. */
plugin_string plugin_slice(plugin_string text, size_t begin, size_t end);

plugin_verdict plugin_decided(double score);
plugin_verdict plugin_undecided(plugin_string reason);
plugin_verdict plugin_not_applicable(void);

enum { PLUGIN_DEBUG, PLUGIN_INFO, PLUGIN_WARN };
void plugin_log(int level, plugin_string message);

/* At most `length` bytes of a granted asset from `offset` on, fewer at its end; false with the reason in `bytes`. */
bool plugin_read_asset(plugin_string name, uint64_t offset, uint32_t length, plugin_string *bytes);

#ifdef __cplusplus
}
#endif
#endif
