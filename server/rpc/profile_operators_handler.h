// ProfileOperators: one call from its declaration to its last message.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "absl/time/time.h"
#include "ess/v1/profiler.pb.h"
#include "server/admission/byte_budget.h"
#include "server/admission/request_queue.h"
#include "server/ess/ess_engine.h"
#include "server/rpc/call_services.h"
#include "server/rpc/operator_declaration.h"

namespace ess::rpc {

// What ProfileOperators calls need; everything outlives the calls.
struct OperatorsContext {
  const EssEngine& engine;
  admission::RequestQueue& queue;
  admission::ByteBudget& budget;  // Of the arguments of all calls.
  CallServices services;
  OperatorLimits limits;
  absl::Duration longest_stall;
};

// Begins a call: reads the declaration and the data, checking each message as it comes, queues the
// work when the caller has half-closed the stream, and writes the answers as they are made. The
// arguments' memory is given back as soon as the work has ended or the caller has left.
grpc::ServerBidiReactor<v1::ProfileOperatorsRequest, v1::ProfileOperatorsResponse>*
StartProfileOperators(const OperatorsContext& context, grpc::CallbackServerContext* call);

}  // namespace ess::rpc
