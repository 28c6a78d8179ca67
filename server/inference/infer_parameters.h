// The parameters of a request: measures, selections and options by name. None is ignored: a typing
// error would be another experiment.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/admission/request_queue.h"
#include "server/inference/protocol.h"
#include "server/pipeline/profile_job.h"

namespace ess::inference {

using ParameterMap = google::protobuf::Map<std::string, InferParameter>;

struct InferParameters {
  std::vector<Measure> measures;  // Empty: the server's defaults.
  EssOptions options;
  LayerSelection layers;
  IndexSelection heads;
  IndexSelection positions;
  bool add_special_tokens = true;
  admission::Priority priority = admission::Priority::kNormal;
  absl::Duration longest_wait = absl::InfiniteDuration();  // Until the work begins.
};

// Errors: kInvalidArgument  a parameter that does not exist (names it, and the one that may be
//         meant), of another type, or with a value outside its range.
absl::StatusOr<InferParameters> DecodeInferParameters(const ParameterMap& parameters);

// Of an input or a requested output, which have none here: shared memory and classification are not
// offered.
// Errors: kInvalidArgument  names the first.
absl::Status RefuseParameters(const std::string& tensor, const ParameterMap& parameters);

}  // namespace ess::inference
