#include "server/rpc/job_codec.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <optional>
#include <string_view>

#include "fmt/format.h"
#include "server/base/sha256.h"
#include "server/base/status_macros.h"
#include "server/rpc/measure_codec.h"

namespace ess::rpc {
namespace {

constexpr size_t kMaxKeyBytes = 128;
constexpr int kMaxLabels = 16;
constexpr size_t kMaxLabelBytes = 128;
// A Job with it stays below 1 MiB.
constexpr size_t kMaxSpecificationBytes = 512 << 10;

// The same message has the same bytes, maps included.
std::string Serialize(const v1::JobSpecification& specification) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    specification.SerializeToCodedStream(&coded);
  }
  return bytes;
}

absl::Status CheckBytes(const std::string& field, size_t bytes, size_t limit) {
  if (bytes <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}: {} bytes; the limit is {}", field, bytes, limit));
}

absl::Status CheckLabels(const v1::JobSpecification& specification) {
  if (specification.labels_size() > kMaxLabels) {
    return absl::InvalidArgumentError(fmt::format("labels: {} of them; the limit is {}",
                                                  specification.labels_size(), kMaxLabels));
  }
  for (const auto& [key, value] : specification.labels()) {
    if (key.empty()) return absl::InvalidArgumentError("labels: a key is empty");
    ESS_RETURN_IF_ERROR(CheckBytes("labels: a key", key.size(), kMaxLabelBytes));
    ESS_RETURN_IF_ERROR(CheckBytes(fmt::format("labels['{}']", key), value.size(), kMaxLabelBytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<jobs::JobPriority> DecodeJobPriority(v1::JobPriority priority) {
  switch (priority) {
    case v1::JOB_PRIORITY_LOW:
      return jobs::JobPriority::kLow;
    case v1::JOB_PRIORITY_UNSPECIFIED:
    case v1::JOB_PRIORITY_NORMAL:
      return jobs::JobPriority::kNormal;
    case v1::JOB_PRIORITY_HIGH:
      return jobs::JobPriority::kHigh;
    default:
      return absl::InvalidArgumentError(
          fmt::format("priority: {} is not a JobPriority", static_cast<int>(priority)));
  }
}

}  // namespace

absl::StatusOr<ProfileJob> DecodeJobSpecification(const v1::JobSpecification& specification,
                                                  const std::vector<Measure>& default_measures) {
  if (specification.model().empty()) {
    return absl::InvalidArgumentError("model: the name is empty; ListModels has the names");
  }
  ProfileJob job;
  job.model = specification.model();
  ESS_ASSIGN_OR_RETURN(job.measures, DecodeMeasures(specification.measures(), default_measures));
  ESS_ASSIGN_OR_RETURN(job.options, DecodeEssOptions(specification.options()));
  ESS_ASSIGN_OR_RETURN(job.reduction, DecodeReduction(specification.options()));
  ESS_ASSIGN_OR_RETURN(job.layers.indices,
                       DecodeSelection(specification.layers().ranges(), "layers"));
  job.layers.names = {specification.layers().names().begin(), specification.layers().names().end()};
  ESS_ASSIGN_OR_RETURN(job.heads, DecodeSelection(specification.heads().ranges(), "heads"));
  ESS_ASSIGN_OR_RETURN(job.positions,
                       DecodeSelection(specification.positions().ranges(), "positions"));
  if (specification.has_add_special_tokens()) {
    job.add_special_tokens = specification.add_special_tokens();
  }
  return job;
}

absl::StatusOr<ProfileJob> ParseJobSpecification(const std::string& bytes,
                                                 const std::vector<Measure>& default_measures) {
  v1::JobSpecification specification;
  if (!specification.ParseFromString(bytes)) {
    return absl::DataLossError("the job's specification cannot be read from the database");
  }
  return DecodeJobSpecification(specification, default_measures);
}

absl::StatusOr<jobs::JobRequest> MakeJobRequest(const v1::JobSpecification& specification,
                                                const std::vector<Measure>& default_measures,
                                                const Identity& caller) {
  ESS_RETURN_IF_ERROR(DecodeJobSpecification(specification, default_measures).status());
  ESS_RETURN_IF_ERROR(
      CheckBytes("specification", specification.ByteSizeLong(), kMaxSpecificationBytes));
  ESS_RETURN_IF_ERROR(
      CheckBytes("idempotency_key", specification.idempotency_key().size(), kMaxKeyBytes));
  ESS_RETURN_IF_ERROR(CheckLabels(specification));
  ESS_ASSIGN_OR_RETURN(const jobs::JobPriority priority,
                       DecodeJobPriority(specification.priority()));
  v1::JobSpecification content = specification;
  content.clear_idempotency_key();
  return jobs::JobRequest{.owner = caller.subject,
                          .idempotency_key = specification.idempotency_key(),
                          .specification = Serialize(specification),
                          .content_digest = Sha256Hex(Serialize(content)),
                          .model = specification.model(),
                          .priority = priority};
}

absl::StatusOr<std::optional<jobs::JobState>> DecodeJobState(v1::JobState state) {
  if (state == v1::JOB_STATE_UNSPECIFIED) return std::optional<jobs::JobState>();
  if (!v1::JobState_IsValid(state)) {
    return absl::InvalidArgumentError(
        fmt::format("state: {} is not a JobState", static_cast<int>(state)));
  }
  return std::optional(static_cast<jobs::JobState>(state));
}

void EncodeJob(const jobs::Job& job, v1::Job* message) {
  message->set_id(job.id);
  message->set_state(static_cast<v1::JobState>(job.state));
  if (!job.error.ok()) {
    message->set_error_code(absl::StatusCodeToString(job.error.code()));
    message->set_error_message(std::string(job.error.message()));
  }
  message->mutable_specification()->ParseFromString(job.specification);
  message->set_prompts_done(job.prompts_done);
  message->set_prompts_total(job.prompts_total);
  message->set_progress(job.Progress());
  if (job.seconds_left) message->set_seconds_left(*job.seconds_left);
  message->set_submitted_at(job.submitted_at);
  message->set_started_at(job.started_at);
  message->set_finished_at(job.finished_at);
  message->set_result_bytes(job.result_bytes);
  message->set_result_sha256(job.result_sha256);
  message->set_restarts(job.restarts);
  message->set_run_seconds(job.run_seconds);
}

}  // namespace ess::rpc
