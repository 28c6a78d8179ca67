// Messages <-> domain types, and the validation of requests that needs no model.
#pragma once

#include "absl/status/statusor.h"
#include "ess/v1/models.pb.h"
#include "ess/v1/profiler.pb.h"
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

// Errors: kInvalidArgument  a kind that is not set or a value outside its range.
absl::StatusOr<Measure> DecodeMeasure(const v1::Measure& measure, const std::string& field);
void EncodeMeasure(const Measure& measure, v1::Measure* message);

// Errors: kInvalidArgument  an unknown enumeration value.
absl::StatusOr<residency::ModelOptions> DecodeModelOptions(const v1::ModelOptions& options);

// `with_layers`: with one entry per mixing operator.
void EncodeModel(const residency::ModelStatus& model, bool with_layers, v1::Model* message);
void EncodeMixer(const models::Mixer& mixer, v1::MixingOperator* message);

// Ascending indices as ranges, runs of equal stride joined.
void EncodeIndices(const std::vector<int64_t>& indices, v1::IndexSelection* message);

}  // namespace ess::rpc
