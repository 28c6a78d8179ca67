// Profile: one call from its request to its last message.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <string>

#include "absl/time/time.h"
#include "ess/v1/profiler.pb.h"
#include "server/admission/request_queue.h"
#include "server/pipeline/profile_pipeline.h"
#include "server/rpc/call_services.h"
#include "server/rpc/proto_codec.h"

namespace ess::rpc {

// What Profile calls need; everything outlives the calls.
struct ProfileContext {
  const ProfilePipeline& pipeline;
  admission::RequestQueue& queue;
  const residency::ModelCatalogue& catalogue;
  CallServices services;
  RequestLimits limits;
  absl::Duration longest_stall;
  std::string server_version;
};

// Begins a call: decodes the request, queues its work, and writes the answers as they are made. At
// most 2 MiB of answers wait for a slow reader; then the work waits.
grpc::ServerWriteReactor<v1::ProfileResponse>* StartProfile(const ProfileContext& context,
                                                            grpc::CallbackServerContext* call,
                                                            const v1::ProfileRequest* request);

}  // namespace ess::rpc
