#include "sdk/c/pipeline_plugin.h"

const char plugin_schema[] =
    "{ \"type\": \"object\", \"additionalProperties\": false, \"properties\": {"
    "  \"tag\": { \"type\": \"string\", \"pattern\": \"^[a-z]+$\", \"description\": \"what the answer stands in; answer\" } } }";

/* Right if the last <answer>..</answer> of the completion holds the reference. */
plugin_verdict plugin_verify(const plugin_context *context, const plugin_group *group, const plugin_completion *completion) {
  (void)context;
  if (!group->reference.is_some) return plugin_undecided(plugin_text("the prompt has no reference"));
  plugin_string tag = plugin_config_string("tag", "answer");
  plugin_string open = plugin_join(plugin_text("<"), tag, plugin_text(">"));
  plugin_string close = plugin_join(plugin_text("</"), tag, plugin_text(">"));

  plugin_verdict verdict = plugin_decided(0.0);
  plugin_string text = completion->text;
  ptrdiff_t begin = plugin_find_last(text, open), size = -1;
  if (begin >= 0) {
    text = plugin_slice(text, begin + open.size, text.size);
    size = plugin_find(text, close);
  }
  if (size < 0) {
    verdict.as.finding.note = plugin_some(plugin_join(plugin_text("there is no "), open));
    return verdict;
  }
  plugin_string answer = plugin_trim(plugin_slice(text, 0, size));
  plugin_string wanted = plugin_trim(group->reference.value);
  verdict.as.finding.answer = plugin_some(answer);
  if (plugin_equal(answer, wanted))
    verdict.as.finding.score = 1.0;
  else
    verdict.as.finding.note = plugin_some(plugin_join(plugin_text("expected "), wanted));
  return verdict;
}
