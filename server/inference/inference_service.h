// The service inference.GRPCInferenceService: one method each, no logic.
#pragma once

#include <atomic>
#include <utility>

#include "inference/grpc_service.grpc.pb.h"
#include "server/admission/work_queue.h"
#include "server/inference/infer_work.h"
#include "server/inference/protocol.h"
#include "server/residency/model_residency.h"

namespace ess::inference {

class InferenceService final : public GRPCInferenceService::CallbackService {
 public:
  // All outlive the service. `control_queue` begins loads and unloads; `ready`: whether the server
  // takes new work.
  InferenceService(InferContext context, residency::ModelResidency& residency,
                   admission::WorkQueue& control_queue, const std::atomic<bool>& ready)
      : context_(std::move(context)),
        residency_(residency),
        control_queue_(control_queue),
        ready_(ready) {}

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* call,
                                       const ServerLiveRequest* request,
                                       ServerLiveResponse* response) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* call,
                                        const ServerReadyRequest* request,
                                        ServerReadyResponse* response) override;
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* call,
                                       const ModelReadyRequest* request,
                                       ModelReadyResponse* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* call,
                                           const ServerMetadataRequest* request,
                                           ServerMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* call,
                                          const ModelMetadataRequest* request,
                                          ModelMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* call,
                                       const ModelInferRequest* request,
                                       ModelInferResponse* response) override;
  grpc::ServerUnaryReactor* ModelConfig(grpc::CallbackServerContext* call,
                                        const ModelConfigRequest* request,
                                        ModelConfigResponse* response) override;
  grpc::ServerUnaryReactor* ModelStatistics(grpc::CallbackServerContext* call,
                                            const ModelStatisticsRequest* request,
                                            ModelStatisticsResponse* response) override;
  grpc::ServerUnaryReactor* RepositoryIndex(grpc::CallbackServerContext* call,
                                            const RepositoryIndexRequest* request,
                                            RepositoryIndexResponse* response) override;
  grpc::ServerUnaryReactor* RepositoryModelLoad(grpc::CallbackServerContext* call,
                                                const RepositoryModelLoadRequest* request,
                                                RepositoryModelLoadResponse* response) override;
  grpc::ServerUnaryReactor* RepositoryModelUnload(grpc::CallbackServerContext* call,
                                                  const RepositoryModelUnloadRequest* request,
                                                  RepositoryModelUnloadResponse* response) override;
  grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse>* ModelStreamInfer(
      grpc::CallbackServerContext* call) override;

  // Declared because clients call them: UNIMPLEMENTED.
  grpc::ServerUnaryReactor* SystemSharedMemoryStatus(
      grpc::CallbackServerContext* call, const SystemSharedMemoryStatusRequest* request,
      SystemSharedMemoryStatusResponse* response) override;
  grpc::ServerUnaryReactor* SystemSharedMemoryRegister(
      grpc::CallbackServerContext* call, const SystemSharedMemoryRegisterRequest* request,
      SystemSharedMemoryRegisterResponse* response) override;
  grpc::ServerUnaryReactor* SystemSharedMemoryUnregister(
      grpc::CallbackServerContext* call, const SystemSharedMemoryUnregisterRequest* request,
      SystemSharedMemoryUnregisterResponse* response) override;
  grpc::ServerUnaryReactor* CudaSharedMemoryStatus(
      grpc::CallbackServerContext* call, const CudaSharedMemoryStatusRequest* request,
      CudaSharedMemoryStatusResponse* response) override;
  grpc::ServerUnaryReactor* CudaSharedMemoryRegister(
      grpc::CallbackServerContext* call, const CudaSharedMemoryRegisterRequest* request,
      CudaSharedMemoryRegisterResponse* response) override;
  grpc::ServerUnaryReactor* CudaSharedMemoryUnregister(
      grpc::CallbackServerContext* call, const CudaSharedMemoryUnregisterRequest* request,
      CudaSharedMemoryUnregisterResponse* response) override;
  grpc::ServerUnaryReactor* TraceSetting(grpc::CallbackServerContext* call,
                                         const TraceSettingRequest* request,
                                         TraceSettingResponse* response) override;
  grpc::ServerUnaryReactor* LogSettings(grpc::CallbackServerContext* call,
                                        const LogSettingsRequest* request,
                                        LogSettingsResponse* response) override;

 private:
  const InferContext context_;
  residency::ModelResidency& residency_;
  admission::WorkQueue& control_queue_;
  const std::atomic<bool>& ready_;
};

}  // namespace ess::inference
