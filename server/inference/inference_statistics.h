// Counts and times of the requests of this service, by model, since the start: what ModelStatistics
// answers. The metrics of docs/metrics.md count them too, beside those of other services.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/inference/protocol.h"
#include "server/pipeline/stage_times.h"

namespace ess::inference {

// Where the time of a request went. Together they are all of it, but for moments between stages.
struct InferTimes {
  absl::Duration queue;           // In the queue, and for the model to be in memory.
  absl::Duration compute_input;   // Tokenization.
  absl::Duration compute_infer;   // Forward pass and ESS.
  absl::Duration compute_output;  // Packing and waiting for the reader.

  absl::Duration compute() const { return compute_input + compute_infer + compute_output; }
};

InferTimes TimesOf(const StageTimes& stages);

// Thread-safe.
class InferenceStatistics {
 public:
  // A request with an answer. `prompts`: its batch.
  void AddSuccess(const std::string& model, int64_t prompts, const InferTimes& times,
                  absl::Duration all);
  // One without, of a model that is served.
  void AddFailure(const std::string& model, absl::Duration all);

  // Everything but name and version. Zeros of a model that has had no request.
  void Describe(const std::string& model, ModelStatistics* message) const;

 private:
  struct Duration {
    int64_t count = 0;
    absl::Duration time;
    void Add(absl::Duration one) {
      ++count;
      time += one;
    }
    void Encode(StatisticDuration* message) const;
  };
  struct Stages {
    Duration input, infer, output;
    void Add(const InferTimes& times);
  };
  struct Model {
    absl::Time last;
    int64_t prompts = 0;
    Duration success, fail, queue;
    Stages stages;
    std::map<int64_t, Stages> by_batch;
  };

  mutable absl::Mutex mutex_;
  std::map<std::string, Model> models_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ess::inference
