#include "sdk/cpp/pipeline_plugin.hpp"

const char plugin_schema[] = R"({
  "type": "object", "additionalProperties": false,
  "properties": { "tag": { "type": "string", "pattern": "^[a-z]+$", "description": "what the answer stands in; answer" } }
})";

// Right if the last <answer>..</answer> of the completion holds the reference.
plugin::Verdict plugin::verify(const Context&, const Group& group, const Completion& completion) {
  if (!group.reference) return Verdict::undecided("the prompt has no reference");
  std::string tag = config("tag", "answer");
  std::string open = "<" + tag + ">", close = "</" + tag + ">";

  Verdict verdict = Verdict::decided(0.0);
  size_t begin = completion.text.rfind(open), end = std::string_view::npos;
  if (begin != std::string_view::npos) {
    begin += open.size();
    end = completion.text.find(close, begin);
  }
  if (end == std::string_view::npos) {
    verdict.note = "there is no " + open;
    return verdict;
  }
  std::string_view answer = trim(completion.text.substr(begin, end - begin));
  std::string_view wanted = trim(*group.reference);
  verdict.answer = answer;
  if (answer == wanted) verdict.score = 1.0;
  else verdict.note = "expected " + std::string(wanted);
  return verdict;
}
