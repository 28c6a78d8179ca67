// The calls about jobs: one function each.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <filesystem>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "ess/v1/jobs.pb.h"
#include "server/admission/work_queue.h"
#include "server/ess/measure.h"
#include "server/jobs/jobs.h"
#include "server/residency/model_catalogue.h"
#include "server/rpc/call_services.h"

namespace ess::rpc {

// What these calls need; everything outlives the calls.
struct JobsContext {
  CallServices services;
  // Null without state_dir: then every call is kFailedPrecondition.
  const std::unique_ptr<jobs::Jobs>& jobs;
  // Of their own, for files and the database: gRPC's threads never wait for a disk.
  admission::WorkQueue& queue;
  const residency::ModelCatalogue& catalogue;
  std::vector<Measure> default_measures;
  std::filesystem::path prompt_root;  // Empty: no prompts_file.
  absl::Duration longest_stall;       // Of a reader; then the call is cancelled.
};

// OK, or why this server has no jobs.
absl::Status CheckHasJobs(const JobsContext& context);
jobs::Viewer ViewerOf(const Identity& caller);

grpc::ServerReadReactor<v1::SubmitJobRequest>* StartSubmitJob(const JobsContext& context,
                                                              grpc::CallbackServerContext* call,
                                                              v1::Job* response);
grpc::ServerUnaryReactor* StartGetJob(const JobsContext& context, grpc::CallbackServerContext* call,
                                      const v1::GetJobRequest* request, v1::Job* response);
grpc::ServerUnaryReactor* StartListJobs(const JobsContext& context,
                                        grpc::CallbackServerContext* call,
                                        const v1::ListJobsRequest* request,
                                        v1::ListJobsResponse* response);
grpc::ServerWriteReactor<v1::Job>* StartWatchJob(const JobsContext& context,
                                                 grpc::CallbackServerContext* call,
                                                 const v1::WatchJobRequest* request);
grpc::ServerUnaryReactor* StartCancelJob(const JobsContext& context,
                                         grpc::CallbackServerContext* call,
                                         const v1::CancelJobRequest* request, v1::Job* response);
grpc::ServerUnaryReactor* StartDeleteJob(const JobsContext& context,
                                         grpc::CallbackServerContext* call,
                                         const v1::DeleteJobRequest* request);
grpc::ServerWriteReactor<v1::FetchJobResultResponse>* StartFetchJobResult(
    const JobsContext& context, grpc::CallbackServerContext* call,
    const v1::FetchJobResultRequest* request);

}  // namespace ess::rpc
