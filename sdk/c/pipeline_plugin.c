/* The glue between a plugin in C or C++ and the component's functions, by the canonical ABI of wasm32. */
#include "pipeline_plugin.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(plugin_completion) == 24 && sizeof(plugin_verdict) == 48, "the layout of the canonical ABI");

#define EXPORT(name) __attribute__((export_name(name)))
#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

IMPORT("pipeline:plugin/log@0.1.0", "emit") void imported_emit(int level, const char *message, size_t size);

typedef struct { uint8_t is_error; plugin_string value; } asset_result;
IMPORT("pipeline:plugin/assets@0.1.0", "read")
void imported_read(const char *name, size_t size, uint64_t offset, uint32_t length, asset_result *result);

EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
  (void)old_size; /* malloc aligns to 16, more than any record needs */
  if (size == 0) return (void *)align;
  void *memory = realloc(old, size);
  if (!memory) __builtin_trap();
  return memory;
}

static void *allocate(size_t size) { return cabi_realloc(NULL, 0, 16, size); }

/* The config as the host wrote it: compact JSON that fits the schema. */
static plugin_string config = {"{}", 2};

EXPORT("pipeline:plugin/config@0.1.0#schema") plugin_string *exported_schema(void) {
  static plugin_string schema;
  schema = plugin_text(plugin_schema);
  return &schema;
}

EXPORT("pipeline:plugin/config@0.1.0#configure") void *exported_configure(const char *json, size_t size) {
  static struct { uint8_t is_error; void *errors; size_t count; } result;
  config = (plugin_string){json, size};
  return &result;
}

/* 16 flat parameters: the context's four and the group's twelve. */
EXPORT("pipeline:plugin/verify@0.1.0#verify")
void *exported_verify(uint64_t step, uint64_t seed, uint32_t max_tokens, int evaluating, uint64_t prompt_id,
                      const char *source, size_t source_size, const plugin_message *prompt, size_t prompt_size,
                      int has_reference, const char *reference, size_t reference_size, const plugin_field *fields,
                      size_t fields_size, const plugin_completion *completions, size_t completions_size) {
  static struct { uint8_t is_error; plugin_verdict *verdicts; size_t count; } result;
  plugin_context context = {step, seed, max_tokens, evaluating};
  plugin_group group = {
      prompt_id, {source, source_size}, {prompt, prompt_size}, {has_reference, {reference, reference_size}},
      {fields, fields_size}, {completions, completions_size},
  };
  result.verdicts = allocate(completions_size * sizeof(plugin_verdict));
  result.count = completions_size;
  for (size_t i = 0; i < completions_size; i++)
    result.verdicts[i] = plugin_verify(&context, &group, &completions[i]);
  return &result;
}

plugin_string plugin_text(const char *text) { return (plugin_string){text, strlen(text)}; }
plugin_option plugin_some(plugin_string value) { return (plugin_option){1, value}; }

plugin_string plugin_joined(const plugin_string *parts, size_t count) {
  size_t size = 0;
  for (size_t i = 0; i < count; i++) size += parts[i].size;
  char *text = allocate(size), *end = text;
  for (size_t i = 0; i < count; i++) {
    memcpy(end, parts[i].data, parts[i].size);
    end += parts[i].size;
  }
  return (plugin_string){text, size};
}

bool plugin_equal(plugin_string a, plugin_string b) { return a.size == b.size && memcmp(a.data, b.data, a.size) == 0; }

plugin_string plugin_slice(plugin_string text, size_t begin, size_t end) {
  return (plugin_string){text.data + begin, end - begin};
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

plugin_string plugin_trim(plugin_string text) {
  size_t begin = 0, end = text.size;
  while (begin < end && is_space(text.data[begin])) begin++;
  while (begin < end && is_space(text.data[end - 1])) end--;
  return plugin_slice(text, begin, end);
}

ptrdiff_t plugin_find(plugin_string text, plugin_string part) {
  for (size_t at = 0; at + part.size <= text.size; at++)
    if (memcmp(text.data + at, part.data, part.size) == 0) return at;
  return -1;
}

ptrdiff_t plugin_find_last(plugin_string text, plugin_string part) {
  for (ptrdiff_t at = (ptrdiff_t)text.size - (ptrdiff_t)part.size; at >= 0; at--)
    if (memcmp(text.data + at, part.data, part.size) == 0) return at;
  return -1;
}

plugin_verdict plugin_decided(double score) {
  return (plugin_verdict){.kind = PLUGIN_DECIDED, .as.finding = {.score = score}};
}
plugin_verdict plugin_undecided(plugin_string reason) {
  return (plugin_verdict){.kind = PLUGIN_UNDECIDED, .as.reason = reason};
}
plugin_verdict plugin_not_applicable(void) { return (plugin_verdict){.kind = PLUGIN_NOT_APPLICABLE}; }

void plugin_log(int level, plugin_string message) { imported_emit(level, message.data, message.size); }

bool plugin_read_asset(plugin_string name, uint64_t offset, uint32_t length, plugin_string *bytes) {
  asset_result result;
  imported_read(name.data, name.size, offset, length, &result);
  *bytes = result.value;
  return !result.is_error;
}

/* Where the JSON string that begins at `at` ends: behind its closing quote. */
static size_t string_end(plugin_string json, size_t at) {
  for (at++; at < json.size && json.data[at] != '"'; at++)
    if (json.data[at] == '\\') at++;
  return at + 1;
}

/* Where the compact JSON value that begins at `at` ends. */
static size_t value_end(plugin_string json, size_t at) {
  int depth = 0;
  while (at < json.size) {
    char c = json.data[at];
    if (c == '"') at = string_end(json, at);
    else if (depth == 0 && (c == ',' || c == '}' || c == ']')) return at;
    else {
      depth += (c == '{' || c == '[') - (c == '}' || c == ']');
      at++;
    }
  }
  return at;
}

plugin_string plugin_config_json(const char *key) {
  plugin_string wanted = plugin_text(key);
  for (size_t at = 1; at < config.size && config.data[at] == '"';) {
    size_t end = string_end(config, at);
    plugin_string name = plugin_slice(config, at + 1, end - 1);
    size_t value = end + 1;
    end = value_end(config, value);
    if (plugin_equal(name, wanted)) return plugin_slice(config, value, end);
    at = end + 1;
  }
  return (plugin_string){"", 0};
}

double plugin_config_number(const char *key, double otherwise) {
  plugin_string json = plugin_config_json(key);
  if (json.size == 0 || json.data[0] == 'n') return otherwise;
  plugin_string parts[] = {json, {"", 1}}; /* with the zero that strtod needs */
  return strtod(plugin_joined(parts, 2).data, NULL);
}

plugin_string plugin_config_string(const char *key, const char *otherwise) {
  plugin_string json = plugin_config_json(key);
  if (json.size == 0 || json.data[0] != '"') return plugin_text(otherwise);
  char *text = allocate(json.size), *end = text;
  for (size_t at = 1; at < json.size - 1; at++) {
    char c = json.data[at];
    if (c == '\\') {
      c = json.data[++at];
      if (c == 'u') { /* the host writes control characters so, and all others as they are */
        char digits[5] = {0};
        memcpy(digits, json.data + at + 1, 4);
        c = (char)strtol(digits, NULL, 16);
        at += 4;
      } else {
        c = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'b' ? '\b' : c == 'f' ? '\f' : c;
      }
    }
    *end++ = c;
  }
  return (plugin_string){text, (size_t)(end - text)};
}
