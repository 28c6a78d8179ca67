// GPT-2: model_type `gpt2`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Pre-norm blocks of multi-head attention with learned positions and a plain feed-forward; weights
// are stored [inputs, outputs].
// Source: Radford et al. 2019; transformers' modeling_gpt2.py.
Architecture Gpt2Architecture();

}  // namespace ess::models
