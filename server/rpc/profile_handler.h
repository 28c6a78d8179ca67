// Profile: one call from its request to its last message.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <string>

#include "absl/time/time.h"
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

// Begins a call: parses the request, which it empties, decodes it, queues its work, and writes the
// answers as they are made, in bytes (profile_messages.h). How many wait for a slow reader:
// stream_writer.h.
grpc::ServerWriteReactor<grpc::ByteBuffer>* StartProfile(const ProfileContext& context,
                                                         grpc::CallbackServerContext* call,
                                                         const grpc::ByteBuffer& request);

}  // namespace ess::rpc
