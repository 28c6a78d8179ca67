#include "server/rpc/profiler_service.h"

#include <utility>

#include "absl/time/clock.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/rpc/estimate_handler.h"
#include "server/rpc/unary_call.h"

namespace ess::rpc {

ProfilerService::ProfilerService(ProfileContext profile, OperatorsContext operators,
                                 JobsContext jobs, residency::ModelResidency& residency,
                                 admission::WorkQueue& control_queue, v1::ServerInfo info)
    : profile_(std::move(profile)),
      operators_(std::move(operators)),
      jobs_(std::move(jobs)),
      residency_(residency),
      control_queue_(control_queue),
      info_(std::move(info)),
      start_(absl::Now()) {}

std::string ProfilerService::Label(const std::string& model) const {
  return profile_.catalogue.Find(model).ok() ? model : "";
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ProfilerService::Profile(
    grpc::CallbackServerContext* call, const grpc::ByteBuffer* request) {
  return StartProfile(profile_, call, *request);
}

grpc::ServerBidiReactor<v1::ProfileOperatorsRequest, v1::ProfileOperatorsResponse>*
ProfilerService::ProfileOperators(grpc::CallbackServerContext* call) {
  return StartProfileOperators(operators_, call);
}

grpc::ServerUnaryReactor* ProfilerService::EstimateProfile(grpc::CallbackServerContext* call,
                                                           const v1::ProfileRequest* request,
                                                           v1::EstimateProfileResponse* response) {
  return UnaryCall::StartAsync(
      profile_.services, call, "EstimateProfile", Label(request->model()),
      [this, request, response](std::shared_ptr<const CancellationToken> cancellation,
                                UnaryCall::Done done) {
        StartEstimate(profile_, control_queue_, *request, std::move(cancellation), response,
                      std::move(done));
      },
      control_queue_);
}

grpc::ServerUnaryReactor* ProfilerService::ListModels(grpc::CallbackServerContext* call,
                                                      const v1::ListModelsRequest*,
                                                      v1::ListModelsResponse* response) {
  return UnaryCall::Start(profile_.services, call, "ListModels", "",
                          [this, response](const CancellationToken&, const Identity&) {
                            for (const residency::ModelStatus& model : residency_.List()) {
                              EncodeModel(model, /*with_layers=*/false, response->add_models());
                            }
                            return absl::OkStatus();
                          });
}

grpc::ServerUnaryReactor* ProfilerService::GetModel(grpc::CallbackServerContext* call,
                                                    const v1::GetModelRequest* request,
                                                    v1::Model* response) {
  return UnaryCall::Start(
      profile_.services, call, "GetModel", Label(request->name()),
      [this, request, response](const CancellationToken&, const Identity&) -> absl::Status {
        ESS_ASSIGN_OR_RETURN(const residency::ModelStatus model, residency_.Get(request->name()));
        EncodeModel(model, /*with_layers=*/true, response);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* ProfilerService::LoadModel(grpc::CallbackServerContext* call,
                                                     const v1::LoadModelRequest* request,
                                                     v1::Model* response) {
  return UnaryCall::StartAsync(
      profile_.services, call, "LoadModel", Label(request->name()),
      [this, request, response](std::shared_ptr<const CancellationToken> cancellation,
                                UnaryCall::Done done) {
        const absl::StatusOr<residency::ModelOptions> options =
            DecodeModelOptions(request->options());
        if (!options.ok()) return done(options.status());
        residency_.WhenLoaded(
            {.name = request->name(),
             .alias = request->options().alias(),
             .options = request->has_options() ? std::optional(*options) : std::nullopt,
             .reload = request->reload()},
            std::move(cancellation),
            [response, done = std::move(done)](absl::StatusOr<residency::ModelStatus> model) {
              done(CatchTorch("LoadModel", [&] {
                if (model.ok()) EncodeModel(*model, /*with_layers=*/true, response);
                return model.status();
              }));
            });
      },
      control_queue_);
}

grpc::ServerUnaryReactor* ProfilerService::UnloadModel(grpc::CallbackServerContext* call,
                                                       const v1::UnloadModelRequest* request,
                                                       v1::UnloadModelResponse* response) {
  return UnaryCall::StartAsync(
      profile_.services, call, "UnloadModel", Label(request->name()),
      [this, request, response](std::shared_ptr<const CancellationToken> cancellation,
                                UnaryCall::Done done) {
        residency_.WhenUnloaded(
            request->name(), std::move(cancellation),
            [response, done = std::move(done)](const absl::StatusOr<int64_t>& bytes) {
              if (bytes.ok()) response->set_released_bytes(*bytes);
              done(bytes.status());
            });
      },
      control_queue_);
}

grpc::ServerUnaryReactor* ProfilerService::GetServerInfo(grpc::CallbackServerContext* call,
                                                         const v1::GetServerInfoRequest*,
                                                         v1::ServerInfo* response) {
  return UnaryCall::Start(
      profile_.services, call, "GetServerInfo", "",
      [this, response](const CancellationToken&, const Identity&) {
        *response = info_;
        response->set_uptime_seconds(absl::ToDoubleSeconds(absl::Now() - start_));
        return absl::OkStatus();
      });
}

grpc::ServerReadReactor<v1::SubmitJobRequest>* ProfilerService::SubmitJob(
    grpc::CallbackServerContext* call, v1::Job* response) {
  return StartSubmitJob(jobs_, call, response);
}

grpc::ServerUnaryReactor* ProfilerService::GetJob(grpc::CallbackServerContext* call,
                                                  const v1::GetJobRequest* request,
                                                  v1::Job* response) {
  return StartGetJob(jobs_, call, request, response);
}

grpc::ServerUnaryReactor* ProfilerService::ListJobs(grpc::CallbackServerContext* call,
                                                    const v1::ListJobsRequest* request,
                                                    v1::ListJobsResponse* response) {
  return StartListJobs(jobs_, call, request, response);
}

grpc::ServerWriteReactor<v1::Job>* ProfilerService::WatchJob(grpc::CallbackServerContext* call,
                                                             const v1::WatchJobRequest* request) {
  return StartWatchJob(jobs_, call, request);
}

grpc::ServerUnaryReactor* ProfilerService::CancelJob(grpc::CallbackServerContext* call,
                                                     const v1::CancelJobRequest* request,
                                                     v1::Job* response) {
  return StartCancelJob(jobs_, call, request, response);
}

grpc::ServerUnaryReactor* ProfilerService::DeleteJob(grpc::CallbackServerContext* call,
                                                     const v1::DeleteJobRequest* request,
                                                     v1::DeleteJobResponse*) {
  return StartDeleteJob(jobs_, call, request);
}

grpc::ServerWriteReactor<v1::FetchJobResultResponse>* ProfilerService::FetchJobResult(
    grpc::CallbackServerContext* call, const v1::FetchJobResultRequest* request) {
  return StartFetchJobResult(jobs_, call, request);
}

}  // namespace ess::rpc
