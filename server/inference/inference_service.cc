#include "server/inference/inference_service.h"

#include <string>

#include "fmt/format.h"
#include "server/base/cut_text.h"
#include "server/base/device_failure.h"
#include "server/base/status_macros.h"
#include "server/inference/infer_call.h"
#include "server/inference/infer_stream.h"
#include "server/inference/model_messages.h"
#include "server/inference/tensor_contract.h"
#include "server/rpc/unary_call.h"

namespace ess::inference {
namespace {

using rpc::Identity;
using rpc::UnaryCall;
using UnimplementedUnary = rpc::UnimplementedCall<grpc::ServerUnaryReactor>;

// Extensions of the protocol that hold here.
constexpr const char* kExtensions[] = {"model_configuration", "statistics", "model_repository",
                                       "parameters", "schedule_policy"};

absl::Status CheckRepository(const std::string& name) {
  if (name.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "repository_name: there is no repository '{}'; leave it empty, there is one", CutText(name)));
}

// Those of a load or an unload: `known`, which changes nothing here, or none.
absl::Status CheckParameters(
    const google::protobuf::Map<std::string, ModelRepositoryParameter>& parameters,
    std::string_view known) {
  for (const auto& [name, value] : parameters) {
    if (name == known) continue;
    return absl::InvalidArgumentError(fmt::format(
        "parameters: '{}' is not taken; models come from the server's folders as they are, and "
        "ess.v1.EssProfiler/LoadModel has options",
        CutText(name)));
  }
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* InferenceService::ServerLive(grpc::CallbackServerContext* call,
                                                       const ServerLiveRequest*,
                                                       ServerLiveResponse* response) {
  return UnaryCall::Start(context_.services, call, "ServerLive", "",
                          [response](const CancellationToken&, const Identity&) -> absl::Status {
                            response->set_live(!DeviceFailure());
                            return absl::OkStatus();
                          });
}

grpc::ServerUnaryReactor* InferenceService::ServerReady(grpc::CallbackServerContext* call,
                                                        const ServerReadyRequest*,
                                                        ServerReadyResponse* response) {
  return UnaryCall::Start(
      context_.services, call, "ServerReady", "",
      [this, response](const CancellationToken&, const Identity&) -> absl::Status {
        response->set_ready(ready_ && !DeviceFailure());
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* InferenceService::ModelReady(grpc::CallbackServerContext* call,
                                                       const ModelReadyRequest* request,
                                                       ModelReadyResponse* response) {
  return UnaryCall::Start(
      context_.services, call, "ModelReady", ServedName(context_, request->name()),
      [this, request, response](const CancellationToken&, const Identity&) -> absl::Status {
        const absl::StatusOr<residency::ModelStatus> model = residency_.Get(request->name());
        response->set_ready(ready_ && model.ok() && IsReady(*model) &&
                            CheckVersion(request->name(), request->version()).ok());
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* InferenceService::ServerMetadata(grpc::CallbackServerContext* call,
                                                           const ServerMetadataRequest*,
                                                           ServerMetadataResponse* response) {
  return UnaryCall::Start(
      context_.services, call, "ServerMetadata", "",
      [this, response](const CancellationToken&, const Identity&) -> absl::Status {
        response->set_name("ess_profiler");
        response->set_version(context_.server_version);
        for (const char* extension : kExtensions) response->add_extensions(extension);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* InferenceService::ModelMetadata(grpc::CallbackServerContext* call,
                                                          const ModelMetadataRequest* request,
                                                          ModelMetadataResponse* response) {
  return UnaryCall::Start(
      context_.services, call, "ModelMetadata", ServedName(context_, request->name()),
      [this, request, response](const CancellationToken&, const Identity&) -> absl::Status {
        ESS_ASSIGN_OR_RETURN(const residency::ModelStatus model, residency_.Get(request->name()));
        ESS_RETURN_IF_ERROR(CheckVersion(request->name(), request->version()));
        EncodeMetadata(model, response);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* InferenceService::ModelInfer(grpc::CallbackServerContext* call,
                                                       const ModelInferRequest* request,
                                                       ModelInferResponse* response) {
  return StartModelInfer(context_, call, request, response);
}

grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse>*
InferenceService::ModelStreamInfer(grpc::CallbackServerContext* call) {
  return StartModelStreamInfer(context_, call);
}

grpc::ServerUnaryReactor* InferenceService::ModelConfig(grpc::CallbackServerContext* call,
                                                        const ModelConfigRequest* request,
                                                        ModelConfigResponse* response) {
  return UnaryCall::Start(
      context_.services, call, "ModelConfig", ServedName(context_, request->name()),
      [this, request, response](const CancellationToken&, const Identity&) -> absl::Status {
        ESS_ASSIGN_OR_RETURN(const residency::ModelStatus model, residency_.Get(request->name()));
        ESS_RETURN_IF_ERROR(CheckVersion(request->name(), request->version()));
        EncodeConfig(model, context_.limits.max_prompts, response->mutable_config());
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* InferenceService::ModelStatistics(grpc::CallbackServerContext* call,
                                                            const ModelStatisticsRequest* request,
                                                            ModelStatisticsResponse* response) {
  return UnaryCall::Start(
      context_.services, call, "ModelStatistics", ServedName(context_, request->name()),
      [this, request, response](const CancellationToken&, const Identity&) -> absl::Status {
        std::vector<residency::ModelStatus> models;
        if (request->name().empty()) {
          models = residency_.List();
        } else {
          ESS_ASSIGN_OR_RETURN(residency::ModelStatus model, residency_.Get(request->name()));
          models.push_back(std::move(model));
        }
        ESS_RETURN_IF_ERROR(CheckVersion(request->name(), request->version()));
        for (const residency::ModelStatus& model : models) {
          inference::ModelStatistics* const statistics = response->add_model_stats();
          statistics->set_name(model.name);
          statistics->set_version(kVersion);
          context_.statistics.Describe(model.name, statistics);
          EncodeMemoryUsage(model, statistics);
        }
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* InferenceService::RepositoryIndex(grpc::CallbackServerContext* call,
                                                            const RepositoryIndexRequest* request,
                                                            RepositoryIndexResponse* response) {
  return UnaryCall::Start(
      context_.services, call, "RepositoryIndex", "",
      [this, request, response](const CancellationToken&, const Identity&) -> absl::Status {
        ESS_RETURN_IF_ERROR(CheckRepository(request->repository_name()));
        for (const residency::ModelStatus& model : residency_.List()) {
          if (request->ready() && !IsReady(model)) continue;
          EncodeIndexEntry(model, response->add_models());
        }
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* InferenceService::RepositoryModelLoad(
    grpc::CallbackServerContext* call, const RepositoryModelLoadRequest* request,
    RepositoryModelLoadResponse*) {
  return UnaryCall::StartAsync(
      context_.services, call, "RepositoryModelLoad", ServedName(context_, request->model_name()),
      [this, request](std::shared_ptr<const CancellationToken> cancellation, UnaryCall::Done done) {
        absl::Status valid = CheckRepository(request->repository_name());
        if (valid.ok()) valid = CheckParameters(request->parameters(), "");
        if (!valid.ok()) return done(valid);
        residency_.WhenLoaded(
            {.name = request->model_name()}, std::move(cancellation),
            [done = std::move(done)](const auto& model) { done(model.status()); });
      },
      control_queue_);
}

grpc::ServerUnaryReactor* InferenceService::RepositoryModelUnload(
    grpc::CallbackServerContext* call, const RepositoryModelUnloadRequest* request,
    RepositoryModelUnloadResponse*) {
  return UnaryCall::StartAsync(
      context_.services, call, "RepositoryModelUnload", ServedName(context_, request->model_name()),
      [this, request](std::shared_ptr<const CancellationToken> cancellation, UnaryCall::Done done) {
        absl::Status valid = CheckRepository(request->repository_name());
        // No model depends on another.
        if (valid.ok()) valid = CheckParameters(request->parameters(), "unload_dependents");
        if (!valid.ok()) return done(valid);
        residency_.WhenUnloaded(
            request->model_name(), std::move(cancellation),
            [done = std::move(done)](const auto& bytes) { done(bytes.status()); });
      },
      control_queue_);
}

grpc::ServerUnaryReactor* InferenceService::SystemSharedMemoryStatus(
    grpc::CallbackServerContext* call, const SystemSharedMemoryStatusRequest*,
    SystemSharedMemoryStatusResponse*) {
  return new UnimplementedUnary(context_.services, call, "SystemSharedMemoryStatus");
}

grpc::ServerUnaryReactor* InferenceService::SystemSharedMemoryRegister(
    grpc::CallbackServerContext* call, const SystemSharedMemoryRegisterRequest*,
    SystemSharedMemoryRegisterResponse*) {
  return new UnimplementedUnary(context_.services, call, "SystemSharedMemoryRegister");
}

grpc::ServerUnaryReactor* InferenceService::SystemSharedMemoryUnregister(
    grpc::CallbackServerContext* call, const SystemSharedMemoryUnregisterRequest*,
    SystemSharedMemoryUnregisterResponse*) {
  return new UnimplementedUnary(context_.services, call, "SystemSharedMemoryUnregister");
}

grpc::ServerUnaryReactor* InferenceService::CudaSharedMemoryStatus(
    grpc::CallbackServerContext* call, const CudaSharedMemoryStatusRequest*,
    CudaSharedMemoryStatusResponse*) {
  return new UnimplementedUnary(context_.services, call, "CudaSharedMemoryStatus");
}

grpc::ServerUnaryReactor* InferenceService::CudaSharedMemoryRegister(
    grpc::CallbackServerContext* call, const CudaSharedMemoryRegisterRequest*,
    CudaSharedMemoryRegisterResponse*) {
  return new UnimplementedUnary(context_.services, call, "CudaSharedMemoryRegister");
}

grpc::ServerUnaryReactor* InferenceService::CudaSharedMemoryUnregister(
    grpc::CallbackServerContext* call, const CudaSharedMemoryUnregisterRequest*,
    CudaSharedMemoryUnregisterResponse*) {
  return new UnimplementedUnary(context_.services, call, "CudaSharedMemoryUnregister");
}

grpc::ServerUnaryReactor* InferenceService::TraceSetting(grpc::CallbackServerContext* call,
                                                         const TraceSettingRequest*,
                                                         TraceSettingResponse*) {
  return new UnimplementedUnary(context_.services, call, "TraceSetting");
}

grpc::ServerUnaryReactor* InferenceService::LogSettings(grpc::CallbackServerContext* call,
                                                        const LogSettingsRequest*,
                                                        LogSettingsResponse*) {
  return new UnimplementedUnary(context_.services, call, "LogSettings");
}

}  // namespace ess::inference
