// The result of a job while it is made: values at their places in a working file, renamed when it
// is whole.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/jobs/job_files.h"
#include "server/jobs/job_plan.h"
#include "server/jobs/posix_file.h"
#include "server/jobs/result_layout.h"

namespace ess::jobs {

// Values of some heads of one layer, measure and prompt, as EssPiece has them: row-major [heads,
// the prompt's positions, K], without the axis that is reduced.
struct ResultPiece {
  int64_t layer = 0;
  int64_t measure = 0;
  int64_t prompt = 0;
  int64_t first_head = 0;  // Ordinal among the layer's heads.
  int64_t head_count = 0;
  std::span<const float> values;
  std::span<const uint8_t> certain;  // With certify.
};

struct FinishedResult {
  int64_t bytes = 0;
  std::string sha256;
};

// Thread-compatible. `plan` and `layout` outlive it. Errors: those of PosixFile.
class ResultFile {
 public:
  // Makes the working file: takes its disk space and writes what is known before the run. Memory:
  // a megabyte, whatever its size.
  static absl::StatusOr<ResultFile> Begin(const JobFiles& files, const JobPlan& plan,
                                          const ResultLayout& layout);
  // The one that Begin has made, in an earlier process perhaps.
  // Errors: kDataLoss  it has another size.
  static absl::StatusOr<ResultFile> Resume(const JobFiles& files, const JobPlan& plan,
                                           const ResultLayout& layout);

  // NaN, and not certain, where the prompt has no position.
  absl::Status Write(const ResultPiece& piece);
  // Of prompts from `first_prompt` on, [prompts, heads].
  absl::Status WriteFloors(int64_t layer, int64_t first_prompt, std::span<const float> floors);
  absl::Status Sync() const { return file_.Sync(); }

  // Writes the header and gives the file its name. Nobody sees it before it is whole and on the
  // disk.
  absl::Status Finish(const std::vector<LayerNotes>& notes);

 private:
  ResultFile(PosixFile file, const JobFiles& files, const JobPlan& plan,
             const ResultLayout& layout);
  absl::Status WriteKnownTensors();
  absl::Status WriteTokenIds(FileAppender& out);
  absl::Status WritePromptsJson(FileAppender& out);
  absl::StatusOr<std::string> ReadPromptsJson() const;
  absl::StatusOr<std::string> MakeHeader(const std::vector<LayerNotes>& notes) const;

  PosixFile file_;
  const JobFiles files_;
  const JobPlan& plan_;
  const ResultLayout& layout_;
  std::vector<int64_t> position_counts_;  // Selected positions of each prompt.
};

// Size and digest of a finished result. Reads it once.
// Errors: kCancelled  between two pieces.
absl::StatusOr<FinishedResult> DescribeResult(const JobFiles& files,
                                              const CancellationToken& cancellation);

}  // namespace ess::jobs
