#include "server/pipeline/profile_job.h"

#include <algorithm>

namespace ess {
namespace {

constexpr int64_t kBytesPerToken = 3;
// Far above every limit, and far below where products of it overflow.
constexpr int64_t kLongest = int64_t{1} << 30;

int64_t Size(const std::vector<int64_t>& ids) { return static_cast<int64_t>(ids.size()); }
int64_t Size(const std::string& text) { return static_cast<int64_t>(text.size()); }

}  // namespace

int64_t ApproximateTokens(const ProfileJob& job) {
  int64_t tokens = 0;
  for (const PromptInput& prompt : job.prompts) {
    const bool is_text = !job.gaussian && std::holds_alternative<std::string>(prompt.content);
    const int64_t most = MostTokens(job, prompt);
    tokens += is_text ? std::max<int64_t>(most / kBytesPerToken, 1) : most;
  }
  return tokens;
}

int64_t MostTokens(const ProfileJob& job, const PromptInput& prompt) {
  if (job.gaussian) return std::min(job.gaussian->length, kLongest);
  return std::visit([](const auto& content) { return Size(content); }, prompt.content);
}

}  // namespace ess
