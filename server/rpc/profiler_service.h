// The service ess.v1.EssProfiler: one method each, no logic. Profile takes and gives bytes, because
// its answers are encoded where they are made.
#pragma once

#include "ess/v1/profiler.grpc.pb.h"
#include "server/admission/work_queue.h"
#include "server/residency/model_residency.h"
#include "server/rpc/jobs_handler.h"
#include "server/rpc/profile_handler.h"
#include "server/rpc/profile_operators_handler.h"

namespace ess::rpc {

class ProfilerService final
    : public v1::EssProfiler::WithRawCallbackMethod_Profile<v1::EssProfiler::CallbackService> {
 public:
  // All outlive the service. `info` holds what does not change; `control_queue` begins
  // loads and unloads, and runs estimates.
  ProfilerService(ProfileContext profile, OperatorsContext operators, JobsContext jobs,
                  residency::ModelResidency& residency, admission::WorkQueue& control_queue,
                  v1::ServerInfo info);

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Profile(grpc::CallbackServerContext* call,
                                                      const grpc::ByteBuffer* request) override;
  grpc::ServerBidiReactor<v1::ProfileOperatorsRequest, v1::ProfileOperatorsResponse>*
  ProfileOperators(grpc::CallbackServerContext* call) override;
  grpc::ServerUnaryReactor* EstimateProfile(grpc::CallbackServerContext* call,
                                            const v1::ProfileRequest* request,
                                            v1::EstimateProfileResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* call,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* call,
                                     const v1::GetModelRequest* request,
                                     v1::Model* response) override;
  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext* call,
                                      const v1::LoadModelRequest* request,
                                      v1::Model* response) override;
  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* call,
                                        const v1::UnloadModelRequest* request,
                                        v1::UnloadModelResponse* response) override;
  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* call,
                                          const v1::GetServerInfoRequest* request,
                                          v1::ServerInfo* response) override;

  grpc::ServerReadReactor<v1::SubmitJobRequest>* SubmitJob(grpc::CallbackServerContext* call,
                                                           v1::Job* response) override;
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* call,
                                   const v1::GetJobRequest* request, v1::Job* response) override;
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* call,
                                     const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override;
  grpc::ServerWriteReactor<v1::Job>* WatchJob(grpc::CallbackServerContext* call,
                                              const v1::WatchJobRequest* request) override;
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* call,
                                      const v1::CancelJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* DeleteJob(grpc::CallbackServerContext* call,
                                      const v1::DeleteJobRequest* request,
                                      v1::DeleteJobResponse* response) override;
  grpc::ServerWriteReactor<v1::FetchJobResultResponse>* FetchJobResult(
      grpc::CallbackServerContext* call, const v1::FetchJobResultRequest* request) override;

 private:
  std::string Label(const std::string& model) const;

  const ProfileContext profile_;
  const OperatorsContext operators_;
  const JobsContext jobs_;
  residency::ModelResidency& residency_;
  admission::WorkQueue& control_queue_;
  const v1::ServerInfo info_;
  const absl::Time start_;
};

}  // namespace ess::rpc
