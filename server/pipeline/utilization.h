// How much of its state each layer used, for the metrics: sums of ESS and TSS.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/models/sequence_model.h"
#include "server/pipeline/profile_job.h"
#include "server/telemetry/metrics.h"

namespace ess {

// Sums one measure over heads (weighted by their channels) and positions, by layer and prompt.
// Position 0 and one-token prompts are left out. Not thread-safe.
class Utilization {
 public:
  // `measure` is the metrics measure; a job without it is not observed, nor is one with a horizon,
  // which measures something else.
  Utilization(const ProfileJob& job, const ProfilePlan& plan, const models::ModelDescription& model,
              const Measure& measure);

  void Add(const EssPiece& piece);

  // One observation per layer and prompt. `layer` labels are the operators' names; a model with
  // more than `max_layers` operators has no series.
  void Observe(telemetry::Metrics& metrics, const std::string& model_name, int max_layers) const;

 private:
  struct Sums {
    double effective = 0;
    double state = 0;
  };

  const ProfilePlan& plan_;
  const models::ModelDescription& model_;
  std::optional<size_t> measure_;        // Its ordinal in the job.
  std::vector<std::vector<Sums>> sums_;  // [layers][prompts]
};

// Channels that share the operator of `head`.
int64_t ChannelsOf(const models::Mixer& mixer, int64_t head);

}  // namespace ess
