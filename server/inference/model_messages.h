// What the service says of models without running them.
#pragma once

#include "server/inference/protocol.h"
#include "server/residency/model_residency.h"

namespace ess::inference {

// Whether a request for the model would begin now, or after a load that it starts.
bool IsReady(const residency::ModelStatus& model);

// Its state in the words of the protocol: READY, LOADING, UNLOADING or UNAVAILABLE.
const char* StateName(const residency::ModelStatus& model);

void EncodeMetadata(const residency::ModelStatus& model, ModelMetadataResponse* message);
void EncodeConfig(const residency::ModelStatus& model, int max_prompts, ModelConfig* message);
void EncodeIndexEntry(const residency::ModelStatus& model,
                      RepositoryIndexResponse::ModelIndex* message);

// Memory that the model takes now.
void EncodeMemoryUsage(const residency::ModelStatus& model, ModelStatistics* message);

}  // namespace ess::inference
