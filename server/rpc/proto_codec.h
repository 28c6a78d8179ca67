// Messages <-> domain types, and the validation of requests that needs no model.
#pragma once

#include "absl/status/statusor.h"
#include "ess/v1/models.pb.h"
#include "ess/v1/priority.pb.h"
#include "ess/v1/profiler.pb.h"
#include "server/admission/request_queue.h"
#include "server/pipeline/profile_job.h"
#include "server/residency/model_residency.h"

namespace ess::rpc {

struct RequestLimits {
  int max_prompts = 256;
  std::vector<Measure> default_measures;
};

// Errors: kInvalidArgument  an empty or doubtful field: names field, value and limit.
//         kUnimplemented    an option this server does not have.
absl::StatusOr<ProfileJob> DecodeProfileRequest(const v1::ProfileRequest& request,
                                                const RequestLimits& limits);

// Errors: kInvalidArgument  an unknown enumeration value.
absl::StatusOr<residency::ModelOptions> DecodeModelOptions(const v1::ModelOptions& options);

// Errors: kInvalidArgument  an unknown enumeration value.
absl::StatusOr<admission::Priority> DecodePriority(v1::Priority priority);

// `with_layers`: with one entry per mixing operator.
void EncodeModel(const residency::ModelStatus& model, bool with_layers, v1::Model* message);
void EncodeMixer(const models::Mixer& mixer, v1::MixingOperator* message);

}  // namespace ess::rpc
