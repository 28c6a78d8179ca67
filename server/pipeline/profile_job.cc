#include "server/pipeline/profile_job.h"

#include <algorithm>
#include <limits>

namespace ess {
namespace {

constexpr int64_t kBytesPerToken = 3;

int64_t Size(const std::vector<int64_t>& ids) { return static_cast<int64_t>(ids.size()); }
int64_t Size(const std::string& text) { return static_cast<int64_t>(text.size()); }

}  // namespace

int64_t ApproximateTokens(const ProfileJob& job) {
  int64_t tokens = 0;
  if (job.gaussian) {
    const bool too_many =
        __builtin_mul_overflow(job.gaussian->count, job.gaussian->length, &tokens);
    return too_many ? std::numeric_limits<int64_t>::max() : tokens;
  }
  for (const PromptInput& prompt : job.prompts) {
    const int64_t most = MostTokens(job, prompt);
    const bool is_text = std::holds_alternative<std::string>(prompt.content);
    tokens += is_text ? std::max<int64_t>(most / kBytesPerToken, 1) : most;
  }
  return tokens;
}

int64_t MostTokens(const ProfileJob& job, const PromptInput& prompt) {
  if (job.gaussian) return job.gaussian->length;
  return std::visit([](const auto& content) { return Size(content); }, prompt.content);
}

}  // namespace ess
