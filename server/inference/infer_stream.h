// ModelStreamInfer: any number of requests, each answered layer by layer.
#pragma once

#include <grpcpp/support/server_callback.h>

#include "server/inference/infer_work.h"

namespace ess::inference {

// Requests of one stream that wait or run at the same time; then the next is not read.
inline constexpr size_t kMaxRequestsInFlight = 16;

// Metadata of a call: "true" ends the stream with the status of the first request that fails.
// Without it, errors are messages and the stream goes on.
inline constexpr char kGrpcErrorMetadata[] = "triton_grpc_error";

grpc::ServerBidiReactor<ModelInferRequest, ModelStreamInferResponse>* StartModelStreamInfer(
    const InferContext& context, grpc::CallbackServerContext* call);

}  // namespace ess::inference
