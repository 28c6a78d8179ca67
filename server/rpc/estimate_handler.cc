#include "server/rpc/estimate_handler.h"

#include <iterator>

#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/pipeline/profile_estimate.h"
#include "server/pipeline/reduction.h"
#include "server/rpc/profile_messages.h"

namespace ess::rpc {
namespace {

// Of a slice beside its values, and of a route in the summary.
constexpr int64_t kSliceBytes = 48;
constexpr int64_t kRouteBytes = 32;

// Header and tokens as they will be sent; values and summary by their sizes.
absl::StatusOr<int64_t> ResponseBytes(const ProfileJob& job, const PreparedProfile& prepared,
                                      const std::string& server_version) {
  int64_t bytes = 0;
  const auto count = [&bytes](grpc::ByteBuffer message) {
    bytes += static_cast<int64_t>(message.Length());
    return absl::OkStatus();
  };
  ESS_RETURN_IF_ERROR(WriteHeader(job, prepared.plan, prepared.model, server_version, count));
  ESS_RETURN_IF_ERROR(WriteTokens(job, prepared.plan, prepared.token_texts, count));
  const int64_t measures = std::ssize(job.measures);
  for (const PlannedLayer& layer : prepared.plan.layers) {
    const int64_t heads = std::ssize(layer.heads);
    for (const auto& positions : prepared.plan.positions) {
      for (const Measure& measure : job.measures) {
        bytes += ValueBytes(job.options) *
                 ValueCount(job.reduction, heads, std::ssize(positions), measure);
      }
      bytes += measures * kSliceBytes + heads * static_cast<int64_t>(sizeof(float));
    }
    bytes += measures * kRouteBytes;
  }
  return bytes;
}

void AddStage(const std::string& stage, double seconds, v1::EstimateProfileResponse* response) {
  v1::StageSeconds* entry = response->add_stages();
  entry->set_stage(stage);
  entry->set_seconds(seconds);
  response->set_seconds(response->seconds() + seconds);
}

absl::Status Estimate(const ProfileContext& context, const ProfileJob& job,
                      residency::ModelLease lease, const CancellationToken& cancellation,
                      v1::EstimateProfileResponse* response) {
  StageTimes stages;
  ESS_ASSIGN_OR_RETURN(const PreparedProfile prepared,
                       context.pipeline.Prepare(job, std::move(lease), cancellation, stages));
  ESS_ASSIGN_OR_RETURN(const int64_t response_bytes,
                       ResponseBytes(job, prepared, context.server_version));
  const ProfileEstimate estimate = ess::EstimateProfile(
      job, prepared.plan, prepared.lease.model().description(), context.pipeline.threads());
  response->set_peak_bytes(estimate.peak_bytes);
  for (const ess::RouteEstimate& route : estimate.routes) {
    v1::RouteEstimate* message = response->add_routes();
    message->set_measure(static_cast<int32_t>(route.measure));
    message->set_operator_class(route.operator_class);
    message->set_route(route.route);
  }
  response->set_response_bytes(response_bytes);
  AddStage("forward", estimate.forward_seconds, response);
  AddStage("ess", estimate.ess_seconds, response);
  for (const Measure& measure : job.measures) response->add_measure_names(FormatMeasure(measure));
  response->set_token_count(prepared.plan.PositionCount());
  return absl::OkStatus();
}

}  // namespace

void StartEstimate(const ProfileContext& context, admission::WorkQueue& queue,
                   const v1::ProfileRequest& request,
                   std::shared_ptr<const CancellationToken> cancellation,
                   v1::EstimateProfileResponse* response, UnaryCall::Done done) {
  absl::StatusOr<ProfileJob> decoded = DecodeProfileRequest(request, context.limits);
  if (!decoded.ok()) return done(decoded.status());
  const auto job = std::make_shared<const ProfileJob>(*std::move(decoded));
  context.pipeline.WhenLeased(
      *job, cancellation,
      [&context, &queue, job, cancellation, response,
       done = std::move(done)](absl::StatusOr<residency::ModelLease> leased) {
        if (!leased.ok()) return done(leased.status());
        const auto lease = std::make_shared<residency::ModelLease>(*std::move(leased));
        queue.Continue([&context, job, lease, cancellation, response, done] {
          done(CatchTorch("estimate", [&] {
            return Estimate(context, *job, std::move(*lease), *cancellation, response);
          }));
        });
      });
}

}  // namespace ess::rpc
