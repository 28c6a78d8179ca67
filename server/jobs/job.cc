#include "server/jobs/job.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "server/base/cut_text.h"
#include "server/base/structured_log.h"

namespace ess::jobs {

const char* JobStateName(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kRunning:
      return "running";
    case JobState::kSucceeded:
      return "succeeded";
    case JobState::kFailed:
      return "failed";
    case JobState::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

absl::Status NoSuchJob(const std::string& id) {
  return absl::NotFoundError(fmt::format("id: there is no job '{}'", CutText(id)));
}

void LogJob(const char* event, const Job& job) {
  nlohmann::ordered_json fields = {{"job", job.id},
                                   {"event", event},
                                   {"model", job.model},
                                   {"state", JobStateName(job.state)},
                                   {"prompts", job.prompts_total}};
  if (HasEnded(job.state)) {
    fields["seconds"] = std::max(job.finished_at - job.submitted_at, 0.0);
    fields["run_seconds"] = job.run_seconds;
    fields["restarts"] = job.restarts;
  }
  if (!job.error.ok()) {
    fields["code"] = absl::StatusCodeToString(job.error.code());
    fields["error"] = std::string(job.error.message());
  }
  LogEvent("job", fields);
}

double UnixSeconds() { return absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()); }

}  // namespace ess::jobs
