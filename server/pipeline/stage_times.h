// Where the time of a request goes.
#pragma once

#include <map>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace ess {

// Seconds by stage: "queue", "load", "tokenize", "forward", "ess", "send". Not thread-safe.
class StageTimes {
 public:
  void Add(const std::string& stage, absl::Duration time) {
    seconds_[stage] += absl::ToDoubleSeconds(time);
  }
  const std::map<std::string, double>& seconds() const { return seconds_; }

 private:
  std::map<std::string, double> seconds_;
};

// Adds its own lifetime to a stage.
class StageTimer {
 public:
  StageTimer(StageTimes& times, std::string stage)
      : times_(times), stage_(std::move(stage)), start_(absl::Now()) {}
  ~StageTimer() { times_.Add(stage_, absl::Now() - start_); }
  StageTimer(const StageTimer&) = delete;
  StageTimer& operator=(const StageTimer&) = delete;

 private:
  StageTimes& times_;
  const std::string stage_;
  const absl::Time start_;
};

}  // namespace ess
