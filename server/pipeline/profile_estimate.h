// What a profile would cost, from its plan and the shape of the model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/models/sequence_model.h"
#include "server/pipeline/profile_job.h"

namespace ess {

// How one measure would be computed for the operators of one class.
struct RouteEstimate {
  int64_t measure = 0;  // Ordinal in the job.
  std::string operator_class;
  std::string route;  // Several, by the length of the prompt, are joined by '+'.
};

struct ProfileEstimate {
  double forward_seconds = 0;
  double ess_seconds = 0;
  int64_t peak_bytes = 0;  // Upper bound, beside the weights.
  std::vector<RouteEstimate> routes;
};

// `threads`: of the engine and of the forward pass.
// Cost: O(prompts * classes of the model * positions).
ProfileEstimate EstimateProfile(const ProfileJob& job, const ProfilePlan& plan,
                                const models::ModelDescription& model, int threads);

}  // namespace ess
