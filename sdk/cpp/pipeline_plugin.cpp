// The glue between a plugin in C++ and the C functions beside it.
#include "pipeline_plugin.hpp"

#include "../c/pipeline_plugin.h"

static_assert(sizeof(plugin::Finish) == sizeof(plugin_completion::finish));

static std::string_view view(plugin_string text) { return {text.data, text.size}; }
static plugin_string text(std::string_view view) { return {view.data(), view.size()}; }
// The host reads results after the call: they are never freed.
static plugin_string kept(std::string value) { return text(*new std::string(std::move(value))); }
static plugin_option kept(std::optional<std::string> value) {
  return value ? plugin_some(kept(std::move(*value))) : plugin_option{};
}

static plugin::Completion converted(const plugin_completion& completion) {
  return {completion.id, view(completion.text), completion.tokens, plugin::Finish(completion.finish)};
}

// The group is converted once for all its completions.
static const plugin::Group& converted(const plugin_group* group) {
  static const plugin_group* last = nullptr;
  static plugin::Group result;
  if (group == last) return result;
  last = group;
  result.prompt_id = group->prompt_id;
  result.source = view(group->source);
  if (group->reference.is_some) result.reference = view(group->reference.value);
  for (size_t i = 0; i < group->prompt.size; i++)
    result.prompt.push_back({view(group->prompt.data[i].role), view(group->prompt.data[i].content)});
  for (size_t i = 0; i < group->fields.size; i++)
    result.fields.push_back({view(group->fields.data[i].name), view(group->fields.data[i].value)});
  for (size_t i = 0; i < group->completions.size; i++)
    result.completions.push_back(converted(group->completions.data[i]));
  return result;
}

extern "C" plugin_verdict plugin_verify(const plugin_context* c, const plugin_group* group, const plugin_completion* completion) {
  plugin::Context context = {c->step, c->seed, c->max_tokens, c->evaluating};
  plugin::Verdict verdict = plugin::verify(context, converted(group), converted(*completion));
  switch (verdict.kind) {
    case plugin::Verdict::Kind::undecided: return plugin_undecided(kept(std::move(verdict.reason)));
    case plugin::Verdict::Kind::not_applicable: return plugin_not_applicable();
    case plugin::Verdict::Kind::decided: break;
  }
  plugin_verdict result = plugin_decided(verdict.score);
  result.as.finding.answer = kept(std::move(verdict.answer));
  result.as.finding.note = kept(std::move(verdict.note));
  if (!verdict.metrics.empty()) {
    auto* metrics = new plugin_metric[verdict.metrics.size()];
    for (size_t i = 0; i < verdict.metrics.size(); i++)
      metrics[i] = {kept(std::move(verdict.metrics[i].first)), verdict.metrics[i].second};
    result.as.finding.metrics = {metrics, verdict.metrics.size()};
  }
  return result;
}

std::string plugin::config(const char* key, std::string_view otherwise) {
  plugin_string json = plugin_config_json(key);
  return std::string(json.size == 0 ? otherwise : view(plugin_config_string(key, "")));
}
double plugin::config(const char* key, double otherwise) { return plugin_config_number(key, otherwise); }

std::string_view plugin::trim(std::string_view value) { return view(plugin_trim(text(value))); }

void plugin::log(Level level, std::string_view message) { plugin_log(static_cast<int>(level), text(message)); }

std::optional<std::string> plugin::read_asset(std::string_view name, uint64_t offset, uint32_t length) {
  plugin_string bytes;
  if (!plugin_read_asset(text(name), offset, length, &bytes)) return std::nullopt;
  return std::string(view(bytes));
}
