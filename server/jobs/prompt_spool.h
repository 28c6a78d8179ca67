// The prompts of a job on their way to the disk, and back: JSON lines, checked as they come.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/sha256.h"
#include "server/jobs/posix_file.h"
#include "server/jobs/prompt_line.h"

namespace ess::jobs {

struct PromptLimits {
  int64_t max_prompts = 100'000;
  int64_t max_bytes = int64_t{1} << 30;
};

// Takes pieces of any size. Not thread-safe. Memory: one line, 1 MiB of buffer, and 16 bytes for
// each prompt.
class PromptSpool {
 public:
  static absl::StatusOr<PromptSpool> Create(const std::filesystem::path& path,
                                            const PromptLimits& limits);

  // Errors: kInvalidArgument    as ParsePromptLine; an id twice; a line or all of them longer, or
  //                             more prompts, than the limits.
  //         kResourceExhausted  the disk is full.
  absl::Status Add(std::string_view bytes);

  // After the last piece; everything is on the disk then. Errors: as Add; no prompt at all.
  absl::Status Finish();

  int64_t prompts() const { return prompts_; }
  int64_t bytes() const { return appender_->offset(); }
  // Of ids and contents, however they were spelled: the same prompts have the same. After Finish.
  const std::string& digest() const { return digest_; }

 private:
  PromptSpool(PosixFile file, const PromptLimits& limits);
  absl::Status AddLine(std::string_view line);

  const PromptLimits limits_;
  std::unique_ptr<PosixFile> file_;
  std::unique_ptr<FileAppender> appender_;
  std::unique_ptr<Sha256> content_;
  std::string begun_;  // Of the line that is coming in.
  int64_t lines_ = 0;
  int64_t prompts_ = 0;
  absl::flat_hash_set<std::string> ids_;  // 16 bytes of the digest of each.
  std::string digest_;
};

// Reads what was spooled, in order. Not thread-safe.
class PromptReader {
 public:
  static absl::StatusOr<PromptReader> Open(const std::filesystem::path& path);

  // The next prompts, until they are `count` or have `bytes` together; none at the end.
  // Errors: kDataLoss  the file has changed since.
  absl::StatusOr<std::vector<JobPrompt>> Next(int64_t count, int64_t bytes);

 private:
  explicit PromptReader(std::ifstream file) : file_(std::move(file)) {}

  std::ifstream file_;
  int64_t ordinal_ = 0;
};

}  // namespace ess::jobs
