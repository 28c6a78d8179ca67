// A job: a profile of many prompts that outlives the connection of its caller, and the process.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace ess::jobs {

// The numbers are those of the database and of ess.v1.JobState.
enum class JobState { kQueued = 1, kRunning = 2, kSucceeded = 3, kFailed = 4, kCancelled = 5 };
enum class JobPriority { kLow = 1, kNormal = 2, kHigh = 3 };

// "queued", "running", ...: in logs and metrics.
const char* JobStateName(JobState state);

// kNotFound, which quotes the id; the same for a job that is not there and for somebody else's.
absl::Status NoSuchJob(const std::string& id);

inline bool HasEnded(JobState state) {
  return state != JobState::kQueued && state != JobState::kRunning;
}

// What the database knows of a job. Times are seconds since the Unix epoch, 0 while it has not
// happened.
struct Job {
  int64_t sequence = 0;  // Grows with each submission.
  std::string id;
  std::string owner;            // Identity of the caller; "" where the server knows no callers.
  std::string idempotency_key;  // Unique of an owner; "" for none.
  std::string content_digest;   // Of what was asked for, key excluded.
  std::string specification;    // As server/rpc wrote it; opaque here.
  std::string model;
  JobPriority priority = JobPriority::kNormal;
  JobState state = JobState::kQueued;
  absl::Status error;  // Not OK when kFailed.
  int64_t prompts_total = 0;
  int64_t prompts_done = 0;  // In all of their layers.
  int64_t cells_total = 0;   // Layers of prompts; 0 before the prompts are tokenized.
  int64_t cells_done = 0;
  double submitted_at = 0;
  double started_at = 0;
  double finished_at = 0;
  double run_seconds = 0;     // Spent on its groups, by a clock that never jumps.
  int64_t restarts = 0;       // Of the server, since it was started.
  int64_t failed_starts = 0;  // Ends of the process while it ran, since its last progress.
  int64_t stored_bytes = 0;   // Of its folder.
  int64_t result_bytes = 0;
  std::string result_sha256;
  // Of the work that is left; only while it runs, and not before its first group is done.
  std::optional<double> seconds_left;

  // In [0, 1].
  double Progress() const {
    if (state == JobState::kSucceeded) return 1;
    return cells_total == 0 ? 0
                            : static_cast<double>(cells_done) / static_cast<double>(cells_total);
  }
};

// One line in the log: `event` of a job, as its state is then. Never its prompts.
void LogJob(const char* event, const Job& job);

// Seconds since the Unix epoch.
double UnixSeconds();

}  // namespace ess::jobs
