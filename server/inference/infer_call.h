// ModelInfer: one request, one answer.
#pragma once

#include <grpcpp/support/server_callback.h>

#include "server/inference/infer_work.h"

namespace ess::inference {

// Begins a call. `request` and `response` are gRPC's, until it is done.
grpc::ServerUnaryReactor* StartModelInfer(const InferContext& context,
                                          grpc::CallbackServerContext* call,
                                          const ModelInferRequest* request,
                                          ModelInferResponse* response);

}  // namespace ess::inference
