#include "server/inference/inference_statistics.h"

#include "absl/time/clock.h"

namespace ess::inference {

InferTimes TimesOf(const StageTimes& stages) {
  const auto of = [&stages](const char* stage) {
    const auto found = stages.seconds().find(stage);
    return found == stages.seconds().end() ? absl::ZeroDuration() : absl::Seconds(found->second);
  };
  return {.queue = of("queue") + of("load"),
          .compute_input = of("tokenize"),
          .compute_infer = of("forward") + of("ess"),
          .compute_output = of("send")};
}

void InferenceStatistics::Duration::Encode(StatisticDuration* message) const {
  message->set_count(count);
  message->set_ns(absl::ToInt64Nanoseconds(time));
}

void InferenceStatistics::Stages::Add(const InferTimes& times) {
  input.Add(times.compute_input);
  infer.Add(times.compute_infer);
  output.Add(times.compute_output);
}

void InferenceStatistics::AddSuccess(const std::string& model, int64_t prompts,
                                     const InferTimes& times, absl::Duration all) {
  absl::MutexLock lock(&mutex_);
  Model& entry = models_[model];
  entry.last = absl::Now();
  entry.prompts += prompts;
  entry.success.Add(all);
  entry.queue.Add(times.queue);
  entry.stages.Add(times);
  entry.by_batch[prompts].Add(times);
}

void InferenceStatistics::AddFailure(const std::string& model, absl::Duration all) {
  absl::MutexLock lock(&mutex_);
  models_[model].fail.Add(all);
}

void InferenceStatistics::Describe(const std::string& model, ModelStatistics* message) const {
  Model entry;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = models_.find(model);
    if (found != models_.end()) entry = found->second;
  }
  InferStatistics* const stats = message->mutable_inference_stats();
  if (entry.success.count > 0) message->set_last_inference(absl::ToUnixMillis(entry.last));
  message->set_inference_count(entry.prompts);
  message->set_execution_count(entry.success.count);
  entry.success.Encode(stats->mutable_success());
  entry.fail.Encode(stats->mutable_fail());
  entry.queue.Encode(stats->mutable_queue());
  entry.stages.input.Encode(stats->mutable_compute_input());
  entry.stages.infer.Encode(stats->mutable_compute_infer());
  entry.stages.output.Encode(stats->mutable_compute_output());
  for (const auto& [size, stages] : entry.by_batch) {
    InferBatchStatistics* const batch = message->add_batch_stats();
    batch->set_batch_size(size);
    stages.input.Encode(batch->mutable_compute_input());
    stages.infer.Encode(batch->mutable_compute_infer());
    stages.output.Encode(batch->mutable_compute_output());
  }
}

}  // namespace ess::inference
