#include "server/jobs/prompt_spool.h"

#include <utility>

#include "fmt/format.h"
#include "server/base/cut_text.h"
#include "server/base/status_macros.h"

namespace ess::jobs {
namespace {

constexpr size_t kIdDigestBytes = 16;

bool IsBlank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

// What makes two prompts the same. Lengths keep the parts apart.
void AddContent(const JobPrompt& prompt, Sha256& digest) {
  digest.Add(fmt::format("{}:{}", prompt.id.size(), prompt.id));
  if (const auto* text = std::get_if<std::string>(&prompt.content)) {
    digest.Add(fmt::format("t{}:", text->size()));
    digest.Add(*text);
    return;
  }
  const auto& ids = std::get<std::vector<int64_t>>(prompt.content);
  digest.Add(fmt::format("i{}:", ids.size()));
  digest.Add(ids.data(), ids.size() * sizeof(int64_t));
}

}  // namespace

PromptSpool::PromptSpool(PosixFile file, const PromptLimits& limits)
    : limits_(limits),
      file_(std::make_unique<PosixFile>(std::move(file))),
      appender_(std::make_unique<FileAppender>(*file_)),
      content_(std::make_unique<Sha256>()) {}

absl::StatusOr<PromptSpool> PromptSpool::Create(const std::filesystem::path& path,
                                                const PromptLimits& limits) {
  ESS_ASSIGN_OR_RETURN(PosixFile file, PosixFile::Create(path));
  return PromptSpool(std::move(file), limits);
}

absl::Status PromptSpool::Add(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, end);
    if (static_cast<int64_t>(begun_.size() + piece.size()) > kMaxLineBytes) {
      return absl::InvalidArgumentError(
          fmt::format("prompts: line {} has more than {} bytes, the limit of a line", lines_ + 1,
                      kMaxLineBytes));
    }
    if (end == std::string_view::npos) {
      begun_ += piece;
      return absl::OkStatus();
    }
    bytes.remove_prefix(end + 1);
    if (begun_.empty()) {
      ESS_RETURN_IF_ERROR(AddLine(piece));
    } else {
      begun_ += piece;
      ESS_RETURN_IF_ERROR(AddLine(std::exchange(begun_, {})));
    }
  }
  return absl::OkStatus();
}

absl::Status PromptSpool::AddLine(std::string_view line) {
  ++lines_;
  if (IsBlank(line)) return absl::OkStatus();
  if (prompts_ == limits_.max_prompts) {
    return absl::InvalidArgumentError(
        fmt::format("prompts: more than {} prompts, the limit of a job (max_job_prompts)",
                    limits_.max_prompts));
  }
  if (bytes() + std::ssize(line) + 1 > limits_.max_bytes) {
    return absl::InvalidArgumentError(
        fmt::format("prompts: more than {} bytes, the limit of a job (max_job_prompt_bytes)",
                    limits_.max_bytes));
  }
  ESS_ASSIGN_OR_RETURN(const JobPrompt prompt, ParsePromptLine(line, prompts_, lines_));
  if (!ids_.insert(Sha256Hex(prompt.id).substr(0, 2 * kIdDigestBytes)).second) {
    return absl::InvalidArgumentError(fmt::format(
        "prompts: line {}: '{}' is the id of another prompt", lines_, CutText(prompt.id)));
  }
  AddContent(prompt, *content_);
  ++prompts_;
  ESS_RETURN_IF_ERROR(appender_->Append(line));
  return appender_->Append("\n");
}

absl::Status PromptSpool::Finish() {
  if (!begun_.empty()) ESS_RETURN_IF_ERROR(AddLine(std::exchange(begun_, {})));
  if (prompts_ == 0) {
    return absl::InvalidArgumentError("prompts: there are none; at least 1 is needed");
  }
  digest_ = content_->Hex();
  ESS_RETURN_IF_ERROR(appender_->Flush());
  return file_->Sync();
}

absl::StatusOr<PromptReader> PromptReader::Open(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::DataLossError("the job's prompts are gone from state_dir");
  return PromptReader(std::move(file));
}

absl::StatusOr<std::vector<JobPrompt>> PromptReader::Next(int64_t count, int64_t bytes) {
  std::vector<JobPrompt> prompts;
  int64_t taken = 0;
  std::string line;
  while (std::ssize(prompts) < count && taken < bytes && std::getline(file_, line)) {
    taken += std::ssize(line);
    absl::StatusOr<JobPrompt> prompt = ParsePromptLine(line, ordinal_, ordinal_ + 1);
    if (!prompt.ok()) return absl::DataLossError("the job's prompts have changed in state_dir");
    prompts.push_back(*std::move(prompt));
    ++ordinal_;
  }
  if (file_.bad()) return absl::UnavailableError("cannot read the job's prompts");
  return prompts;
}

}  // namespace ess::jobs
