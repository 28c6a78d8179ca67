// ModelInferRequest -> what the pipeline runs, and the validation that needs no model.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/inference/infer_parameters.h"
#include "server/inference/protocol.h"
#include "server/pipeline/profile_job.h"
#include "server/rpc/proto_codec.h"

namespace ess::inference {

struct InferRequest {
  ProfileJob job;
  admission::Priority priority = admission::Priority::kNormal;
  absl::Duration longest_wait = absl::InfiniteDuration();
  std::string prompt_tensor;         // The input that holds the prompts: for errors.
  std::vector<std::string> outputs;  // Wanted, in the order of the answer.
};

// Versions are "1", or "" for any.
// Errors: kNotFound.
absl::Status CheckVersion(const std::string& model, const std::string& version);

// Errors: kInvalidArgument  names the tensor or parameter, what was found and what is expected.
absl::StatusOr<InferRequest> DecodeInferRequest(const ModelInferRequest& request,
                                                const rpc::RequestLimits& limits);

}  // namespace ess::inference
