// The messages of the Open Inference Protocol. Its package, and so their namespace, is `inference`
// at the top; here they go by their names alone.
#pragma once

#include "inference/grpc_service.pb.h"

namespace ess::inference {

using namespace ::inference;

}  // namespace ess::inference
