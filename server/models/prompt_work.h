// Which prompts are too little work for more than one thread.
#pragma once

#include <cstdint>

#include "server/models/sequence_model.h"

namespace ess::models {

// Whether the model runs a prompt of so many tokens on the calling thread alone. It depends on
// nothing else, so that a prompt gives the same bits in whatever company it runs.
bool RunsOnOneThread(const ModelDescription& model, int64_t tokens);

}  // namespace ess::models
