// The world `verifier` of pipeline:plugin 0.1.0 for C++17 and later. Views are of what the host wrote; they live as long as the call.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// The JSON Schema of the config; the plugin defines it. The host holds every config against it before the plugin sees it.
extern "C" const char plugin_schema[];

namespace plugin {

enum class Finish : uint8_t { stop, length, aborted };

struct Message {
  std::string_view role, content;
};

struct Completion {
  uint64_t id;
  std::string_view text;
  uint32_t tokens;
  Finish finish;
};

struct Context {
  uint64_t step, seed;
  uint32_t max_tokens;
  bool evaluating;
};

// A prompt and its completions. What is no string among the fields is JSON.
struct Group {
  uint64_t prompt_id;
  std::string_view source;
  std::vector<Message> prompt;
  std::optional<std::string_view> reference;
  std::vector<std::pair<std::string_view, std::string_view>> fields;
  std::vector<Completion> completions;
};

// 1 is fully right, 0 is wrong. `answer` is the extracted answer, `note` is for whoever looks at the verdict.
struct Verdict {
  enum class Kind : uint8_t { decided, undecided, not_applicable } kind = Kind::decided;
  double score = 0.0;
  std::optional<std::string> answer = {};
  std::optional<std::string> note = {};
  std::vector<std::pair<std::string, double>> metrics = {};
  std::string reason = {};

  static Verdict decided(double score) { return {Kind::decided, score}; }
  static Verdict undecided(std::string reason) { return {Kind::undecided, 0.0, {}, {}, {}, std::move(reason)}; }
  static Verdict not_applicable() { return {Kind::not_applicable}; }
};

// The verdict for one completion of the group; the plugin defines it.
Verdict verify(const Context& context, const Group& group, const Completion& completion);

// ---- What it may call. ----

// The string or the number at `key` of the config's table, or `otherwise` where there is none.
std::string config(const char* key, std::string_view otherwise);
double config(const char* key, double otherwise);

// Without white space at both ends.
std::string_view trim(std::string_view text);

enum class Level { debug, info, warn };
void log(Level level, std::string_view message);

// At most `length` bytes of a granted asset from `offset` on, fewer at its end; nothing if it was not granted.
std::optional<std::string> read_asset(std::string_view name, uint64_t offset, uint32_t length);

}  // namespace plugin
